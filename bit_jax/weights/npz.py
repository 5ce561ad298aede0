"""Reading and writing the `.npz` container: a zip file of `.npy` arrays.

`numpy.load` would unpickle, read everything before a shape can be checked, and hold float16 and
float32 copies side by side. Here headers come first, and each array is read once, in chunks that
stay in the processor's cache during the CRC check, conversion and the check for finite numbers.
`array_archive` checks what the file says of itself.
"""

import contextlib
import math
import pathlib
from collections.abc import Iterator, Mapping
from typing import Literal

import numpy as np

from bit_jax.runtime import array_archive, errors
from bit_jax.weights import containers, layouts

_CHUNK_ITEMS = 1 << 17  # half a megabyte of float32: fits in a level-2 cache


@contextlib.contextmanager
def opened(path: pathlib.Path) -> Iterator["Npz"]:
  """Opens the zip file at `path`.

  Raises:
    UserError: The file doesn't exist, is truncated or damaged (also where only reading inside the
      `with` shows that), or a member is not a `.npy` array of plain values.
  """
  try:
    with array_archive.Archive(path) as archive:
      yield Npz(path, archive)
  except errors.UserError:
    raise
  except array_archive.Unusable as e:
    raise errors.UserError(f"{path}: {e.name!r} {e}.") from e
  except OSError as e:
    raise errors.UserError(f"{path} can't be read: {e.strerror or e}.") from e
  except array_archive.DAMAGED as e:
    raise containers.damaged(path, e) from e


class Npz:
  """An open file with official keys: a `containers.Container`."""

  layout = layouts.OFFICIAL

  def __init__(self, path: pathlib.Path, archive: array_archive.Archive):
    """Reads the headers of all arrays and no data.

    Raises:
      UserError: As `opened`, which also turns the exceptions of `archive` into one.
    """
    self.path = path
    self.metadata: dict[str, str] = {}
    self._archive = archive
    for entry in archive.entries.values():
      if not entry.filename.endswith(".npy"):
        raise errors.UserError(f"{path}: {entry.filename!r} is not a .npy array.")
    self._by_key = {key: archive.header(key) for key in archive.entries}
    self.headers = [
      containers.Header(key, h.shape, str(h.dtype), h.dtype.kind == "f", h.dtype.kind in "fiu")
      for key, h in self._by_key.items()
    ]

  def read(self, key: str, *, check_finite: bool = True) -> np.ndarray:
    """Reads one array, verifying its CRC; see `containers.Container`.

    Damage raises exceptions of `array_archive`, which `opened` turns into a `UserError`.
    """
    header = self._by_key[key]
    order: Literal["F", "C"] = "F" if header.fortran_order else "C"
    array_archive.require_memory(f"{self.path}: {key}", 4 * math.prod(header.shape))
    array = np.empty(header.shape, np.float32, order=order)
    flat = array.reshape(-1, order=order)
    with self._archive.open(key) as file:
      file.read(header.start)
      for start in range(0, flat.size, _CHUNK_ITEMS):
        part = flat[start : start + _CHUNK_ITEMS]
        data = file.read(part.size * header.dtype.itemsize)
        if len(data) != part.size * header.dtype.itemsize:
          raise EOFError(f"{key} ends early")
        with np.errstate(over="ignore"):  # too large a float64 becomes infinite
          part[:] = np.frombuffer(data, header.dtype)
        if check_finite:
          containers.require_finite(self.path, key, part)
    return array


def write(path: pathlib.Path, arrays: Mapping[str, np.ndarray]) -> None:
  """Writes `arrays` to `path` uncompressed, in one step: if it fails, an earlier file stays.

  The same arrays in the same order give the same bytes.

  Raises:
    UserError: The folder can't be created or written.
  """
  with containers.replacing(path) as temporary, temporary.open("wb") as file:
    np.savez(file, allow_pickle=False, **{k: np.asarray(v, order="C") for k, v in arrays.items()})
