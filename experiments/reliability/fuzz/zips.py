"""Zip files and `.npy` arrays, written byte by byte, so that any field can be false."""

import dataclasses
import random
import struct
import zlib
from collections.abc import Sequence

_LOCAL, _CENTRAL, _END = b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06"
STORED, DEFLATED = 0, 8
_DESCRIPTIONS = (
  *("<f4", "<f4", ">f4", "<f8", "<f2", "|u1", "|i1", "<i8", ">i2", "|b1", "<c8", "<U3", "|S4"),
  *("|O", "<M8[s]", "|V5", "<f16", "f4,f4", "(1000000,)f4", "x", "", "a3"),
)
_SIZES = (0, 1, 2, 3, 5, -1, 2**31, 2**40, 10**12, 2**63, 2**64 + 1)
# Texts where a header's dictionary is expected.
_HEADERS = (
  *(b"1", b"[]", b"{}", b"{'descr': '<f4'}", b"{1: 2, 'descr': 3}", b"__import__('os').getpid()"),
  *(b"-" * 6000 + b"1", b"(" * 150 + b")" * 150, b"[" * 6000, b"{'shape': (1,", b"\x00" * 64),
  *(b"'" + b"a" * 70_000 + b"'", b"{'descr': [('a', '<f4')], 'fortran_order': 0, 'shape': ()}"),
  b"{'descr': [[[]]], 'fortran_order': False, 'shape': (1,)}",
  b"{'descr': {'names': 1}, 'fortran_order': False, 'shape': (1,)}",
  b"{'descr': '<f4', 'fortran_order': False, 'shape': (1L,)}",
  b"{'descr': '<f4', 'fortran_order': False, 'shape': (True,)}",
)


@dataclasses.dataclass
class Entry:
  """A file in a zip file; None is the true value.

  Attributes:
    name: Its name.
    data: Its content.
    method: How it is compressed.
    size: Its declared size.
    stored: Its declared size after compression.
    crc: Its declared CRC.
    flags: Bit 0 says that it is encrypted, bit 11 that its name is UTF-8.
    offset: Where its local header is said to be.
    extra: Its extra field.
    raw: What is stored instead of the compressed content.
  """

  name: bytes
  data: bytes
  method: int = STORED
  size: int | None = None
  stored: int | None = None
  crc: int | None = None
  flags: int = 0
  offset: int | None = None
  extra: bytes = b""
  raw: bytes | None = None


def archive(entries: Sequence[Entry]) -> bytes:
  """Returns the zip file of `entries`."""
  body, directory = bytearray(), bytearray()
  for e in entries:
    raw = e.raw
    if raw is None:
      raw = _deflated(e.data) if e.method == DEFLATED else e.data
    crc = zlib.crc32(e.data) if e.crc is None else e.crc
    sizes = (len(raw) if e.stored is None else e.stored, len(e.data) if e.size is None else e.size)
    common = struct.pack("<HHHII", e.method, 0, 33, crc, sizes[0] % 2**32)
    common += struct.pack("<IHH", sizes[1] % 2**32, len(e.name), len(e.extra))
    offset = len(body) if e.offset is None else e.offset
    body += _LOCAL + struct.pack("<HH", 20, e.flags) + common + e.name + e.extra + raw
    directory += _CENTRAL + struct.pack("<HHH", 20, 20, e.flags) + common
    directory += struct.pack("<HHHII", 0, 0, 0, 0, offset % 2**32) + e.name + e.extra
  end = struct.pack("<HHHHIIH", 0, 0, len(entries), len(entries), len(directory), len(body), 0)
  return bytes(body + directory + _END + end)


def npy(
  shape: object,
  data: bytes = b"",
  descr: object = "<f4",
  *,
  fortran: object = False,
  version: int = 1,
) -> bytes:
  """Returns a `.npy` array whose header says anything."""
  header = {"descr": descr, "fortran_order": fortran, "shape": shape}
  return with_header(repr(header).encode("latin-1", "replace"), data, version)


