"""A contact sheet of a data set: some images of each class, decoded and augmented."""

import pathlib
from collections import defaultdict

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image, ImageOps

from bit_jax.data import augmentation, images, resizing
from bit_jax.data.check import problems
from bit_jax.data.sources import scan
from bit_jax.runtime import numerics, plots

MOST = 16  # images on the sheet
_COLUMNS = 8
_TILE = 160  # pixels of an image on the sheet


@numerics.fixed()
def write(report: problems.Report, picture: pathlib.Path, *, resize: int, crop: int) -> None:
  """Draws images in rows, and below each row the same images resized, cropped and flipped.

  Args:
    report: With at least one image that can be decoded.
    picture: The PNG file to write.
    resize: Side in pixels of the square that an image is resized to.
    crop: Side in pixels of the crop.
  """
  chosen = choose(report)
  before, squares = [], []
  for entry in chosen:  # one large photograph at a time
    image = images.decode(report.found.root / entry.path)
    before.append(_tile(image))
    squares.append(resizing.resize(image, resize))
  keys = augmentation.example_keys(jax.random.key(0), jnp.int32(0), jnp.arange(len(squares)))
  yes = jnp.bool_(True)
  augmented = augmentation.augment(
    jnp.asarray(np.stack(squares)), keys, resize=resize, crop=crop, flip=yes, random_crop=yes
  )
  grey_levels = np.rint(np.clip(np.asarray(augmented) * 127.5 + 127.5, 0, 255)).astype(np.uint8)
  after = list(map(_tile, grey_levels))
  tiles, captions = [], []
  columns = min(_COLUMNS, len(before))
  for start in range(0, len(before), _COLUMNS):
    row = slice(start, start + _COLUMNS)
    for shown, suffix in ((before[row], ""), (after[row], ", augmented")):
      blanks = columns - len(shown)
      tiles += shown + [np.full_like(shown[0], 255)] * blanks
      captions += [entry.label + suffix for entry in chosen[row]] + [""] * blanks
  title = (
    f"{plots.line(report.found.root.name)}\nDecoded, and below: resized to {resize}, then cropped "
    f"to {crop} and flipped at random"
  )
  plots.sheet(np.stack(tiles), captions, picture, title, columns=columns)


def choose(report: problems.Report) -> list[scan.Entry]:
  """Returns up to `MOST` images, equally many of each class, class by class."""
  by_class: dict[str, list[scan.Entry]] = defaultdict(list)
  for image in report.decoded:
    if image.size:
      by_class[image.entry.label].append(image.entry)
  names = sorted(by_class)
  if len(names) > MOST:
    places = np.linspace(0, len(names) - 1, MOST).round().astype(int)
    return [by_class[names[i]][0] for i in places]
  ranked = [(rank, e) for n in names for rank, e in enumerate(by_class[n])]
  first = sorted(ranked, key=lambda pair: pair[0])[:MOST]
  return [e for _, e in sorted(first, key=lambda pair: (pair[1].label, pair[0]))]


def _tile(image: np.ndarray) -> np.ndarray:
  """Fits [h, w, 3] uint8 into a white square of the sheet, keeping its shape."""
  picture = Image.fromarray(image)
  return np.asarray(ImageOps.pad(picture, (_TILE, _TILE), Image.Resampling.BOX, "white"))
