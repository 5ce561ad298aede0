"""Counts of faults by kind, and by how they ended."""

import collections
import dataclasses
import pathlib

from experiments.reliability import records


@dataclasses.dataclass
class Counts:
  """How faults of a kind ended: without any effect, from the one before, refused, or wrong."""

  harmless: int = 0
  recovered: int = 0
  refused: int = 0
  lost: int = 0


class Tally:
  """Counts of faults by kind."""

  def __init__(self) -> None:
    self.kinds: dict[str, Counts] = collections.defaultdict(Counts)

  def add(self, kind: str, end: str, details: str = "") -> None:
    """Counts a fault; prints what went wrong."""
    counts = self.kinds[kind]
    setattr(counts, end, getattr(counts, end) + 1)
    if end == "lost":
      print(f"LOST ({kind}): {details}", flush=True)


def table(tally: Tally) -> str:
  """Returns the counts as text, a line for each kind."""
  lines = [f"{'fault':<34}{'harmless':>9}{'recovered':>10}{'refused':>8}{'lost':>5}"]
  for kind, c in tally.kinds.items():
    lines.append(f"{kind:<34}{c.harmless:>9}{c.recovered:>10}{c.refused:>8}{c.lost:>5}")
  return "\n".join(lines)


def write(path: pathlib.Path, tally: Tally, seed: int) -> None:
  """Appends a line of JSON for each kind."""
  lines = []
  for kind, counts in tally.kinds.items():
    numbers = dataclasses.asdict(counts)
    lines.append({"kind": kind, "injected": sum(numbers.values()), **numbers, "seed": seed})
  records.append(path, *lines)
