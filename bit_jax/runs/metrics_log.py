"""`metrics.jsonl`, read back as far as it can be.

Each line is a row, one JSON object. A power cut may leave zeros, half a line, or half a line
followed by more.
"""

import dataclasses
import json
import math
import pathlib
from collections.abc import Iterable
from typing import Any

_START = b'{"step"'  # of every row


@dataclasses.dataclass(frozen=True)
class Read:
  """What a file holds.

  Attributes:
    rows: Each row as it was written, with its line end, and parsed: 'step' (int), 'kind' (such as
      'train' or 'eval') and finite numbers by their names.
    damaged: The number of lines that aren't as they were written. A row at the end of such a line
      is among `rows`.
  """

  rows: list[tuple[str, dict[str, Any]]]
  damaged: int


def read(path: pathlib.Path) -> Read:
  """Returns the rows of a file; none if it isn't there.

  A last line without its end is what a process was writing when it was killed: it is left out, and
  not counted as damaged.
  """
  try:
    *lines, _ = path.read_bytes().split(b"\n")
  except FileNotFoundError:
    return Read([], 0)
  rows, damaged = [], 0
  for line in lines:
    found = parse(line)
    if found is None:
      damaged += 1
      line = line[max(0, line.rfind(_START)) :]
      found = parse(line)
    if found is not None:
      rows.append((f"{line.decode()}\n", found))
  return Read(rows, damaged)


def parse(line: bytes) -> dict[str, Any] | None:
  """Returns the row of a line, None if it is damaged."""
  try:
    row = json.loads(line.decode())
  except (ValueError, RecursionError):
    return None
  if not isinstance(row, dict) or not isinstance(row.get("kind"), str):
    return None
  numbers = [value for name, value in row.items() if name != "kind"]
  sound = _are_finite(numbers) and type(row.get("step")) is int and {"loss", "top1"} <= row.keys()
  return row if sound else None


def _are_finite(values: Iterable[Any]) -> bool:
  try:
    return all(type(v) in (int, float) and math.isfinite(v) for v in values)
  except OverflowError:  # an integer of hundreds of digits
    return False
