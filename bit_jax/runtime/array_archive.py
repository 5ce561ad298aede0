"""Zip files of `.npy` arrays that anybody may have written: checked before anything is unpacked.

`numpy.load` believes what a file says of itself. Here declared sizes must fit the bytes that are
there: deflate packs at most 1032 bytes into one, entries don't overlap, and an array has as many
bytes as its shape and dtype say. So memory is bounded by the file's size, and no array is pickled.

Formats: PKWARE's APPNOTE, 4.3 (zip); NumPy's NEP 1 (`.npy`).
"""

import io
import itertools
import math
import pathlib
import struct
import tokenize
import zipfile
import zlib
from typing import IO, Literal, NamedTuple, Self

import numpy as np
from numpy.lib import format as npy

from bit_jax.runtime import errors, machine, phrases

_ENCRYPTED = 1  # flag bit 0 of an entry
_LARGEST_RATIO = 1032  # of deflate: 258 bytes for 2 bits
_LITTLE = 1 << 24  # bytes for which free memory isn't looked up
_CHUNK = 1 << 18  # bytes that are read at once
_LONGEST_HEADER = 10_000  # bytes; NumPy's own limit, which it checks after reading
# What NumPy's parser raises at headers that are no header.
_NO_HEADER = (
  *(ValueError, TypeError, LookupError, AttributeError, SyntaxError, ArithmeticError),
  *(RecursionError, MemoryError, SystemError, tokenize.TokenError),
)
# What zipfile raises at damaged files, while it opens or reads them, apart from an OSError.
DAMAGED = (
  *(zipfile.BadZipFile, zlib.error, struct.error, ValueError, EOFError, OverflowError),
  RuntimeError,
)


class Unusable(Exception):  # noqa: N818 - a message about an entry, which callers put in a sentence
  """An entry that is no plain array; the message is a clause, such as 'is encrypted'.

  Attributes:
    name: The entry.
  """

  def __init__(self, name: str, fault: str):
    """Takes the entry's name and the clause."""
    super().__init__(fault)
    self.name = name


class Header(NamedTuple):
  """The header of an array.

  Attributes:
    shape: The array's shape.
    dtype: The dtype in the file.
    fortran_order: Whether its first axis varies fastest.
    start: Bytes of the `.npy` file that come before its data.
  """

  shape: tuple[int, ...]
  dtype: np.dtype
  fortran_order: bool
  start: int

  @property
  def nbytes(self) -> int:
    """The bytes of the data."""
    return math.prod(self.shape) * self.dtype.itemsize


class Archive:
  """An open file; a context manager.

  Attributes:
    entries: {name of an array, without `.npy`: its entry}.
  """

  def __init__(self, path: str | pathlib.Path):
    """Reads the directory of the file.

    Raises:
      OSError: It doesn't exist, or can't be read.
      Unusable: An entry is encrypted, or its sizes can't be true, or it is there twice.
      DAMAGED: It is no zip file, or truncated.
    """
    self._zip = zipfile.ZipFile(path)
    try:
      self.entries: dict[str, zipfile.ZipInfo] = {}
      for entry in _checked(self._zip.infolist(), pathlib.Path(path).stat().st_size):
        name = entry.filename.removesuffix(".npy")
        if name in self.entries:
          raise Unusable(name, "is there twice")
        self.entries[name] = entry
    except BaseException:
      self._zip.close()
      raise

  def __enter__(self) -> Self:
    """Returns the archive."""
    return self

  def __exit__(self, *_: object) -> None:
    """Closes the file."""
    self._zip.close()

  def open(self, name: str) -> IO[bytes]:
    """Opens the `.npy` file of an array; reading it checks its CRC and may raise one of `DAMAGED`.

    Args:
      name: One of `entries`.
    """
    return self._zip.open(self.entries[name])

  def header(self, name: str) -> Header:
    """Reads the header of an array.

    Raises:
      Unusable: It is no `.npy` array, holds objects, or has other bytes than it says.
      DAMAGED: The file is damaged.
    """
    with self.open(name) as file:
      header = _header(name, file)
    size = self.entries[name].file_size - header.start
    if header.nbytes != size:
      raise Unusable(
        name, f"is {'shorter' if size < header.nbytes else 'longer'} than its shape says"
      )
    return header

  def read(self, name: str) -> np.ndarray:
    """Reads an array as it is stored.

    Raises:
      Unusable: As `header`.
      DAMAGED: The file is damaged.
    """
    header = self.header(name)
    flat = np.empty(header.nbytes, np.uint8)
    with self.open(name) as file:
      file.read(header.start)
      for start in range(0, flat.size, _CHUNK):
        part = flat[start : start + _CHUNK]
        data = file.read(part.size)
        if len(data) != part.size:
          raise EOFError(f"{name} ends early")
        part[:] = np.frombuffer(data, np.uint8)
    order: Literal["F", "C"] = "F" if header.fortran_order else "C"
    return flat.view(header.dtype).reshape(header.shape, order=order)


def require_memory(what: str, needed: int) -> None:
  """Raises a `UserError` unless this process may still use as many bytes as something needs."""
  if needed > _LITTLE and needed > (free := machine.free_memory()):
    raise errors.UserError(
      f"{what} needs {phrases.file_size(needed)} of memory, and {phrases.file_size(free)} are free."
    )


def _checked(entries: list[zipfile.ZipInfo], size: int) -> list[zipfile.ZipInfo]:
  """Returns the entries of a file of `size` bytes, whose declared sizes are possible."""
  for entry in entries:
    name, packed = entry.filename, entry.compress_size
    if entry.flag_bits & _ENCRYPTED:
      raise Unusable(name, "is encrypted")
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
      raise Unusable(name, "is compressed by another method than np.savez_compressed uses")
    most = packed if entry.compress_type == zipfile.ZIP_STORED else packed * _LARGEST_RATIO
    if (
      not 0 <= entry.header_offset <= entry.header_offset + packed <= size or entry.file_size > most
    ):
      raise Unusable(name, "can't have the size that it declares")
  for one, following in itertools.pairwise(sorted(entries, key=lambda e: e.header_offset)):
    if one.header_offset + one.compress_size >= following.header_offset:
      raise Unusable(following.filename, f"overlaps {one.filename}")
  return entries


def _header(name: str, file: IO[bytes]) -> Header:
  """Reads a header, the first bytes of an array."""
  no_array = Unusable(name, "is not a .npy array")
  try:
    version = npy.read_magic(file)
  except ValueError:
    raise no_array from None
  form, parse = {
    (1, 0): ("<H", npy.read_array_header_1_0),
    (2, 0): ("<I", npy.read_array_header_2_0),
  }.get(version, (None, None))
  if form is None or parse is None:
    raise no_array
  length_bytes = file.read(struct.calcsize(form))
  length = int.from_bytes(length_bytes, "little")
  if length > _LONGEST_HEADER:
    raise Unusable(name, f"has a header of {length:,} bytes")
  text = file.read(length)
  try:
    shape, fortran_order, dtype = parse(io.BytesIO(length_bytes + text))
  except _NO_HEADER:
    raise no_array from None
  if dtype.hasobject:
    raise Unusable(
      name,
      "holds pickled Python objects, which could run code when loaded: save it as a plain array",
    )
  if not dtype.itemsize or any(type(side) is not int or side < 0 for side in shape):
    raise no_array
  return Header(shape, dtype, fortran_order, file.tell())
