"""Tests of bit_jax.data.sources.crc32c."""

import random

import numpy as np
import pytest

from bit_jax.data.sources import crc32c


def byte_by_byte(data):
  register = 0xFFFFFFFF
  for byte in data:
    register ^= byte
    for _ in range(8):
      register = register >> 1 ^ (0x82F63B78 if register & 1 else 0)
  return register ^ 0xFFFFFFFF


# RFC 3720, B.4, and the check value of the catalogue of CRCs.
@pytest.mark.parametrize(
  ("data", "expected"),
  [
    (bytes(32), 0x8A9136AA),
    (b"\xff" * 32, 0x62A8AB43),
    (bytes(range(32)), 0x46DD794E),
    (bytes(range(31, -1, -1)), 0x113FDB5C),
    (b"123456789", 0xE3069283),
    (b"", 0),
  ],
)
def test_published_values(data, expected):
  assert crc32c.checksum(data) == expected


@pytest.mark.parametrize("length", [*range(1, 20), 255, 256, 257, 1000, 65_535, 65_536, 70_001])
def test_any_length_is_as_byte_by_byte(length):
  data = random.Random(length).randbytes(length)
  assert crc32c.checksum(data) == byte_by_byte(data)


def test_rows_are_as_their_bytes():
  rows = np.random.default_rng(0).integers(0, 2**32, (5, 2), "<u4")
  expected = [crc32c.masked(row.tobytes()) for row in rows]
  assert crc32c.masked_rows(rows).tolist() == expected
  assert crc32c.masked_rows(rows[:0]).tolist() == []
