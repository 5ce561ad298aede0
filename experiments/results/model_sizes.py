"""Networks that differ in size alone: their accuracy, parameters and time."""

import dataclasses
import math
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from bit_jax.models import architectures
from experiments.results import intervals, reading, recipes, seeds, vtab_means


@dataclasses.dataclass(frozen=True)
class Size:
  """One network of a known size.

  Attributes:
    architecture: Its name.
    parameters: How many it has without its head.
    seconds: The median of the time that a run's steps took but for the first, which is compiled;
      of VTAB-1k the sum over its tasks.
    value: Accuracy in %: the median over seeds, or the score.
    low: Of the lowest seed.
    high: Of the highest.
    count: How many seeds.
  """

  architecture: str
  parameters: int
  seconds: float
  value: float
  low: float
  high: float
  count: int


@dataclasses.dataclass(frozen=True)
class Sizes:
  """Networks that differ in size alone.

  Attributes:
    dataset: Its name, or `VTAB`.
    protocol: 'final' or 'select'.
    start: How they were initialised.
    recipe: Of all runs.
    device: What they ran on.
    series: {examples of each class, None for all: the networks by their size}.
    runs: All of them.
  """

  dataset: str
  protocol: str
  start: str
  recipe: recipes.Recipe
  device: str
  series: dict[int | None, tuple[Size, ...]]
  runs: tuple[reading.Run, ...]


def sizes(found: Sequence[reading.Run]) -> list[Sizes]:
  """Returns what was run of networks of known architecture whose time was measured.

  Of VTAB-1k that is the score where no task is missing.
  """
  timed = [r for r in found if r.architecture in architectures.ARCHITECTURES and r.step_seconds]
  by_group: dict[Any, list[reading.Run]] = defaultdict(list)
  for run in timed:
    by_group[vtab_means.subject(run), run.protocol, family(run), run.recipe, run.place].append(run)
  result = []
  for (dataset, protocol, start, recipe, device), members in by_group.items():
    if dataset == vtab_means.VTAB:
      there = [s for s in map(_size_of_score, vtab_means.scores(members)) if s is not None]
      series: dict[int | None, list[Size]] = {None: there} if there else {}
    else:
      series = defaultdict(list)
      for (shots, _), one in seeds.points(
        members, lambda run: (run.shots, run.architecture)
      ).items():
        series[shots].append(_size_of_point(one))
    sizes_of = {k: tuple(sorted(v, key=lambda size: size.parameters)) for k, v in series.items()}
    runs = tuple(members)
    result.append(Sizes(dataset, protocol, start, recipe, device, sizes_of, runs))
  return result


def family(run: reading.Run) -> str:
  """Returns how a network was initialised without its architecture: 'BiT-M' of 'BiT-M-R50x1'."""
  return run.start.replace(f"-{run.architecture}", "")


def _size_of_point(one: seeds.Point) -> Size:
  architecture = one.runs[0].architecture
  seconds = intervals.summarize([r.step_seconds or 0.0 for r in one.runs]).median
  top1 = one.top1
  return Size(
    architecture,
    seeds.num_parameters(architecture),
    seconds,
    top1.median,
    top1.low,
    top1.high,
    top1.count,
  )


def _size_of_score(score: vtab_means.Score) -> Size | None:
  mean = score.means["all"]
  if mean.value is None or not mean.is_complete:
    return None
  tasks = [_size_of_point(one) for one in score.tasks.values()]
  seconds = math.fsum(task.seconds for task in tasks)
  low, high = min(mean.seeds, default=mean.value), max(mean.seeds, default=mean.value)
  architecture = tasks[0].architecture
  count = len(mean.seeds)
  return Size(
    architecture, seeds.num_parameters(architecture), seconds, mean.value, low, high, count
  )
