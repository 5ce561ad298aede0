"""Image files: headers and pixels."""

import functools
import io
import pathlib
import random
import struct
import zlib
from collections.abc import Sequence

import numpy as np
from PIL import Image

from bit_jax.data import headers, images, resizing
from experiments.reliability.fuzz import mutation, target

_SIDES = (
  *3 * (0, 1, 2, 3, 255, 256, 1_000),
  *(4_000, 13_000, 32_768, 65_535, 10**6, 2**31 - 1, 2**31, 2**32 - 1),
)
_MEMORY = 3 << 30  # Pillow's limit is 179 million pixels, of 4 bytes while they are decoded


def files() -> target.Target:
  """Returns image files of the formats that are read."""
  seeds = _seeds()
  by_start = [_pngs(seeds), *([s] for s in seeds if not s.startswith(b"\x89PNG"))]

  def build(rng: random.Random) -> bytes:
    data = rng.choice(rng.choice(by_start))
    if data.startswith(b"\x89PNG"):
      return _faulty_png(rng, data)
    if data.startswith(b"\xff\xd8"):
      return _faulty_jpeg(rng, data)
    return _other_size(rng, data)

  tokens = (
    b"\xff\xda",
    b"\xff\xd9",
    b"\xff\xe1",
    b"Exif\0\0",
    b"II*\0",
    b"MM\0*",
    b"IDAT",
    b"VP8X",
  )
  return target.Target(seeds, build, _check, (*tokens, b"ANMF", b"\x21\xf9\x04", b"\x2c"), _MEMORY)


def _pngs(seeds: Sequence[bytes]) -> list[bytes]:
  return [s for s in seeds if s.startswith(b"\x89PNG")]


def _saved(image: Image.Image, kind: str, **options: object) -> bytes:
  file = io.BytesIO()
  image.save(file, kind, **options)
  return file.getvalue()


def _seeds() -> list[bytes]:
  """Returns small images of every format and mode."""
  noise = np.random.default_rng(0).integers(0, 256, (11, 14, 4), np.uint8)
  rgb, rgba = Image.fromarray(noise[..., :3]), Image.fromarray(noise)
  grey, wide = rgb.convert("L"), Image.fromarray(noise[..., 0].astype(np.uint16) * 257)
  palette, frames = rgb.quantize(16), [rgb.rotate(90 * i) for i in range(3)]
  save_png = functools.partial(_saved, kind="PNG")
  exif = Image.Exif()
  exif[0x0112], exif[0x010E] = 6, "text"
  return [
    *(_saved(i, "JPEG") for i in (rgb, grey, rgb.convert("CMYK"))),
    *(
      _saved(rgb, "JPEG", **o) for o in ({"progressive": True}, {"subsampling": 2}, {"exif": exif})
    ),
    _saved(rgb, "JPEG", icc_profile=bytes(200), comment=b"x", restart_marker_blocks=1),
    *map(save_png, (rgb, rgba, grey, wide, palette, rgb.convert("1"), rgba.convert("LA"))),
    save_png(palette, transparency=3),
    save_png(rgb, icc_profile=bytes(200), exif=exif),
    save_png(rgb, save_all=True, append_images=frames),
    *(_saved(i, "BMP") for i in (rgb, rgba, grey, palette, rgb.convert("1"))),
    *(_saved(i, "GIF") for i in (palette, grey)),
    _saved(palette, "GIF", transparency=1),
    _saved(rgb, "GIF", save_all=True, append_images=frames, loop=0),
    *(_saved(i, "WEBP", lossless=b) for i in (rgb, rgba) for b in (True, False)),
    _saved(rgb, "WEBP", exif=exif, icc_profile=bytes(200)),
    _saved(rgba, "WEBP", save_all=True, append_images=frames),
  ]


def _faulty_png(rng: random.Random, data: bytes) -> bytes:
  """Returns a PNG some of whose chunks are others, mostly with a right CRC."""
  chunks, start = [], 8
  while start < len(data):
    (length,) = struct.unpack_from(">I", data, start)
    chunks.append((data[start + 4 : start + 8], data[start + 8 : start + 8 + length]))
    start += 12 + length
  for _ in range(rng.randrange(1, 4)):
    place = rng.randrange(len(chunks))
    name, body = chunks[place]
    match rng.randrange(7):
      case 0:
        body = struct.pack(">II", rng.choice(_SIDES), rng.choice(_SIDES))
        chunks[0] = (b"IHDR", body + chunks[0][1][8:])
      case 1:
        kind = bytes((rng.choice((1, 2, 4, 8, 16)), rng.randrange(7), 0, 0, rng.randrange(2)))
        chunks[0] = (b"IHDR", chunks[0][1][:8] + kind)
      case 2:
        chunks[place] = (name, mutation.mutated(rng, body))
      case 3:
        del chunks[place]
        chunks.append((name, body))
      case 4:
        text = zlib.compress(bytes(rng.choice((10**3, 2 * 10**6))))
        kind = rng.choice((b"zTXt", b"iCCP", b"iTXt"))
        chunks.insert(1, (kind, b"a\0" + (b"\1\0\0\0" if kind == b"iTXt" else b"\0") + text))
      case 5:
        numbers = struct.pack(">II", rng.choice((0, 1, 10**6, 2**32 - 1)), rng.randrange(3))
        frame = struct.pack(">IIIII", *(rng.choice(_SIDES) for _ in range(5)))
        chunks.insert(1, (b"acTL", numbers))
        chunks.insert(2, (b"fcTL", frame + bytes(6)))
      case _:
        chunks.insert(rng.randrange(1, len(chunks) + 1), (b"eXIf", _exif(rng)))
  crc = rng.choice((0, 0, 0, 1))
  return data[:8] + b"".join(
    struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body) ^ crc)
    for name, body in chunks
  )


