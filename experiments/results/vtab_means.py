"""VTAB-1k: which runs are of its tasks, and the means over them."""

import dataclasses
import itertools
import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from bit_jax.data import vtab
from experiments.results import reading, recipes, seeds

VTAB = "VTAB-1k"

_VTAB = "vtab/"

GROUPS = {  # of VTAB, with their tasks in the order of `vtab`
  group: tuple(task for task in vtab.TASKS if vtab.find(task).group == group)
  for group in (vtab.NATURAL, vtab.SPECIALIZED, vtab.STRUCTURED)
}


@dataclasses.dataclass(frozen=True)
class Mean:
  """The mean over tasks.

  Attributes:
    done: Tasks that there are runs of.
    of: Tasks that the mean is meant to be over.
    value: Mean of the tasks' medians in %; None without any.
    seeds: Means in % of each seed that every one of those tasks was run with, by seed.
  """

  done: int
  of: int
  value: float | None
  seeds: tuple[float, ...]

  @property
  def is_complete(self) -> bool:
    """Whether no task is missing."""
    return self.done == self.of


@dataclasses.dataclass(frozen=True)
class Score:
  """One network on VTAB-1k by one recipe.

  Attributes:
    network: What it started from.
    protocol: 'final' or 'select'.
    recipe: Of all its runs.
    tasks: {task: its runs}, of those that were run, in the order of `GROUPS`.
    means: {group, or 'all': its mean}.
  """

  network: str
  protocol: str
  recipe: recipes.Recipe
  tasks: dict[str, seeds.Point]
  means: dict[str, Mean]

  @property
  def runs(self) -> list[reading.Run]:
    """All of them."""
    return [run for one in self.tasks.values() for run in one.runs]


def is_vtab(run: reading.Run) -> bool:
  """Whether a run is one of a known VTAB-1k task, on all its 1000 (or 800) examples."""
  name = str(run.config["dataset"])  # and not what a folder of images is called
  return name.startswith(_VTAB) and name.removeprefix(_VTAB) in vtab.TASKS and run.shots is None


def subject(run: reading.Run) -> str:
  """Returns what a run is about: its data set, or `VTAB`, whose tasks stand together."""
  return VTAB if is_vtab(run) else run.dataset


def scores(found: Iterable[reading.Run]) -> list[Score]:
  """Returns what there is of VTAB-1k, for each network and recipe."""
  by_score: dict[Any, list[reading.Run]] = defaultdict(list)
  for run in found:
    if is_vtab(run):
      by_score[run.network, run.protocol, run.recipe].append(run)
  result = []
  for (network, protocol, recipe), members in by_score.items():
    by_task = seeds.points(members, lambda run: run.dataset.removeprefix(_VTAB))
    tasks = {t: by_task[t] for t in itertools.chain(*GROUPS.values()) if t in by_task}
    means = {group: _mean(tasks, of) for group, of in GROUPS.items()}
    means["all"] = _mean(tasks, vtab.TASKS)
    result.append(Score(network, protocol, recipe, tasks, means))
  return sorted(result, key=lambda score: seeds.rank(next(iter(score.tasks.values()))))


def _mean(tasks: dict[str, seeds.Point], of: Sequence[str]) -> Mean:
  there = [tasks[name] for name in of if name in tasks]
  if not there:
    return Mean(0, len(of), None, ())
  by_seed = [{run.seed: 100 * run.metrics["top1"] for run in one.runs} for one in there]
  shared = sorted(set.intersection(*(set(values) for values in by_seed)))
  of_seeds = tuple(statistics.fmean([values[s] for values in by_seed]) for s in shared)
  return Mean(len(there), len(of), statistics.fmean([one.top1.median for one in there]), of_seeds)
