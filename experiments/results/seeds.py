"""The runs of one setting, which differ in their seeds alone, as one point of a figure."""

import dataclasses
import math
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

from bit_jax.models import architectures
from experiments.results import intervals, reading


@dataclasses.dataclass(frozen=True)
class Point:
  """The runs of one setting.

  Attributes:
    runs: They differ in their seeds alone.
    top1: Their accuracies in %.
  """

  runs: tuple[reading.Run, ...]
  top1: intervals.Summary


def point(found: Iterable[reading.Run]) -> Point:
  """Returns runs of one setting as a point."""
  chosen = tuple(found)
  return Point(chosen, intervals.summarize([100 * run.metrics["top1"] for run in chosen]))


def points(found: Iterable[reading.Run], key: Callable[[reading.Run], Any]) -> dict[Any, Point]:
  """Returns {key: point} in the order in which the keys turn up."""
  groups: dict[Any, list[reading.Run]] = defaultdict(list)
  for run in found:
    groups[key(run)].append(run)
  return {k: point(group) for k, group in groups.items()}


def paired_differences(one: Point, reference: Point) -> list[float]:
  """Returns how far one setting is from another with the same seed, for each seed that both have.

  A seed picks the examples and their order, so what seeds that differ find isn't compared.

  Args:
    one: What is compared; it has each of its seeds once.
    reference: What it is compared with, likewise.

  Returns:
    Differences of top-1 in points, in the order of `one.runs`.
  """
  theirs = {run.seed: run.metrics["top1"] for run in reference.runs}
  return [100 * (run.metrics["top1"] - theirs[run.seed]) for run in one.runs if run.seed in theirs]


def rank(one: Point) -> tuple[float, str]:
  """Returns what networks are ordered by: size, then name."""
  run = one.runs[0]
  known = run.architecture in architectures.ARCHITECTURES
  return num_parameters(run.architecture) if known else math.inf, run.network


def num_parameters(architecture: str) -> int:
  """Returns how many a network of a known architecture has without its head."""
  return architectures.num_parameters(architectures.ARCHITECTURES[architecture], None)
