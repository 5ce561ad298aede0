"""CRC-32C, Castagnoli's, with which TFRecord files protect their records.

TensorFlow checks it where it reads whole files; it takes milliseconds to find a single record.
Here the 4-byte words of a record are folded: the front is advanced by as many words as the rest
has, through tables, and added to the rest, until one word is left.

Polynomial and reflection: RFC 3720, B.4. Mask: tensorflow/core/lib/hash/crc32c.h.
"""

import functools
import struct
from typing import Any

import numpy as np

_POLYNOMIAL, _ALL_ONES = 0x82F63B78, 0xFFFFFFFF
_MASK = 0xA282EAD8
_BLOCK = 1 << 16  # bytes that are folded at once; the tables of longer ones leave the caches


def masked(data: bytes) -> int:
  """Returns the CRC-32C of `data`, rotated and shifted as it is stored in TFRecord files."""
  return int(_masked(np.uint32(checksum(data))))


def masked_rows(rows: np.ndarray) -> np.ndarray:
  """Returns the masked CRC-32C of each row, [N] uint32.

  Args:
    rows: [N, W] little-endian uint32: N times W words of bytes.
  """
  before = np.full((len(rows), 1), _retreated(_ALL_ONES), "<u4")
  found: np.ndarray = _masked(
    _folded(np.concatenate((before, rows), axis=1)) ^ np.uint32(_ALL_ONES)
  )
  return found


def checksum(data: bytes) -> int:
  """Returns the CRC-32C of `data`."""
  register = _ALL_ONES
  for start in range(0, len(data), _BLOCK):
    part = data[start : start + _BLOCK]
    # From a register of 0, the word before the data leads to `register`; zeros change nothing.
    before = struct.pack("<I", _retreated(register))
    register = int(_folded(np.frombuffer(bytes(-len(part) % 4) + before + part, "<u4")))
  return register ^ _ALL_ONES


def _masked(crc: Any) -> Any:
  """Returns CRCs of type uint32, masked; their sum wraps around."""
  with np.errstate(over="ignore"):
    return (crc >> np.uint32(15) | crc << np.uint32(17)) + np.uint32(_MASK)


def _folded(words: np.ndarray) -> Any:
  """Returns the register after the words of the last axis, from a register of 0: [...] uint32."""
  while (count := words.shape[-1]) > 1:
    rest = 1 << (count - 1).bit_length() - 1
    front, words = words[..., : count - rest], words[..., count - rest :].copy()
    words[..., 2 * rest - count :] ^= _after_zeros(front, rest.bit_length() - 1)
  return _after_zeros(words, 0)[..., 0]


def _after_zeros(registers: np.ndarray, power: int) -> np.ndarray:
  """Returns what becomes of registers, [..., W] uint32, after 2**power words of zeros."""
  halves = np.ascontiguousarray(registers).view("<u2")
  low, high = _tables(power)
  found: np.ndarray = low.take(halves[..., ::2]) ^ high.take(halves[..., 1::2])
  return found


def _advanced(register: int) -> int:
  """Returns the register after a word of zeros."""
  for _ in range(32):
    register = register >> 1 ^ (_POLYNOMIAL if register & 1 else 0)
  return register


def _retreated(register: int) -> int:
  """Returns the register before a word of zeros."""
  for _ in range(32):
    odd = register >> 31
    register = (register ^ (_POLYNOMIAL if odd else 0)) << 1 & _ALL_ONES | odd
  return register


@functools.cache
def _columns(power: int) -> tuple[int, ...]:
  """Returns what becomes of each bit of a register after 2**power words of zeros."""
  if not power:
    return tuple(_advanced(1 << bit) for bit in range(32))
  half = _columns(power - 1)

  def twice(bit: int) -> int:
    return functools.reduce(int.__xor__, (half[i] for i in range(32) if half[bit] >> i & 1))

  return tuple(map(twice, range(32)))


@functools.cache
def _tables(power: int) -> tuple[np.ndarray, np.ndarray]:
  """Returns what becomes of the lower and of the upper 16 bits of a register likewise."""
  columns = _columns(power)

  def table(bits: tuple[int, ...]) -> np.ndarray:
    found = np.zeros(1, "<u4")
    for column in bits:
      found = np.concatenate((found, found ^ np.uint32(column)))
    return found

  return table(columns[:16]), table(columns[16:])
