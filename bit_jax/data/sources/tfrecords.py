"""Random access to the records of TFRecord files, whose checksums are verified."""

import bisect
import itertools
import os
import struct
import threading
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from bit_jax.data.sources import crc32c
from bit_jax.runtime import errors

_HEADER = struct.Struct("<QI")  # the length of a record, and the CRC of the length
_FOOTER = struct.Struct("<I")  # the CRC of the content


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
      if position + 1 >= len(offsets):
        raise errors.UserError(
          f"{path} is incomplete: it has {len(offsets) - 1} complete records, but record "
          f"{position + 1} is needed. Prepare the data set again."
        )
      start, end = offsets[position : position + 2]
      with open(path, "rb", buffering=0) as file:
        record = os.pread(file.fileno(), end - start, start)
    except OSError as e:
      raise errors.UserError(f"{path} can't be read ({e.strerror}).") from e
    content = record[_HEADER.size : -_FOOTER.size]
    if len(record) != end - start or _FOOTER.unpack(record[-_FOOTER.size :])[0] != crc32c.masked(
      content
    ):
      raise _damaged(path, position)
    return content

  def _find(self, path: str) -> list[int]:
    """Returns where each complete record of a file starts, and where the last of them ends."""
    with self._lock:
      if path not in self._offsets:
        self._offsets[path] = _scan(path)
      return self._offsets[path]


def _scan(path: str) -> list[int]:
  """Returns what `Records._find` does; reads the headers, and checks all lengths."""
  offsets, headers = [0], []
  size = os.path.getsize(path)
  with open(path, "rb", buffering=0) as file:
    while offsets[-1] + _HEADER.size <= size:
      headers.append(os.pread(file.fileno(), _HEADER.size, offsets[-1]))
      length, _ = _HEADER.unpack(headers[-1])
      following = offsets[-1] + _HEADER.size + length + _FOOTER.size
      if following > size:
        break
      offsets.append(following)
  words = np.frombuffer(b"".join(headers), "<u4").reshape(-1, 3)  # the length's two, and its CRC
  if wrong := np.flatnonzero(crc32c.masked_rows(words[:, :2]) != words[:, 2]).tolist():
    raise _damaged(path, wrong[0])
  return offsets


def _damaged(path: str, position: int) -> errors.UserError:
  return errors.UserError(
    f"{path} is damaged: the checksum of record {position + 1} is wrong. Prepare the data set "
    f"again."
  )
