"""Decoding image files of any colour mode, depth and orientation to [h, w, 3] uint8 arrays.

All functions may be called from several threads at once: decoding releases Python's lock.

Pillow decodes all files except plain JPEG files. OpenCV decodes these to the same pixels (both use
libjpeg-turbo with its accurate DCT and smooth upsampling) in three quarters of the time.
"""

import io
import pathlib
import re
import struct
import warnings
import zlib
from typing import NamedTuple

import cv2
import numpy as np
from PIL import (
  ExifTags,
  Image,
  UnidentifiedImageError,
  WebPImagePlugin,  # noqa: F401 (registers the format, which Pillow does only on demand)
)

from bit_jax.runtime import errors

EXTENSIONS = frozenset((".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp"))  # in lower case
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP")  # recognised by content, not by extension

_JPEG_END = b"\xff\xd9"
_JPEG_STOP = re.compile(rb"\xff[^\x00\xd0-\xd7]")  # a marker other than a restart
_AS_STORED = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
_ROTATED = (5, 6, 7, 8)  # EXIF orientations that swap height and width
# Exceptions of Pillow's readers on damaged files and on files that are not images.
_BROKEN = (
  *(OSError, SyntaxError, ValueError, EOFError, LookupError, TypeError, AttributeError),
  *(ArithmeticError, AssertionError, RuntimeError, struct.error, zlib.error),
  Image.DecompressionBombError,
)
_SEGMENT = struct.Struct(">HH")  # marker, length without the marker
_FRAME = struct.Struct(">BHHB")  # bits, height, width, components
_SOI, _FRAMES, _PROGRESSIVE, _SCAN = b"\xff\xd8", (0xFFC0, 0xFFC1, 0xFFC2), 0xFFC2, 0xFFDA
# Every scan of a progressive JPEG goes over all pixels; encoders write about ten.
_SCAN_START, _MOST_SCANS = b"\xff\xda", 100
_STRIP_PIXELS = 1 << 22  # of a large image whose pixels are converted at once
_QUANTIZATION, _QUANTIZATION_BYTES, _APP0 = 0xFFDB, 65, 0xFFE0
_SKIPPED = (0xFFC4, 0xFFDD, 0xFFFE)  # Huffman tables, restart interval, comment
_PLAIN = re.compile(  # what most encoders write unless asked to optimise: JFIF, standard tables
  rb"\xff\xd8(?:\xff\xe0\0\x10.{14})?(?:\xff\xdb\0C[\0-\x0f].{64})+"
  rb"\xff([\xc0-\xc2])\0(?:\x0b\x08(?=.{4}\x01)|\x11\x08(?=.{4}\x03))(.{4})(?:\x01.{3}|\x03.{9})"
  rb"(?:\xff\xc4\0(?:\x1f.{29}|\xb5.{179}))*\xff\xda\0(?:\x08.{6}|\x0c.{10})",
  re.DOTALL,
)
_PLAIN_SIZE = struct.Struct(">HH")  # height, width
# Silences warnings on odd metadata, which don't concern the pixels.
warnings.filterwarnings("ignore", module=r"PIL\.")


class PlainJpeg(NamedTuple):
  """The header of a JPEG image without metadata.

  Attributes:
    height: In pixels.
    width: In pixels.
    progressive: Whether it has several scans.
    end: Where its first scan starts.
  """

  height: int
  width: int
  progressive: bool
  end: int


class Unreadable(errors.UserError):
  """A file that can't be decoded; the message is a clause without the path: 'is truncated'."""