def _faulty_jpeg(rng: random.Random, data: bytes) -> bytes:
  """Returns a JPEG with another size, more or changed segments, or more scans."""
  changed = bytearray(data)
  frame = max(data.find(b"\xff\xc0"), data.find(b"\xff\xc2"))
  scan = data.find(b"\xff\xda")
  match rng.randrange(5):
    case 0:
      sides = (rng.choice(_SIDES) % 2**16, rng.choice(_SIDES) % 2**16)
      changed[frame + 5 : frame + 9] = struct.pack(">HH", *sides)
    case 1:
      body = b"Exif\0\0" + _exif(rng)
      changed[2:2] = b"\xff\xe1" + struct.pack(">H", (len(body) + 2) % 2**16) + body
    case 2:
      end = data.rfind(b"\xff\xd9")
      changed[end:end] = data[scan:end] * rng.choice((1, 3, 90, 2000))
      sides = rng.choice(((11, 14), (4_000, 4_000)))
      changed[frame + 5 : frame + 9] = struct.pack(">HH", *sides)
    case 3:
      body = b"ICC_PROFILE\0" + bytes((rng.randrange(4), rng.randrange(4))) + rng.randbytes(20)
      changed[2:2] = b"\xff\xe2" + struct.pack(">H", len(body) + 2) + body
    case _:
      changed[2:scan] = mutation.mutated(rng, bytes(changed[2:scan]))
  return bytes(changed)


def _exif(rng: random.Random) -> bytes:
  """Returns a block of EXIF whose entries point anywhere, also back at itself."""
  order = rng.choice(("<", ">"))
  count = rng.choice((1, 2, 20, 2**16 - 1))
  entries = b"".join(
    struct.pack(
      f"{order}HHII",
      rng.choice((0x0112, 0x8769, 0x8825, 0xA005, rng.randrange(2**16))),
      rng.randrange(15),
      rng.choice((0, 1, 2, 2**16, 2**31, 2**32 - 1)),
      rng.choice((0, 3, 6, 8, 26, 2**31, rng.randrange(2**32))),
    )
    for _ in range(min(count, 20))
  )
  start = b"II*\0" if order == "<" else b"MM\0*"
  return start + struct.pack(f"{order}IH", 8, count) + entries + struct.pack(f"{order}I", 8)


def _other_size(rng: random.Random, data: bytes) -> bytes:
  """Returns a GIF, BMP or WebP image that declares another size, or many frames."""
  changed = bytearray(data)
  sides = [rng.choice(_SIDES) for _ in range(2)]
  if data.startswith(b"GIF"):
    place = rng.choice((6, data.find(b",") + 5))
    changed[place : place + 4] = struct.pack("<HH", *(s % 2**16 for s in sides))
    if rng.random() < 0.3:
      changed[-1:] = data[data.find(b",") : -1] * rng.choice((3, 1000)) + b";"
  elif data.startswith(b"BM"):
    changed[18:26] = struct.pack("<II", *(rng.choice((s, 2**32 - s) if s else (s,)) for s in sides))
    if rng.random() < 0.5:
      changed[28:34] = struct.pack("<HI", rng.choice((0, 1, 4, 8, 16, 24, 32)), rng.randrange(7))
  else:
    place = rng.choice((data.find(b"VP8X") + 12, 26, 21))
    changed[place : place + 6] = b"".join(s.to_bytes(4, "little")[:3] for s in sides)
  return bytes(changed)


def _check(data: bytes, folder: pathlib.Path) -> bool:
  path = folder / "image"
  path.write_bytes(data)
  header = headers.read(str(path))
  try:
    expected = (*images.size(path), "")
  except images.Unreadable as fault:
    expected = (-1, -1, str(fault))
  assert (header.height, header.width, header.fault) == expected
  pixels = images.decode(data)
  assert pixels.dtype == np.uint8
  assert pixels.ndim == 3
  assert pixels.shape[2] == 3
  assert pixels.flags.c_contiguous
  assert min(pixels.shape) > 0, pixels.shape
  assert pixels.shape[:2] == (header.height, header.width), (header, pixels.shape)
  assert resizing.resize(pixels, 8).shape == (8, 8, 3)
  return True
