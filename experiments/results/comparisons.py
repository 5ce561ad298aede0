"""Which runs are compared: over examples per class, VTAB-1k tasks, network sizes, and recipes."""

import dataclasses
import itertools
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from bit_jax import hyperrule
from bit_jax.data import vtab
from bit_jax.models import architectures
from experiments.results import folders, reading, recipes, seeds

VTAB_GROUPS = {  # with their tasks in the order of `vtab`
  group: tuple(task for task in vtab.TASKS if vtab.find(task).group == group)
  for group in (vtab.NATURAL, vtab.SPECIALIZED, vtab.STRUCTURED)
}
CELL = ["dataset", "protocol", "shots", "network"]  # what recipes are compared in
# Recipes are described by these fields even where all follow the rule: presets set them.
_SHOWN = ("preset", "batch_size", "base_lr", "total_steps", "mixup_alpha", "resize", "crop")


@dataclasses.dataclass(frozen=True)
class Compared:
  """Settings that are compared in one figure.

  Attributes:
    points: From `seeds.points`, with further columns.
  """

  points: pd.DataFrame

  @property
  def runs(self) -> list[reading.Run]:
    """All runs."""
    return list(itertools.chain(*self.points.runs))


def by_recipe(compared: Iterable[Compared]) -> list[list[Any]]:
  """Returns together what one figure can show: panels or scores of one recipe and protocol."""
  keyed = (((one.runs[0].recipe, one.runs[0].protocol), one) for one in compared)
  return list(folders.grouped(keyed).values())


def panels(runs: pd.DataFrame) -> list[Compared]:
  """Returns the curves over examples per class: of one data set, protocol and recipe each.

  A panel has several numbers of examples, or several networks at one number, unless these are by a
  recipe that is only compared with another recipe.

  Args:
    runs: From `seeds.frame`.

  Returns:
    Points by network, smallest first, and shots; with the columns `per_class`, `count` (of seeds)
    and `fewer`, whether another point of the network has more seeds.
  """
  varied = {id(run) for one in recipe_comparisons(runs) for run in one.runs[len(one.reference) :]}
  result = []
  placed = runs[runs.task.isna() & runs.per_class.notna()]
  for _, members in placed.groupby(["dataset", "protocol", "recipe"], sort=False):
    alone = any(id(run) not in varied for run in members.run) and not all(np.isinf(members.shots))
    if members.shots.nunique() > 1 or (members.network.nunique() > 1 and alone):
      by = ["parameters", "network", "shots"]
      points = seeds.points(members, by).sort_values(by, ignore_index=True)
      # Rounded, so that it is the same for all networks, however many runs there are.
      points["per_class"] = [round(np.mean([r.per_class for r in of]), 6) for of in points.runs]
      points["count"] = points.runs.map(len)
      points["fewer"] = points["count"] < points.groupby("network")["count"].transform("max")
      result.append(Compared(points))
  return result


@dataclasses.dataclass(frozen=True)
class Mean:
  """A mean over tasks.

  Attributes:
    done: Number of tasks that have runs.
    of: Number of tasks that the mean is defined over.
    top1: The mean of the tasks' medians in %, with the extremes of the means of those seeds that
      all of the tasks were run with, and their number; None without any task.
  """

  done: int
  of: int
  top1: seeds.Summary | None

  @property
  def is_complete(self) -> bool:
    """Whether no task is missing."""
    return self.done == self.of

  def __str__(self) -> str:
    """Returns e.g. '71.2 (4 of 7)'."""
    value = f"{self.top1.median:.1f}" if self.top1 else "none"
    return f"{value} ({self.done} of {self.of})"


@dataclasses.dataclass(frozen=True)
class Score(Compared):
  """One network on VTAB-1k by one recipe: points by task in the order of `VTAB_GROUPS`.

  Attributes:
    points: See `Compared`.
    means: {group, or 'all': its mean}.
  """

  means: dict[str, Mean]


def scores(runs: pd.DataFrame) -> list[Score]:
  """Returns the results on VTAB-1k of each network and recipe, the smallest network first."""
  result = []
  ordered = runs[runs.task.notna()].sort_values(["parameters", "network"], kind="stable")
  places = {task: place for place, task in enumerate(itertools.chain(*VTAB_GROUPS.values()))}
  groups = {**VTAB_GROUPS, "all": tuple(vtab.TASKS)}
  for _, members in ordered.groupby(["network", "protocol", "recipe"], sort=False):
    points = seeds.points(members, ["task"])
    points["group"] = [vtab.find(task).group for task in points.task]
    points["place"] = points.task.map(places)
    points = points.sort_values("place", ignore_index=True)
    result.append(Score(points, {name: _mean(members, of) for name, of in groups.items()}))
  return result


