"""Pictures within a page: images cut out of a run's sheets, whole pictures, a confusion matrix."""

import base64
import dataclasses
import io
import pathlib
import warnings
from typing import Any

import numpy as np
from PIL import Image

from bit_jax.report import values
from bit_jax.runtime import json_text, plots

_FORMATS = ("PNG", "JPEG")
_MOST_TILES = 64
_MOST_PIXELS = 40_000_000  # of a picture that is opened: a file may have been replaced
_SIDE = 176  # pixels of an image in the page
_WIDTH, _HEIGHT = 1400, 2800  # pixels of a whole picture in the page
_AS_IT_IS = 400_000  # bytes of a PNG file that goes into the page unchanged
_QUALITY = 85
_MOST_CELLS = 250  # on a side of a matrix that is seen on a phone
_LEVELS = 16  # shades of each colour of a matrix
_RIGHT, _WRONG = (0, 114, 178), (213, 94, 0)  # blue and orange of Okabe and Ito


@dataclasses.dataclass(frozen=True)
class Tile:
  """An image of a sheet.

  Attributes:
    source: The image as a data URI.
    caption: Its caption, without the '!' of a mistake.
    is_mistake: Whether it is captioned as a mistake.
  """

  source: str
  caption: str
  is_mistake: bool


def tiles(picture: pathlib.Path) -> list[Tile]:
  """Returns the images of a sheet of `plots.sheet`, at most 64; none of any other picture.

  Raises:
    OSError: The file can't be read, or is no picture.
    ValueError: It says something about its images that can't be.
  """
  with _opened(picture) as image:
    text = getattr(image, "text", {}).get(plots.TILES)
    if text is None:
      return []
    found = []
    for tile in json_text.parse(text)[:_MOST_TILES]:
      box = [int(value) for value in tile["box"]]
      left, top, right, bottom = box
      if not (0 <= left < right <= image.width and 0 <= top < bottom <= image.height):
        raise ValueError(f"{picture.name} has no image at {box}")
      cut = image.crop((left, top, right, bottom)).convert("RGB")
      cut.thumbnail((_SIDE, _SIDE))
      caption = values.plain(tile["caption"])
      found.append(Tile(_jpeg(cut), caption.removeprefix("!"), caption.startswith("!")))
    return found


def whole(picture: pathlib.Path) -> str:
  """Returns a picture as a data URI, made smaller if it is large.

  Raises:
    OSError: The file can't be read, or is no picture.
  """
  with _opened(picture) as image:
    if image.format == "PNG" and picture.stat().st_size <= _AS_IT_IS:
      return data_uri(picture.read_bytes(), "png")
    smaller = image.convert("RGB")
    smaller.thumbnail((_WIDTH, _HEIGHT))
    return _jpeg(smaller)


def matrix(counts: np.ndarray) -> tuple[str, int]:
  """Returns a confusion matrix as a data URI, and how many classes a side of a cell stands for.

  The share of the images of the classes of a row is opacity, on the scale of `shade`: blue on the
  diagonal, and orange beside it.

  Args:
    counts: [C, C] integer, C at least 1.
  """
  side = -(-len(counts) // _MOST_CELLS)
  padded = np.pad(counts, (0, -len(counts) % side))
  cells = padded.reshape(len(padded) // side, side, -1, side).sum(axis=(1, 3))
  shares = cells / np.maximum(cells.sum(axis=1), 1)[:, None]
  shades = np.ceil(np.sqrt(shares) * (_LEVELS - 1)).astype(np.uint8)
  shades[~np.eye(len(cells), dtype=bool)] += _LEVELS
  image = Image.fromarray(shades).convert("P")
  image.putdata(shades.ravel().tolist())
  image.putpalette([*_RIGHT * _LEVELS, *_WRONG * _LEVELS])
  opacities = [round(255 * level / (_LEVELS - 1)) for level in range(_LEVELS)]
  file = io.BytesIO()
  image.save(file, "PNG", optimize=True, transparency=bytes(2 * opacities))
  return data_uri(file.getvalue(), "png"), side


def shade(share: float) -> float:
  """Returns the opacity of a cell of a matrix: a square root, so that small shares are seen."""
  return float(np.sqrt(min(max(share, 0.0), 1.0)))


def data_uri(content: bytes, kind: str) -> str:
  """Returns a picture as a data URI; `kind` is 'png' or 'jpeg'."""
  return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def _jpeg(image: Image.Image) -> str:
  file = io.BytesIO()
  image.save(file, "JPEG", quality=_QUALITY, optimize=True)
  return data_uri(file.getvalue(), "jpeg")


def _opened(picture: pathlib.Path) -> Any:
  """Returns a picture, whose pixels are not read yet.

  Raises:
    OSError: The file can't be read, is no picture, or is larger than any that a run writes.
  """
  with warnings.catch_warnings():
    warnings.simplefilter("ignore", Image.DecompressionBombWarning)
    try:
      image = Image.open(picture, formats=_FORMATS)  # others may start programs
    except (ValueError, SyntaxError, Image.DecompressionBombError) as e:
      raise OSError(f"{picture.name} is no picture") from e
  if image.width * image.height > _MOST_PIXELS:
    image.close()
    raise OSError(f"{picture.name} has {image.width:,} x {image.height:,} pixels")
  return image
