"""Image sizes, file stamps and marks, without decoding: one open, two reads and one stat a file.

Plain JPEG and PNG headers are parsed without Pillow, which takes a tenth of its time. All
other files (EXIF, XMP, colour profiles, damage, other formats) go to `images.size`, so every file
has the size, or the fault, that Pillow reports.
"""

import contextlib
import os
import pathlib
import struct
import time
import zlib
from collections.abc import Iterator, Sequence
from multiprocessing import pool
from typing import NamedTuple

import numpy as np

from bit_jax.data import images, stream

_BLOCK = 4_096  # files that are read alike: in threads where the first ones are slow to read
_FIRST = 64
_SLOW = 2e-4  # seconds a file; in memory it takes a tenth, and threads would wait for each other
_THREADS = 8
_START = 2_048  # bytes that hold the header of a JPEG without metadata
_MARKED = 1_024  # bytes at the end, which depend on all that was compressed: a PNG has a checksum
_BMP_START, _BMP_BLOCKS = b"BM", 8  # not compressed: so many blocks, evenly spread

_PNG_START = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR"
_PNG_HEADER = struct.Struct(">IIBBBBBI4x4s")  # IHDR, its CRC, and the name of the next chunk
_PNG_COLOURS = (0, 2, 4, 6)  # grey and RGB, without and with alpha


class Header(NamedTuple):
  """What is known of an image file without decoding it.

  Attributes:
    height: In pixels, as `images.decode` returns it; -1 if it is unreadable.
    width: Likewise.
    bytes: Size of the file; -1 if it doesn't exist.
    modified: Its modification time in nanoseconds; -1 likewise.
    mark: CRC-32 of its first bytes and of some of the others; 0 if it can't be read.
    fault: Why height and width are unreadable, as in `images.Unreadable`; '' otherwise.
  """

  height: int
  width: int
  bytes: int
  modified: int
  mark: int
  fault: str = ""


class Headers(NamedTuple):
  """The headers of N files.

  Attributes:
    sizes: [N, 2] int64: `Header.height` and `width`.
    stamps: [N, 2] int64: `Header.bytes` and `modified`.
    marks: [N] int64, of `Header.bytes` and `mark`: equal for files of equal content.
    faults: {index: `Header.fault`} of the unreadable files.
  """

  sizes: np.ndarray
  stamps: np.ndarray
  marks: np.ndarray
  faults: dict[int, str]

  def take(self, rows: Sequence[int]) -> "Headers":
    """Returns the headers of M of the files, in the order of `rows`."""
    faults = {i: self.faults[row] for i, row in enumerate(rows) if row in self.faults}
    return Headers(self.sizes[rows], self.stamps[rows], self.marks[rows], faults)


def read_all(root: pathlib.Path, paths: Sequence[str]) -> Headers:
  """Reads the headers of files, in threads, with a progress bar on a terminal.

  Args:
    root: The folder that relative paths are relative to.
    paths: N posix paths.
  """
  base = f"{root}/"
  full = [path if path.startswith("/") else base + path for path in paths]
  found = list(stream.progress("Reading image sizes", len(full), _read_in_order(full)))
  *numbers, faults = zip(*found, strict=True) if found else [()] * len(Header._fields)
  table = np.array(numbers, np.int64)
  marks = table[2] << 32 | table[4]
  return Headers(table[:2].T, table[2:4].T, marks, {i: why for i, why in enumerate(faults) if why})


def sizes(paths: Sequence[str]) -> Iterator[tuple[int, int]]:
  """Yields the (height, width) of each file with a readable header, as the consumer asks for it.

  Args:
    paths: Files; the first few are read one by one, later ones some thousands ahead.
  """
  found = _read_in_order(paths)
  return ((header.height, header.width) for header in found if not header.fault)


def _read_in_order(paths: Sequence[str]) -> Iterator[Header]:
  with pool.ThreadPool(_THREADS) as threads:
    for start in range(0, len(paths), _BLOCK):
      block = paths[start : start + _BLOCK]
      began = time.perf_counter()
      yield from map(read, block[:_FIRST])
      slow = time.perf_counter() - began > _SLOW * _FIRST
      yield from (threads.imap if slow else map)(read, block[_FIRST:])


def read(path: str) -> Header:
  """Reads the header of one file."""
  try:
    descriptor = os.open(path, os.O_RDONLY)
    try:
      status, start = os.fstat(descriptor), os.read(descriptor, _START)
      mark = _mark(descriptor, status.st_size, start)
    finally:
      os.close(descriptor)
  except OSError:  # `images.size` says why
    start, stamp, mark = b"", (-1, -1), 0
    with contextlib.suppress(OSError):  # such as a link to nowhere
      stamp = _stamp(os.stat(path))
  else:
    stamp = _stamp(status)
  try:
    return Header(*(plain_size(start) or images.size(pathlib.Path(path))), *stamp, mark)
  except images.Unreadable as e:
    return Header(-1, -1, *stamp, mark, str(e))


def _mark(descriptor: int, size: int, start: bytes) -> int:
  """Returns the mark of an open file of `size` bytes, whose first bytes are `start`."""
  mark, blocks = zlib.crc32(start), _BMP_BLOCKS if start.startswith(_BMP_START) else 1
  if size > _START:
    for end in (size * i // blocks for i in range(1, blocks + 1)):
      mark = zlib.crc32(os.pread(descriptor, _MARKED, max(_START, end - _MARKED)), mark)
  return mark


def _stamp(status: os.stat_result) -> tuple[int, int]:
  return status.st_size, status.st_mtime_ns


def plain_size(data: bytes) -> tuple[int, int] | None:
  """Returns the (height, width) of a JPEG or PNG image with a plain header.

  Args:
    data: The first bytes of the file.

  Returns:
    None where only Pillow can tell.
  """
  if data.startswith(_PNG_START):
    size = _png_size(data)
  else:
    jpeg = images.plain_jpeg(data)
    size = (jpeg.height, jpeg.width) if jpeg else None
  return size if size and images.is_unsuspicious(*size) else None


def _png_size(data: bytes) -> tuple[int, int] | None:
  """Reads the first chunk of an image that has no other before its pixels."""
  start = len(_PNG_START)
  if len(data) < start + _PNG_HEADER.size:
    return None
  width, height, depth, colour, _, method, _, crc, following = _PNG_HEADER.unpack_from(data, start)
  plain = depth == 8 and colour in _PNG_COLOURS and method == 0 and following == b"IDAT"
  return (height, width) if plain and crc == zlib.crc32(data[12:29]) else None