def decode(data: bytes | pathlib.Path) -> np.ndarray:
  """Decodes a JPEG, PNG, BMP, GIF or WebP image, recognised by its content.

  Grey becomes three equal channels. 16-bit grey is scaled from 65535 to 255 and rounded; of 16-bit
  colours Pillow keeps the upper byte. CMYK is converted without a colour profile. Of an animation
  the first frame is decoded. Transparent pixels become white, because their stored colours are
  arbitrary, often black. The EXIF orientation is applied.

  Args:
    data: The file's content, or its path.

  Returns:
    [h, w, 3] uint8, contiguous; it may be read-only.

  Raises:
    Unreadable: The file is not such an image, is truncated or damaged, or can't be opened.
  """
  data = read(data) if isinstance(data, pathlib.Path) else data
  if (found := _without_pillow(data)) is not None:
    return found
  file = io.BytesIO(data)
  with _open(file) as image:
    if image.format == "JPEG" and data.count(_SCAN_START) > _MOST_SCANS:
      raise Unreadable(f"has more than {_MOST_SCANS} scans, which no encoder writes")
    orientation = _orientation(image)
    colours = image.format == "JPEG" and image.mode in ("RGB", "L")
    if colours and "progressive" not in image.info:
      found = _by_opencv(data, file.tell())
    if found is None:
      found = _loaded(image)
  return _turn(found, orientation)


def pixels(image: Image.Image) -> np.ndarray:
  """Returns the pixels of an image of Pillow as `decode` returns them, [h, w, 3] uint8.

  Raises:
    Unreadable: It was opened from a file that is truncated or damaged.
  """
  orientation = _orientation(image)
  return _turn(_loaded(image), orientation)


def size(path: pathlib.Path) -> tuple[int, int]:
  """Returns the (height, width) of an image as `decode` returns it, from the file's header.

  Raises:
    Unreadable: The file has no header of such an image, or can't be opened.
  """
  try:
    with path.open("rb") as file, _open(file) as image:
      width, height = image.size
      return (width, height) if _orientation(image) in _ROTATED else (height, width)
  except OSError as e:
    raise Unreadable(f"can't be opened ({e.strerror or e})") from None


def plain_jpeg(data: bytes) -> PlainJpeg | None:
  """Reads the header of a JPEG image in colour or grey that has no metadata, as most encoders do.

  Walks the segments from the start of the image to the start of the scan.

  Args:
    data: The file's content, or the first bytes of it.

  Returns:
    None where only Pillow can tell.
  """
  if plain := _PLAIN.match(data):
    height, width = _PLAIN_SIZE.unpack(plain[2])
    return PlainJpeg(height, width, plain[1] == b"\xc2", plain.end())
  if not data.startswith(_SOI):
    return None
  frame, start, end = None, len(_SOI), len(data)
  while start + _SEGMENT.size <= end:
    marker, length = _SEGMENT.unpack_from(data, start)
    body, start = start + _SEGMENT.size, start + 2 + length
    if length < 2 or start > end:
      return None
    if marker in _SKIPPED:
      continue
    if marker == _SCAN:
      return PlainJpeg(*frame, start) if frame else None
    if marker == _QUANTIZATION:
      if (length - 2) % _QUANTIZATION_BYTES or max(data[body:start:65], default=0) > 15:
        return None
    elif marker in _FRAMES and frame is None and length >= 8:
      bits, height, width, components = _FRAME.unpack_from(data, body)
      if bits != 8 or components not in (1, 3) or length != 8 + 3 * components:
        return None
      frame = height, width, marker == _PROGRESSIVE
    elif marker != _APP0 or length < 16:
      return None
  return None


def is_unsuspicious(height: int, width: int) -> bool:
  """Returns whether Pillow opens an image of so many pixels without a warning or an error."""
  return 0 < height * width <= (Image.MAX_IMAGE_PIXELS or 0)


def read(path: pathlib.Path) -> bytes:
  """Returns the content of a file.

  Raises:
    Unreadable: It can't be opened.
  """
  try:
    return path.read_bytes()
  except OSError as e:
    raise Unreadable(f"can't be opened ({e.strerror or e})") from None