def _mean(members: pd.DataFrame, tasks: Sequence[str]) -> Mean:
  by_seed = members[members.task.isin(tasks)].pivot(index="seed", columns="task", values="top1")
  if by_seed.empty:
    return Mean(0, len(tasks), None)
  median, complete = float(by_seed.median().mean()), by_seed.dropna().mean(axis=1)
  ends = [median] if complete.empty else complete
  return Mean(
    by_seed.shape[1], len(tasks), seeds.Summary(len(complete), median, min(ends), max(ends))
  )


def sizes(runs: pd.DataFrame) -> list[Compared]:
  """Returns networks of known architecture that differ in size alone, where there are several.

  Args:
    runs: From `seeds.frame`; of VTAB-1k only complete scores are compared.

  Returns:
    Of each subject, protocol, kind of start, recipe and place: points by shots and network,
    smallest first; with `start` ('BiT-M' of 'BiT-M-R50x1'), `parameters` without the head, and
    `seconds`, the median time of a run's steps after the first, which includes compiling; for
    VTAB-1k the sum over its tasks.
  """
  known = runs.architecture.isin(list(architectures.ARCHITECTURES))
  timed = runs[known & runs.step_seconds.notna()]
  starts = [run.start.replace(f"-{run.architecture}", "") for run in timed.run]
  result = []
  by = ["subject", "protocol", "start", "recipe", "place"]
  for (subject, *_), members in timed.assign(start=starts).groupby(by, sort=False):
    points = seeds.points(members, ["shots", "architecture", "parameters", "start"])
    by_task = [seeds.frame(of).groupby("task", dropna=False).step_seconds for of in points.runs]
    points["seconds"] = [times.median().sum() for times in by_task]
    if subject == reading.VTAB:
      means = {score.runs[0].architecture: score.means["all"] for score in scores(members)}
      of_tasks = points.architecture.map(means)
      points["top1"] = [mean.top1 for mean in of_tasks]
      points = points[[mean.is_complete for mean in of_tasks]]
    if points.shots.duplicated().any():
      result.append(Compared(points.sort_values(["shots", "parameters"], ignore_index=True)))
  return result


@dataclasses.dataclass(frozen=True)
class RecipeComparison(Compared):
  """One network on one data set, by several recipes: points by recipe, the reference first.

  Attributes:
    points: See `Compared`; with the columns `values` of the `fields`, `texts` of these, and
      `paired`, the differences from the reference (`seeds.paired_differences`).
    fields: Names of the fields that differ.
  """

  fields: tuple[str, ...]

  @property
  def reference(self) -> tuple[reading.Run, ...]:
    """The reference's runs."""
    return tuple(self.points.runs[0])


def recipe_comparisons(runs: pd.DataFrame) -> list[RecipeComparison]:
  """Returns every network, data set and number of examples that was run by several recipes.

  The reference follows the rule most closely: the fewest departures (not counting the batch, which
  is none with preset=scaled), then the presets in their order, then the recipe that more runs have,
  on any data.
  """
  followed = Counter(runs.recipe)

  def closeness(recipe: recipes.Recipe) -> tuple[Any, ...]:
    presets = [*hyperrule.PRESETS, recipe.preset]
    departing = dict(recipe.departures).keys() - {"batch_size"}
    order = (recipe.preset, recipe.dtype or "", recipe.departures)
    return len(departing), presets.index(recipe.preset), -followed[recipe], *order

  result = []
  for _, members in runs.groupby(CELL, sort=False):
    if members.recipe.nunique() > 1:
      points = seeds.points(members, ["recipe"])
      departing = sorted({name for recipe in points.recipe for name, _ in recipe.departures})
      names = dict.fromkeys((*_SHOWN, *departing, "dtype"))
      differing = [n for n in names if len({str(_value(of[0], n)) for of in points.runs}) > 1]
      fields = tuple(differing or ["recipe"])
      points["values"] = [tuple(_value(of[0], name) for name in fields) for of in points.runs]
      points["texts"] = [tuple(map(recipes.text, values)) for values in points["values"]]
      first, *others = sorted(seeds.rows(points), key=lambda point: closeness(point.recipe))
      others.sort(key=lambda point: _distance(first.values, point.values))
      points = pd.DataFrame([first, *others])
      points["paired"] = [seeds.paired_differences(of, first.runs) for of in points.runs]
      result.append(RecipeComparison(points, fields))
  return result


def _value(run: reading.Run, field: str) -> Any:
  of_recipe = {"dtype": run.recipe.dtype, "recipe": str(run.recipe)}
  return of_recipe.get(field, run.config.get(field))


def _distance(reference: tuple[Any, ...], values: tuple[Any, ...]) -> tuple[Any, ...]:
  """Sorts recipes by how many fields differ from the reference, by which, and by their values."""
  changed = [i for i, (a, b) in enumerate(zip(reference, values, strict=True)) if a != b]
  numbers = [(v, "") if isinstance(v, int | float) else (math.inf, str(v)) for v in values]
  return len(changed), changed, numbers
