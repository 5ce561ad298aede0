"""Changes of bytes at random: flipped bits, cuts, copies, extreme numbers, and tokens."""

import random
from collections.abc import Sequence

# Numbers at which readers overflow, of 1 to 8 bytes.
_EXTREMES = tuple(
  value.to_bytes(size, order, signed=False)
  for size in (1, 2, 4, 8)
  for value in (0, 1, 2 ** (8 * size - 1) - 1, 2 ** (8 * size - 1), 2 ** (8 * size) - 1)
  for order in ("little", "big")
)
_MOST = 1 << 20  # bytes of a mutated input


def mutated(rng: random.Random, data: bytes, tokens: Sequence[bytes] = ()) -> bytes:
  """Returns `data` after one to eight edits, mostly few.

  Args:
    rng: What decides.
    data: Any bytes.
    tokens: Bytes to insert or to write over others, besides extreme numbers.
  """
  changed = bytearray(data)
  for _ in range(1 + int(min(7, rng.expovariate(0.7)))):
    _edit(rng, changed, tokens)
  return bytes(changed[:_MOST])


def _edit(rng: random.Random, data: bytearray, tokens: Sequence[bytes]) -> None:
  start = rng.randrange(len(data) + 1)
  length = int(min(len(data) - start, rng.expovariate(1 / 16)))
  match rng.randrange(9):
    case 0 if data:
      data[start % len(data)] ^= 1 << rng.randrange(8)
    case 1 if data:
      data[start % len(data)] = rng.randrange(256)
    case 2:
      del data[start : start + length]
    case 3:
      del data[start:]
    case 4:
      data[start:start] = data[start : start + length] * rng.choice((1, 2, 50))
    case 5:
      place = rng.randrange(len(data) + 1)
      data[start : start + length] = data[place : place + length]
    case 6:
      extreme = rng.choice(_EXTREMES)
      data[start : start + len(extreme)] = extreme
    case 7 if tokens:
      data[start : start + rng.choice((0, length))] = rng.choice(tokens)
    case _:
      data[start:start] = rng.randbytes(rng.randrange(1, 5))
