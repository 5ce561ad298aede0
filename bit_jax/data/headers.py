"""Image sizes and file stamps, without decoding: one open, one read and one stat a file.

Plain JPEG and PNG headers are parsed here, which takes a tenth of the time that Pillow needs. All
other files (EXIF, XMP, colour profiles, damage, other formats) go to `images.size`, so every file
has the size, or the fault, that Pillow reports.
"""

import contextlib
import os
import pathlib
import struct
import zlib
from collections.abc import Sequence
from multiprocessing import pool
from typing import NamedTuple

import numpy as np
from PIL import Image

from bit_jax.data import images, stream

_THREADS = 8  # for slow disks and network file systems
_CHUNK = 256  # files that a thread takes at a time
_START = 2_048  # bytes that hold the header of a JPEG without metadata
_UNKNOWN = (-1, -1)

_SEGMENT = struct.Struct(">HH")  # marker, length without the marker
_FRAME = struct.Struct(">BHHB")  # bits, height, width, components
_SOI, _FRAMES, _SCAN = 0xFFD8, (0xFFC0, 0xFFC1, 0xFFC2), 0xFFDA
_QUANTIZATION, _QUANTIZATION_BYTES, _APP0 = 0xFFDB, 65, 0xFFE0
_SKIPPED = (0xFFC4, 0xFFDD, 0xFFFE)  # Huffman tables, restart interval, comment

_PNG_START = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR"
_PNG_HEADER = struct.Struct(">IIBBBBBI4x4s")  # IHDR, its CRC, and the name of the next chunk
_PNG_COLOURS = (0, 2, 4, 6)  # grey and RGB, without and with alpha


class Header(NamedTuple):
  """What is known of an image file without decoding it.

  Attributes:
    size: (height, width) in pixels as `images.decode` returns it; (-1, -1) if it is unreadable.
    stamp: (bytes, modification time in nanoseconds); (-1, -1) if the file doesn't exist.
    fault: Why the size is unreadable, as in `images.Unreadable`; '' otherwise.
  """

  size: tuple[int, int]
  stamp: tuple[int, int]
  fault: str = ""


class Headers(NamedTuple):
  """The headers of N files.

  Attributes:
    sizes: [N, 2] int64: `Header.size`.
    stamps: [N, 2] int64: `Header.stamp`.
    faults: {index: `Header.fault`} of the unreadable files.
  """

  sizes: np.ndarray
  stamps: np.ndarray
  faults: dict[int, str]


def read_all(root: pathlib.Path, paths: Sequence[str]) -> Headers:
  """Reads the headers of files, in threads, with a progress bar on a terminal.

  Args:
    root: The folder that relative paths are relative to.
    paths: N posix paths.
  """
  base = str(root)
  full = (os.path.join(base, path) for path in paths)
  with pool.ThreadPool(_THREADS) as threads:
    read_in_order = threads.imap(read, full, chunksize=_CHUNK)
    found = list(stream.progress("Reading image sizes", len(paths), read_in_order))
  return Headers(
    np.array([h.size for h in found], np.int64).reshape(-1, 2),
    np.array([h.stamp for h in found], np.int64).reshape(-1, 2),
    {i: h.fault for i, h in enumerate(found) if h.fault},
  )


def read(path: str) -> Header:
  """Reads the header of one file."""
  stamp, size = _UNKNOWN, None
  try:
    descriptor = os.open(path, os.O_RDONLY)
    try:
      stamp = _stamp(os.fstat(descriptor))
      size = plain_size(os.read(descriptor, _START))
    finally:
      os.close(descriptor)
  except OSError:  # `images.size` says why
    with contextlib.suppress(OSError):  # such as a link to nowhere
      stamp = _stamp(os.stat(path))
  try:
    return Header(size or images.size(pathlib.Path(path)), stamp)
  except images.Unreadable as e:
    return Header(_UNKNOWN, stamp, str(e))


def plain_size(data: bytes) -> tuple[int, int] | None:
  """Returns the (height, width) of a JPEG or PNG image with a plain header.

  Args:
    data: The first bytes of the file.

  Returns:
    None where only Pillow can tell.
  """
  size = _png_size(data) if data.startswith(_PNG_START) else _jpeg_size(data)
  if size is None or not 0 < size[0] * size[1] <= (Image.MAX_IMAGE_PIXELS or 0):
    return None
  return size


def _jpeg_size(data: bytes) -> tuple[int, int] | None:
  """Walks the segments from the start of the image to the start of the scan."""
  if int.from_bytes(data[:2], "big") != _SOI:
    return None
  size, start = None, 2
  while start + _SEGMENT.size <= len(data):
    marker, length = _SEGMENT.unpack_from(data, start)
    body, start = start + _SEGMENT.size, start + 2 + length
    if length < 2 or start > len(data):
      return None
    if marker == _SCAN:
      return size
    if marker == _QUANTIZATION:
      if (length - 2) % _QUANTIZATION_BYTES or any(t > 15 for t in data[body:start:65]):
        return None
    elif marker in _FRAMES and size is None and length >= 8:
      bits, height, width, components = _FRAME.unpack_from(data, body)
      if bits != 8 or components not in (1, 3) or length != 8 + 3 * components:
        return None
      size = height, width
    elif not (marker in _SKIPPED or (marker == _APP0 and length >= 16)):
      return None
  return None


def _png_size(data: bytes) -> tuple[int, int] | None:
  """Reads the first chunk of an image that has no other before its pixels."""
  start = len(_PNG_START)
  if len(data) < start + _PNG_HEADER.size:
    return None
  width, height, depth, colour, _, method, _, crc, following = _PNG_HEADER.unpack_from(data, start)
  plain = depth == 8 and colour in _PNG_COLOURS and method == 0 and following == b"IDAT"
  return (height, width) if plain and crc == zlib.crc32(data[12:29]) else None


def _stamp(status: os.stat_result) -> tuple[int, int]:
  return status.st_size, status.st_mtime_ns
