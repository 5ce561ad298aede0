"""What every implementation is given: a checkpoint in the official naming, images and labels.

Only numpy and the architectures as data, so that a worker of another environment imports it too.
"""

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
    yield name, _array(random, name, shape)


def write_checkpoint(
  path: pathlib.Path, architecture: architectures.Architecture, num_classes: int = NUM_CLASSES
) -> None:
  """Writes a checkpoint of random weights, head included, in the official naming.

  Args:
    path: Of the `.npz` file.
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
  """Returns labels that take turns: [count] int32 in [0, NUM_CLASSES)."""
  return (np.arange(count) % NUM_CLASSES).astype(np.int32)


def compared(outputs: Sequence[np.ndarray]) -> list[float]:
  """Returns the numbers in which implementations must agree.

  Args:
    outputs: Of the first steps: the logits [B, NUM_CLASSES], of which the first two images' count;
      or the losses, [B] or their mean [].
  """
  return [float(x) for o in outputs for x in (o[:2].ravel() if o.ndim == 2 else [o.mean()])]


def _array(random: np.random.Generator, name: str, shape: tuple[int, ...]) -> np.ndarray:
  """Returns a gain near 1, a shift near 0, or a kernel that keeps its input's scale: float32."""
  normal = random.standard_normal(shape, np.float32)
  if name.endswith("/kernel"):
    return normal * np.float32(np.prod(shape[:-1]) ** -0.5)
  return normal * np.float32(0.2) + np.float32(name.endswith("/gamma"))
