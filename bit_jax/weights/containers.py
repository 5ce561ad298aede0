"""What `.npz` and `.safetensors` files have in common: headers first, then one array at a time."""

import contextlib
import dataclasses
import math
import pathlib
from collections.abc import Iterator
from typing import Protocol

import numpy as np

from bit_jax.runtime import errors, files
from bit_jax.weights import layouts


@dataclasses.dataclass(frozen=True)
class Header:
  """What a file says about an array before it is read.

  Attributes:
    key: The array's name in the file.
    shape: Its shape in the file.
    dtype: The dtype in the file, such as 'float32' or 'bfloat16'.
    is_float: Whether that is a floating-point dtype.
    is_number: Whether that is a floating-point or integer dtype.
  """

  key: str
  shape: tuple[int, ...]
  dtype: str
  is_float: bool
  is_number: bool

  @property
  def size(self) -> int:
    """The number of elements."""
    return math.prod(self.shape)


class Container(Protocol):
  """An open checkpoint file.

  Attributes:
    path: The file.
    layout: How it names the parameters, and the order of a kernel's axes.
    headers: One for each array.
    metadata: Texts that it states about itself.
  """

  path: pathlib.Path
  layout: layouts.Layout
  headers: list[Header]
  metadata: dict[str, str]

  def read(self, key: str, *, check_finite: bool = True) -> np.ndarray:
    """Reads one array of numbers as float32, checking everything that the format allows.

    Args:
      key: The key of one of `headers`, of a dtype of real numbers.
      check_finite: Whether NaN and infinity are an error.

    Returns:
      float32 with the shape in the file.

    Raises:
      UserError: The data is damaged, or not finite.
    """
    ...


def require_finite(path: pathlib.Path, key: str, array: np.ndarray) -> None:
  """Raises a UserError if an array, or a part of it, holds NaN or infinite numbers."""
  if not np.isfinite(array).all():
    raise errors.UserError(f"{path}: {key} holds NaN or infinite numbers.")


def damaged(path: pathlib.Path, why: object) -> errors.UserError:
  """Returns the error for a file that can't be read to its end."""
  return errors.UserError(
    f"{path} is truncated or damaged ({why}; it has {path.stat().st_size:,} bytes): restore it "
    f"from a copy, or if it was downloaded, delete it and download it again."
  )


@contextlib.contextmanager
def replacing(path: pathlib.Path) -> Iterator[pathlib.Path]:
  """Yields a temporary path, whose file replaces the one at `path` in one step.

  Raises:
    UserError: The folder can't be created, or the file not be written; an earlier file stays.
  """
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    with files.replacing(path) as temporary:
      yield temporary
  except OSError as e:
    raise errors.UserError(
      f"{path} can't be written: {e.strerror or e}. Fix this, then try again."
    ) from e
