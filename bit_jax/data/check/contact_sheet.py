"""A picture of some images of a set, as decoded and as training sees them."""

import pathlib
from collections.abc import Iterable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from bit_jax.data import augmentation, resizing
from bit_jax.runtime import numerics, plots

MOST = 16  # images on the sheet
_COLUMNS = 8
_TILE = 160  # pixels of an image on the sheet


@numerics.fixed()
def write(
  images: Iterable[np.ndarray],
  labels: Sequence[str],
  picture: pathlib.Path,
  *,
  title: str,
  resize: int,
  crop: int,
) -> None:
  """Draws images in rows, and below each row the same images resized, cropped and flipped.

  Args:
    images: 1 to `MOST` images, [h, w, 3] uint8, of any sizes.
    labels: Their classes' names.
    picture: The PNG file to write.
    title: The first line above the picture.
    resize: Side in pixels of the square that an image is resized to.
    crop: Side in pixels of the crop.
  """
  before, squares = [], []
  for image in images:  # one large photograph at a time
    before.append(_tile(image))
    squares.append(resizing.resize(image, resize))
  keys = augmentation.example_keys(jax.random.key(0), jnp.int32(0), jnp.arange(len(squares)))
  yes = jnp.bool_(True)
  augmented = augmentation.augment(
    jnp.asarray(np.stack(squares)), keys, resize=resize, crop=crop, flip=yes, random_crop=yes
  )
  after = [_tile(_grey_levels(image)) for image in np.asarray(augmented)]
  tiles, captions = [], []
  for start in range(0, len(before), _COLUMNS):
    row = slice(start, start + _COLUMNS)
    for shown, suffix in ((before[row], ""), (after[row], ", augmented")):
      blanks = min(_COLUMNS, len(before)) - len(shown)
      tiles += shown + [np.full_like(shown[0], 255)] * blanks
      captions += [label + suffix for label in labels[row]] + [""] * blanks
  plots.sheet(
    np.stack(tiles),
    captions,
    picture,
    f"{plots.line(title)}\nAs decoded, and below: resized to {resize}, then cropped to {crop} "
    f"and flipped at random",
    columns=min(_COLUMNS, len(before)),
  )


def _grey_levels(scaled: np.ndarray) -> np.ndarray:
  """Returns float32 in [-1, 1] as uint8, rounded."""
  return np.rint(np.clip(scaled * 127.5 + 127.5, 0, 255)).astype(np.uint8)


def _tile(image: np.ndarray) -> np.ndarray:
  """Fits [h, w, 3] uint8 into a white square of the sheet, keeping its shape."""
  height, width = image.shape[:2]
  scale = _TILE / max(height, width)
  size = (max(1, round(width * scale)), max(1, round(height * scale)))
  small = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BOX))
  tile = np.full((_TILE, _TILE, 3), 255, np.uint8)
  top, left = (_TILE - size[1]) // 2, (_TILE - size[0]) // 2
  tile[top : top + size[1], left : left + size[0]] = small
  return tile