def with_header(
  header: bytes, data: bytes = b"", version: int = 1, length: int | None = None
) -> bytes:
  """Returns a `.npy` array with any bytes as its header, of any declared length."""
  form = "<H" if version == 1 else "<I"
  length = len(header) if length is None else length
  limit = 2 ** (16 if version == 1 else 32)
  return b"\x93NUMPY" + bytes([version, 0]) + struct.pack(form, length % limit) + header + data


def zeros(count: int) -> bytes:
  """Returns `count` zeros, deflated: about a thousandth of the bytes."""
  pack = zlib.compressobj(9, zlib.DEFLATED, -15)
  block, parts = bytes(1 << 20), []
  for start in range(0, count, len(block)):
    parts.append(pack.compress(block[: count - start]))
  return b"".join(parts) + pack.flush()


def faulty_array(rng: random.Random) -> bytes:
  """Returns a `.npy` array that is faulty in some way, mostly."""
  if rng.random() < 0.25:
    lengths = (None, None, 2**16 - 1, 2**32 - 1)
    version = rng.choice((1, 2, 3, 9))
    return with_header(rng.choice(_HEADERS), rng.randbytes(8), version, rng.choice(lengths))
  shape = tuple(rng.choice(_SIZES) for _ in range(rng.randrange(4)))
  data = rng.randbytes(rng.choice((0, 4, 12, 100)))
  version, fortran = rng.choice((1, 1, 2, 3)), rng.choice((False, True, 0, None))
  return npy(shape, data, rng.choice(_DESCRIPTIONS), fortran=fortran, version=version)


def faulty_archive(rng: random.Random, names: Sequence[bytes], arrays: Sequence[bytes]) -> bytes:
  """Returns a zip file of given arrays, with one to three faults in the zip's own fields."""
  entries = [
    Entry(name, data, rng.choice((STORED, DEFLATED)))
    for name, data in zip(names, arrays, strict=True)
  ]
  for _ in range(rng.randrange(1, 4)):
    _spoil(rng, entries)
  return archive(entries)


def _spoil(rng: random.Random, entries: list[Entry]) -> None:
  e = rng.choice(entries)
  match rng.randrange(11):
    case 0:
      e.size = rng.choice((0, 1, len(e.data) + 1, 2**31, 2**32 - 1))
    case 1:
      e.stored = rng.choice((0, 1, 2**31, 2**32 - 1))
    case 2:
      e.crc = rng.getrandbits(32)
    case 3:
      e.flags = rng.choice((1, 1 << 3, 1 << 5, 1 << 6, 1 << 11, 0xFFFF))
    case 4:
      e.offset = rng.choice((0, 1, 40, 2**31, 2**32 - 1))
    case 5:
      e.method = rng.choice((1, 9, 12, 14, 93, 99, 0xFFFF))
    case 6:
      name = rng.choice((b"../../evil.npy", b"/etc/evil.npy", b"", b"\xff\xfe", b"a\x00b.npy"))
      e.name = rng.choice((name, entries[0].name, e.name.removesuffix(b".npy")))
      e.flags |= rng.choice((0, 1 << 11))
    case 7:
      entries.append(dataclasses.replace(e, data=faulty_array(rng)))
    case 8:
      e.extra = rng.choice((b"\x01\x00\x08\x00" + b"\xff" * 8, b"\x01\x00\xff\xff", b"\x00"))
      e.size = rng.choice((e.size, 2**32 - 1))
    case 9:
      e.data = faulty_array(rng)
    case _:
      count = rng.choice((10**5, 10**7))
      start = e.data[: rng.choice((6, 8, 10, 80))]
      e.data, e.method = start + bytes(count), DEFLATED


def _deflated(data: bytes) -> bytes:
  pack = zlib.compressobj(6, zlib.DEFLATED, -15)
  return pack.compress(data) + pack.flush()
