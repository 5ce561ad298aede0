"""A folder of large JPEG files to read: copies of real photographs, or generated ones."""

import itertools
import os
import pathlib

import cv2
import numpy as np

_SIZE = (375, 500)  # height and width of most ImageNet photographs
_QUALITY = 92
_CLASSES = 2  # the fewest that a set can have
_TESTED = 4


def prepare(folder: pathlib.Path, count: int, originals: pathlib.Path | None) -> str:
  """Makes a set of two classes, with train and test parts, for `configs/folder.py`.

  Args:
    folder: To be made.
    count: Files to train on.
    originals: A folder with JPEG files, at any depth, which are copied in turn; None generates
      some.

  Returns:
    What they are, in words.
  """
  files = sorted(p for p in originals.rglob("*") if _is_jpeg(p)) if originals else []
  contents = [path.read_bytes() for path in files] or [generate(seed) for seed in range(20)]
  taken = itertools.cycle(contents)
  for part, size in (("train", count), ("test", _TESTED)):
    for i in range(size):
      path = folder / part / f"class{i % _CLASSES}" / f"{i:05}.jpg"
      path.parent.mkdir(parents=True, exist_ok=True)
      path.write_bytes(next(taken))
  return "photographs" if files else "generated photographs"


def default_originals() -> pathlib.Path | None:
  """Returns the folder of photographs below $BIT_JAX_TEST_DATA, if it is there."""
  folder = pathlib.Path(os.environ.get("BIT_JAX_TEST_DATA", "")) / "data/folders/imagenet_sample"
  return folder if folder.is_dir() else None


def generate(seed: int) -> bytes:
  """Returns a JPEG file whose amplitudes fall off with frequency as those of photographs do.

  Source: 1/f amplitude spectra of natural images (Field 1987, "Relations between the statistics of
  natural images and the response properties of cortical cells").
  """
  random = np.random.default_rng(seed)
  height, width = _SIZE
  rows, columns = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)
  frequency = np.maximum(np.hypot(rows, columns), 1 / width)
  spectrum = np.fft.rfft2(random.normal(size=_SIZE)) / frequency
  brightness = np.fft.irfft2(spectrum, _SIZE)
  tint = np.fft.irfft2(np.fft.rfft2(random.normal(size=(3, *_SIZE))) / frequency**1.5, _SIZE)
  picture = 127 + 50 * brightness[..., None] / brightness.std()
  picture = picture + 12 * (tint / tint.std()).transpose(1, 2, 0)
  options = [cv2.IMWRITE_JPEG_QUALITY, _QUALITY]
  _, encoded = cv2.imencode(".jpg", np.clip(picture, 0, 255).astype(np.uint8), options)
  return encoded.tobytes()


def _is_jpeg(path: pathlib.Path) -> bool:
  return path.suffix.lower() in (".jpg", ".jpeg")
