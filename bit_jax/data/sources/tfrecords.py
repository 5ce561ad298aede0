"""Random access to the records of TFRecord files."""

import bisect
import itertools
import os
import struct
import threading
from collections.abc import Iterable
from typing import NamedTuple

from bit_jax.runtime import errors

_HEADER = struct.Struct("<QI")  # the length of a record, and the CRC of the length
_FOOTER_BYTES = 4  # the CRC of the content


class Stretch(NamedTuple):
  """Consecutive records of a file.

  Attributes:
    path: The TFRecord file.
    skip: Number of records before them.
    take: Number of records.
  """

  path: str
  skip: int
  take: int


class Records:
  """The records of several stretches as one sequence, with access from several threads."""

  def __init__(self, stretches: Iterable[Stretch]):
    """Reads nothing: the offsets in a file are found when its first record is read."""
    self._stretches = list(stretches)
    self._ends = list(itertools.accumulate(s.take for s in self._stretches))
    self._offsets: dict[str, list[int]] = {}
    self._lock = threading.Lock()

  def __len__(self) -> int:
    """Returns the number of records."""
    return self._ends[-1] if self._ends else 0

  def read(self, index: int) -> bytes:
    """Returns the content of a record.

    Raises:
      UserError: The file is missing or damaged.
    """
    number = bisect.bisect_right(self._ends, index)
    path, skip, take = self._stretches[number]
    position = skip + take - (self._ends[number] - index)
    try:
      offsets = self._find(path)
      if position >= len(offsets):
        raise errors.UserError(
          f"{path} is incomplete: it has {len(offsets)} complete records, but record "
          f"{position + 1} is needed. Prepare the data set again."
        )
      with open(path, "rb", buffering=0) as file:
        length, _ = _HEADER.unpack(os.pread(file.fileno(), _HEADER.size, offsets[position]))
        return os.pread(file.fileno(), length, offsets[position] + _HEADER.size)
    except OSError as e:
      raise errors.UserError(f"{path} can't be read ({e.strerror}).") from e

  def _find(self, path: str) -> list[int]:
    """Returns the offset of each complete record of a file; only the headers are read."""
    with self._lock:
      if path not in self._offsets:
        self._offsets[path] = _scan(path)
      return self._offsets[path]


def _scan(path: str) -> list[int]:
  offsets, offset = [], 0
  size = os.path.getsize(path)
  with open(path, "rb", buffering=0) as file:
    while offset + _HEADER.size <= size:
      length, _ = _HEADER.unpack(os.pread(file.fileno(), _HEADER.size, offset))
      following = offset + _HEADER.size + length + _FOOTER_BYTES
      if following > size:
        break
      offsets.append(offset)
      offset = following
  return offsets
