"""Reading and writing the `.npz` container: a zip file of `.npy` arrays.

`numpy.load` would unpickle, read everything before a shape can be checked, and hold float16 and
float32 copies side by side. Here headers come first, and each array is read once, in chunks that
stay in the processor's cache during the CRC check, conversion and the check for finite numbers.
"""

import contextlib
import dataclasses
import math
import pathlib
import tokenize
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from typing import IO, Literal

import numpy as np

from bit_jax.runtime import errors, files

_CHUNK_ITEMS = 1 << 17  # half a megabyte of float32: fits in a level-2 cache
_ENCRYPTED = 1  # flag bit 0 of a zip member


@dataclasses.dataclass(frozen=True)
class ArrayHeader:
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

  @property
  def size(self) -> int:
    """The number of elements."""
    return math.prod(self.shape)


@contextlib.contextmanager
def open_archive(path: pathlib.Path) -> Iterator[zipfile.ZipFile]:
  """Opens the zip file at `path` for reading.

  Raises:
    UserError: The file doesn't exist, is not a zip file, is truncated or damaged (also where only
      reading inside the `with` shows that).
  """
  try:
    with zipfile.ZipFile(path) as archive:
      yield archive
  except OSError as e:
    raise errors.UserError(f"{path} can't be read: {e.strerror or e}.") from e
  except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as e:
    with path.open("rb") as file:
      if file.read(2) != b"PK":
        raise errors.UserError(
          f"{path} is not an .npz file: give the path of a checkpoint in .npz format."
        ) from e
    raise errors.UserError(
      f"{path} is truncated or damaged ({e}; it has {path.stat().st_size:,} bytes): restore it "
      f"from a copy, or if it was downloaded, delete it and download it again."
    ) from e


def read_headers(archive: zipfile.ZipFile) -> list[ArrayHeader]:
  """Returns the header of every array, reading no data.

  Raises:
    UserError: A member is not a `.npy` array, or one of pickled objects.
  """
  headers = []
  for member in archive.infolist():
    if member.flag_bits & _ENCRYPTED or not member.filename.endswith(".npy"):
      raise errors.UserError(f"{archive.filename}: {member.filename!r} is not a .npy array.")
    with archive.open(member) as file:
      headers.append(_read_header(file, member.filename, archive.filename))
  return headers


def _read_header(file: IO[bytes], member: str, archive: str | None) -> ArrayHeader:
  try:
    version = np.lib.format.read_magic(file)
    read = {
      (1, 0): np.lib.format.read_array_header_1_0,
      (2, 0): np.lib.format.read_array_header_2_0,
    }[version]
    shape, fortran_order, dtype = read(file)
  except (ValueError, KeyError, SyntaxError, tokenize.TokenError) as e:
    raise errors.UserError(f"{archive}: {member!r} is not a .npy array.") from e
  if dtype.hasobject:
    raise errors.UserError(
      f"{archive}: {member!r} holds pickled Python objects, which could run code when loaded: save "
      f"it as a plain array."
    )
  return ArrayHeader(member.removesuffix(".npy"), shape, dtype, fortran_order, file.tell())


def read_array(
  archive: zipfile.ZipFile, header: ArrayHeader, *, check_finite: bool = True
) -> np.ndarray:
  """Reads one array of numbers as float32, verifying its CRC.

  Args:
    archive: An archive from `open_archive`, still open.
    header: A header of the archive, of a real dtype.
    check_finite: Whether NaN and infinity are an error.

  Returns:
    `[*header.shape]` float32.

  Raises:
    UserError: The data is shorter or longer than the header says, or not finite. (Damage raises
      `zipfile` exceptions, which `open_archive` turns into a `UserError`.)
  """
  order: Literal["F", "C"] = "F" if header.fortran_order else "C"
  array = np.empty(header.shape, np.float32, order=order)
  flat = array.reshape(-1, order=order)
  with archive.open(f"{header.key}.npy") as file:
    file.read(header.data_start)
    for start in range(0, flat.size, _CHUNK_ITEMS):
      part = flat[start : start + _CHUNK_ITEMS]
      data = file.read(part.size * header.dtype.itemsize)
      if len(data) != part.size * header.dtype.itemsize:
        raise errors.UserError(f"{archive.filename}: {header.key} is shorter than its shape says.")
      with np.errstate(over="ignore"):  # too large a float64 becomes infinite
        part[:] = np.frombuffer(data, header.dtype)
      if check_finite and not np.isfinite(part).all():
        raise errors.UserError(f"{archive.filename}: {header.key} holds NaN or infinite numbers.")
    if file.read(1):
      raise errors.UserError(f"{archive.filename}: {header.key} is longer than its shape says.")
  return array


def write(path: pathlib.Path, arrays: Mapping[str, np.ndarray]) -> None:
  """Writes `arrays` to `path` uncompressed, in one step: if it fails, an earlier file stays.

  The same arrays in the same order give the same bytes.

  Raises:
    UserError: The folder can't be created or written.
  """
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    with files.replacing(path) as temporary, temporary.open("wb") as file:
      np.savez(file, allow_pickle=False, **{k: np.asarray(v, order="C") for k, v in arrays.items()})
  except OSError as e:
    raise errors.UserError(f"{path} can't be written: {e.strerror or e}.") from e
