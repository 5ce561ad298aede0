"""Reading and writing the `.npz` container: a zip file of `.npy` arrays.

`numpy.load` would unpickle, read everything before a shape can be checked, and hold float16 and
float32 copies side by side. Here headers come first, and each array is read once, in chunks that
stay in the processor's cache during the CRC check, conversion and the check for finite numbers.
"""

import contextlib
import dataclasses
import pathlib
import tokenize
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from typing import Literal

import numpy as np

from bit_jax.runtime import errors
from bit_jax.weights import containers, layouts

_CHUNK_ITEMS = 1 << 17  # half a megabyte of float32: fits in a level-2 cache
_ENCRYPTED = 1  # flag bit 0 of a zip member


@dataclasses.dataclass(frozen=True)
class _Header:
  """The `.npy` header of an array.

  Attributes:
    key: The array's name in the file, without `.npy`.
    shape: The array's shape.
    dtype: The dtype in the file.
    fortran_order: Whether its first axis varies fastest.
    data_start: Bytes of the `.npy` file that come before its data.
  """

  key: str
  shape: tuple[int, ...]
  dtype: np.dtype
  fortran_order: bool
  data_start: int


@contextlib.contextmanager
def opened(path: pathlib.Path) -> Iterator["Npz"]:
  """Opens the zip file at `path`.

  Raises:
    UserError: The file doesn't exist, is truncated or damaged (also where only reading inside the
      `with` shows that), or a member is not a `.npy` array of plain values.
  """
  try:
    with zipfile.ZipFile(path) as archive:
      yield Npz(path, archive)
  except OSError as e:
    raise errors.UserError(f"{path} can't be read: {e.strerror or e}.") from e
  except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as e:
    raise containers.damaged(path, e) from e


class Npz:
  """An open file with official keys: a `containers.Container`."""

  layout = layouts.OFFICIAL

  def __init__(self, path: pathlib.Path, archive: zipfile.ZipFile):
    """Reads the headers of all arrays and no data.

    Raises:
      UserError: As `opened`.
    """
    self.path = path
    self.metadata: dict[str, str] = {}
    self._archive = archive
    headers = [_read_header(archive, member) for member in archive.infolist()]
    self._by_key = {h.key: h for h in headers}
    self.headers = [
      containers.Header(h.key, h.shape, str(h.dtype), h.dtype.kind == "f", h.dtype.kind in "fiu")
      for h in headers
    ]

  def read(self, key: str, *, check_finite: bool = True) -> np.ndarray:
    """Reads one array, verifying its CRC; see `containers.Container`.

    Damage raises exceptions of `zipfile`, which `opened` turns into a `UserError`.
    """
    header = self._by_key[key]
    order: Literal["F", "C"] = "F" if header.fortran_order else "C"
    array = np.empty(header.shape, np.float32, order=order)
    flat = array.reshape(-1, order=order)
    with self._archive.open(f"{key}.npy") as file:
      file.read(header.data_start)
      for start in range(0, flat.size, _CHUNK_ITEMS):
        part = flat[start : start + _CHUNK_ITEMS]
        data = file.read(part.size * header.dtype.itemsize)
        if len(data) != part.size * header.dtype.itemsize:
          raise errors.UserError(f"{self.path}: {key} is shorter than its shape says.")
        with np.errstate(over="ignore"):  # too large a float64 becomes infinite
          part[:] = np.frombuffer(data, header.dtype)
        if check_finite:
          containers.require_finite(self.path, key, part)
      if file.read(1):
        raise errors.UserError(f"{self.path}: {key} is longer than its shape says.")
    return array


def _read_header(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> _Header:
  name, path = member.filename, archive.filename
  if member.flag_bits & _ENCRYPTED or not name.endswith(".npy"):
    raise errors.UserError(f"{path}: {name!r} is not a .npy array.")
  with archive.open(member) as file:
    try:
      version = np.lib.format.read_magic(file)
      read = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
      }[version]
      shape, fortran_order, dtype = read(file)
    except (ValueError, KeyError, SyntaxError, tokenize.TokenError) as e:
      raise errors.UserError(f"{path}: {name!r} is not a .npy array.") from e
    if dtype.hasobject:
      raise errors.UserError(
        f"{path}: {name!r} holds pickled Python objects, which could run code when loaded: save it "
        f"as a plain array."
      )
    return _Header(name.removesuffix(".npy"), shape, dtype, fortran_order, file.tell())


def write(path: pathlib.Path, arrays: Mapping[str, np.ndarray]) -> None:
  """Writes `arrays` to `path` uncompressed, in one step: if it fails, an earlier file stays.

  The same arrays in the same order give the same bytes.

  Raises:
    UserError: The folder can't be created or written.
  """
  with containers.replacing(path) as temporary, temporary.open("wb") as file:
    np.savez(file, allow_pickle=False, **{k: np.asarray(v, order="C") for k, v in arrays.items()})
