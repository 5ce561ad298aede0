"""The data of all benchmarks: a checkpoint in the official naming, images, labels, photographs.

Imports only numpy and the tables of architectures, so that workers of other environments can import
it.
"""

import itertools
import os
import pathlib
import zipfile
from collections.abc import Iterator, Sequence

import numpy as np

from bit_jax.models import architectures

NUM_CLASSES = 10
LEARNING_RATE = 0.003
MOMENTUM = 0.9
_PREFIX = "resnet/"


def parameters(
  architecture: architectures.Architecture, num_classes: int = NUM_CLASSES
) -> Iterator[tuple[str, np.ndarray]]:
  """Yields names and random float32 arrays as in `architectures.parameter_shapes`, head included.

  Args:
    architecture: Which network.
    num_classes: Outputs of the head.
  """
  random = np.random.default_rng(0)
  for name, shape in architectures.parameter_shapes(architecture, num_classes).items():
    normal = random.standard_normal(shape, np.float32)
    if name.endswith("/kernel"):  # preserves scale
      yield name, normal * np.float32(np.prod(shape[:-1]) ** -0.5)
    else:  # near 1 or 0
      yield name, normal * np.float32(0.2) + np.float32(name.endswith("/gamma"))


def write_checkpoint(
  path: pathlib.Path, architecture: architectures.Architecture, num_classes: int = NUM_CLASSES
) -> None:
  """Writes a checkpoint of random weights, head included, in the official naming.

  Args:
    path: Path of the `.npz` file.
    architecture: Which network.
    num_classes: Outputs of the head.
  """
  with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:  # one array at a time
    for name, array in parameters(architecture, num_classes):
      with archive.open(f"{_PREFIX}{name}.npy", "w", force_zip64=True) as file:
        np.lib.format.write_array(file, array)


def read_checkpoint(path: pathlib.Path) -> dict[str, np.ndarray]:
  """Returns {name: array} of such a file, named as `architectures.parameter_shapes`."""
  with np.load(path) as arrays:
    return {name.removeprefix(_PREFIX): arrays[name] for name in arrays.files}


def images(count: int, size: int) -> np.ndarray:
  """Returns random images: [count, size, size, 3] float32 in [-1, 1)."""
  return np.random.default_rng(1).uniform(-1, 1, (count, size, size, 3)).astype(np.float32)


def labels(count: int) -> np.ndarray:
  """Returns all classes in turn: [count] int32 in [0, NUM_CLASSES)."""
  return (np.arange(count) % NUM_CLASSES).astype(np.int32)


def compared(outputs: Sequence[np.ndarray]) -> list[float]:
  """Returns the numbers that must agree between implementations.

  Args:
    outputs: Outputs of the first steps: logits, [B, NUM_CLASSES], of which those of the first two
      images are returned; or losses, [B] or their mean [].
  """
  return [float(x) for o in outputs for x in (o[:2].ravel() if o.ndim == 2 else [o.mean()])]


def photographs() -> pathlib.Path | None:
  """Returns the folder of photographs below $BIT_JAX_TEST_DATA; None if it doesn't exist."""
  folder = pathlib.Path(os.environ.get("BIT_JAX_TEST_DATA", "")) / "data/folders/imagenet_sample"
  return folder if folder.is_dir() else None


def write_photographs(folder: pathlib.Path, count: int, originals: pathlib.Path | None) -> str:
  """Writes a set of two classes, with train and test parts, for `configs/folder.py`.

  Args:
    folder: Where to write it.
    count: Number of training images.
    originals: A folder with JPEG files, at any depth, which are copied in turn; None generates
      images.

  Returns:
    'photographs' or 'generated photographs'.
  """
  files = sorted(originals.rglob("*")) if originals else []
  found = [path.read_bytes() for path in files if path.suffix.lower() in (".jpg", ".jpeg")]
  contents = itertools.cycle(found or map(photograph, range(20)))
  for part, size in (("train", count), ("test", 4)):
    for i in range(size):
      path = folder / part / f"class{i % 2}" / f"{i:05}.jpg"
      path.parent.mkdir(parents=True, exist_ok=True)
      path.write_bytes(next(contents))
  return "photographs" if found else "generated photographs"


def photograph(seed: int) -> bytes:
  """Returns a JPEG file with the amplitude spectrum of photographs, of ImageNet's usual size.

  Source: 1/f amplitude spectra of natural images (Field 1987, "Relations between the statistics of
  natural images and the response properties of cortical cells").
  """
  import cv2

  random, (height, width) = np.random.default_rng(seed), (375, 500)
  rows, columns = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)
  frequency = np.maximum(np.hypot(rows, columns), 1 / width)
  exponents = np.array([1, 1.5, 1.5, 1.5])[:, None, None]  # of brightness, and of each colour
  spectra = np.fft.rfft2(random.normal(size=(4, height, width))) / frequency**exponents
  layers = np.fft.irfft2(spectra, (height, width))
  brightness, *colours = layers / layers.std(axis=(1, 2), keepdims=True)
  image = 127 + 50 * brightness[..., None] + 12 * np.stack(colours, axis=-1)
  quality = [cv2.IMWRITE_JPEG_QUALITY, 92]
  _, encoded = cv2.imencode(".jpg", np.clip(image, 0, 255).astype(np.uint8), quality)
  return encoded.tobytes()