def _open(file: io.BytesIO | io.BufferedReader) -> Image.Image:
  """Reads the header of an image."""
  try:
    return Image.open(file, formats=FORMATS)
  except UnidentifiedImageError:
    if not file.seek(0, io.SEEK_END):
      raise Unreadable("is empty (0 bytes)") from None
    raise Unreadable("is not a JPEG, PNG, BMP, GIF or WebP image") from None
  except Image.DecompressionBombError:
    limit = 2 * (Image.MAX_IMAGE_PIXELS or 0) // 10**6
    raise Unreadable(f"is larger than Pillow's limit ({limit} million pixels)") from None
  except _BROKEN as e:
    raise Unreadable(f"has a damaged header ({errors.first_line(e)})") from None


def _orientation(image: Image.Image) -> int:
  """Returns the EXIF orientation, 1 to 8; 1 if it is missing or invalid.

  Only metadata before the pixels is read: Pillow's own method would decode a PNG to find more.
  """
  try:
    orientation = Image.Image.getexif(image).get(ExifTags.Base.Orientation, 1)
  except _BROKEN:
    return 1
  return orientation if isinstance(orientation, int) and 1 <= orientation <= 8 else 1


def _without_pillow(data: bytes) -> np.ndarray | None:
  """Decodes a JPEG without metadata: opening it with Pillow runs 150 functions of Python."""
  header = plain_jpeg(data)
  if header is None or header.progressive or not is_unsuspicious(header.height, header.width):
    return None
  return _by_opencv(data, header.end)


def _by_opencv(data: bytes, start: int) -> np.ndarray | None:
  """Returns the pixels of a plain JPEG; None where Pillow must decode or refuse the file.

  A plain JPEG has one scan, in colour or grey, and no marker in it before its end: where OpenCV
  stops early, it silently invents the remaining pixels.

  Args:
    data: The content of a file in colour or grey that is not progressive.
    start: Where its scan starts.
  """
  stop = _JPEG_STOP.search(data, start)
  if stop is None or stop.start() < len(data) - len(_JPEG_END) or not data.endswith(_JPEG_END):
    return None
  try:
    return cv2.imdecode(np.frombuffer(data, np.uint8), _AS_STORED)
  except cv2.error:
    return None


def _loaded(image: Image.Image) -> np.ndarray:
  """Decodes an opened image, as it is stored: [h, w, 3] uint8."""
  try:
    image.load()
    return _as_stored(image)
  except _BROKEN as e:
    text = errors.first_line(e)
    fault = "is truncated" if "truncated" in text.lower() else f"is damaged ({text})"
    raise Unreadable(fault) from None


def _as_stored(image: Image.Image) -> np.ndarray:
  """Returns a loaded image's pixels, [h, w, 3] uint8; of a large one strip by strip."""
  rows = max(1, _STRIP_PIXELS // max(1, image.width))
  if rows >= image.height:
    return _converted(image)
  found = np.empty((image.height, image.width, 3), np.uint8)
  for top in range(0, image.height, rows):
    strip = image.crop((0, top, image.width, min(top + rows, image.height)))
    found[top : top + rows] = _converted(strip)
  return found


def _converted(image: Image.Image) -> np.ndarray:
  """Returns the pixels of an image or of a strip of one; conversions need many times its memory."""
  if image.mode.startswith("I"):
    wide = np.asarray(image).astype(np.uint32)
    return np.repeat(((wide * 255 + 32767) // 65535).astype(np.uint8)[..., None], 3, axis=-1)
  if image.has_transparency_data:
    rgba = np.asarray(image.convert("RGBA"))
    alpha = rgba[..., 3:].astype(np.uint16)
    on_white = rgba[..., :3] * alpha + 255 * (255 - alpha) + 127  # at most 65,152
    return (on_white // 255).astype(np.uint8)
  return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))


def _turn(pixels: np.ndarray, orientation: int) -> np.ndarray:
  """Returns the image in display orientation (EXIF 2.3, tag 0x0112)."""
  if orientation == 1:
    return pixels
  if orientation in _ROTATED:
    pixels = pixels.swapaxes(0, 1)
  if orientation in (2, 3, 6, 7):
    pixels = pixels[:, ::-1]
  if orientation in (3, 4, 7, 8):
    pixels = pixels[::-1]
  return np.ascontiguousarray(pixels)
