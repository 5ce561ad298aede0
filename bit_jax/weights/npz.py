"""Reading and writing the `.npz` container: a zip file of `.npy` arrays.

`numpy.load` would unpickle, read everything before a shape can be checked, and hold float16 and
float32 copies side by side; here headers come first and each array is read once, in chunks that
stay in the processor's cache while their CRC, their conversion and their finiteness are seen to.
"""

import contextlib
import dataclasses
import io
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
_DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, OSError)


@dataclasses.dataclass(frozen=True)
class ArrayHeader:
  """What an array's `.npy` header says.

  Attributes:
    key: Its name in the file, without `.npy`.
    shape: Its shape.
    dtype: Its dtype in the file.
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
    """How many numbers it holds."""
    return math.prod(self.shape)


@contextlib.contextmanager
def open_archive(path: pathlib.Path) -> Iterator[zipfile.ZipFile]:
  """Opens the zip file at `path` for reading.

  Raises:
    UserError: There is no such file, or it is not a zip file, truncated or damaged (also where
      that shows only while it is read inside the `with`).
  """
  if not path.is_file():
    what = "is a folder" if path.is_dir() else "doesn't exist"
    raise errors.UserError(f"{path} {what}: give the path of an .npz file.")
  try:
    with zipfile.ZipFile(path) as archive:
      yield archive
  except errors.UserError:
    raise
  except _DAMAGE as e:
    raise errors.UserError(_describe_damage(path, e)) from e


def _describe_damage(path: pathlib.Path, error: Exception) -> str:
  remedy = "delete it and get it again."
  if isinstance(error, OSError):
    return f"{path} can't be read: {error.strerror or error}."
  if zipfile.is_zipfile(path):
    return f"{path} is damaged ({error}): {remedy}"
  with path.open("rb") as file:
    start = file.read(4)
  if start == b"PK\x03\x04":
    return f"{path} is truncated (it ends after {path.stat().st_size:,} bytes): {remedy}"
  return f"{path} is not an .npz file (it isn't a zip archive): {remedy}"


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
      f"{archive}: {member!r} holds pickled Python objects, which could run code when they are "
      f"loaded, so it is refused: save it as a plain array."
    )
  return ArrayHeader(member.removesuffix(".npy"), shape, dtype, fortran_order, file.tell())


def read_array(
  archive: zipfile.ZipFile, header: ArrayHeader, *, check_finite: bool = True
) -> np.ndarray:
  """Reads one array of numbers as float32, verifying its CRC.

  Args:
    archive: An archive from `open_archive`, still open.
    header: One of its `read_headers`, of a real dtype.
    check_finite: Whether to refuse NaN and infinity.

  Returns:
    [*header.shape] float32.

  Raises:
    UserError: The data is shorter or longer than the header says, or not finite. (Damage comes
      as the `zipfile` exceptions that `open_archive` turns into a `UserError`.)
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
        raise errors.UserError(f"{archive.filename}: {header.key} ends before its shape is filled.")
      with np.errstate(over="ignore"):  # a float64 too large becomes infinite and is refused below
        part[:] = np.frombuffer(data, header.dtype)
      if check_finite and not np.isfinite(part).all():
        raise errors.UserError(
          f"{archive.filename}: {header.key} holds NaN or infinite numbers, so it is unusable."
        )
    if file.read(1):
      raise errors.UserError(f"{archive.filename}: {header.key} is longer than its shape says.")
  return array


def write(path: pathlib.Path, arrays: Mapping[str, np.ndarray]) -> None:
  """Writes `arrays` to `path` uncompressed, replacing it in one step or leaving it as it was.

  The same arrays in the same order give the same bytes.

  Raises:
    UserError: The folder can't be made or written.
  """
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    with (
      files.replacing(path) as temporary,
      zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive,
    ):
      for key, array in arrays.items():
        _write_array(archive, key, array)
  except OSError as e:
    raise errors.UserError(f"{path} can't be written: {e.strerror or e}.") from e


def _write_array(archive: zipfile.ZipFile, key: str, array: np.ndarray) -> None:
  header = io.BytesIO()
  np.lib.format.write_array_header_1_0(
    header, {"descr": array.dtype.str, "fortran_order": False, "shape": array.shape}
  )
  with archive.open(f"{key}.npy", "w", force_zip64=True) as file:
    file.write(header.getvalue())
    file.write(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
