"""TFRecord files with flipped bits and false lengths."""

import pathlib
import random
import struct

from bit_jax.data.sources import tfrecords
from experiments.reliability.fuzz import target

_RECORDS = (b"", b"one", bytes(range(200)), b"last" * 9)


def _table() -> list[int]:
  table = []
  for byte in range(256):
    for _ in range(8):
      byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
    table.append(byte)
  return table


_CRC32C = _table()


def masked_crc(data: bytes) -> int:
  """Returns the masked CRC-32C of a TFRecord, byte by byte: what the package is compared with."""
  crc = 0xFFFFFFFF
  for byte in data:
    crc = crc >> 8 ^ _CRC32C[(crc ^ byte) & 0xFF]
  crc ^= 0xFFFFFFFF
  return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def framed(data: bytes, length: int | None = None, crc: int | None = None) -> bytes:
  """Returns a record as it is in a file, perhaps with a false length or CRC."""
  size = struct.pack("<Q", len(data) if length is None else length)
  tail = struct.pack("<I", masked_crc(data) if crc is None else crc)
  return size + struct.pack("<I", masked_crc(size)) + data + tail


def files() -> target.Target:
  """Returns TFRecord files."""
  seeds = [b"".join(map(framed, _RECORDS)), framed(b""), b""]

  def build(rng: random.Random) -> bytes:
    parts = []
    for _ in range(rng.randrange(1, 8)):
      data = rng.choice(_RECORDS)
      length = rng.choice((*[None] * 50, 0, len(data) + 16, 2**31, 2**63, 2**64 - 1))
      parts.append(framed(data, length, rng.choice((*[None] * 20, 0, 2**32 - 1))))
    return b"".join(parts)

  return target.Target(seeds, build, _check)


def _check(data: bytes, folder: pathlib.Path) -> bool:
  path = folder / "set.tfrecord"
  path.write_bytes(data)
  records = tfrecords.Records([tfrecords.Stretch(str(path), 0, len(_RECORDS))])
  start = 0
  for index in range(len(records)):  # each is the next one of the file, and intact
    found = records.read(index)
    assert framed(found) == data[start : start + len(found) + 16], (index, start)
    start += len(found) + 16
  return True
