"""Which runs are compared: over examples per class, VTAB-1k tasks, network sizes, and recipes."""

import dataclasses
import functools
import itertools
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd

from bit_jax import hyperrule
from bit_jax.data import vtab
from bit_jax.models import architectures
from bit_jax.runtime import phrases
from experiments.results import folders, reading, seeds

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
    value: Mean of the tasks' medians in %; None without any.
    seeds: Means in % of each seed that all of those tasks were run with, by seed.
  """

  done: int
  of: int
  value: float | None
  seeds: tuple[float, ...]

  @property
  def is_complete(self) -> bool:
    """Whether no task is missing."""
    return self.done == self.of

  @property
  def of_seeds(self) -> str:
    """Lowest and highest of several seeds' means as text."""
    count = phrases.counted(len(self.seeds), "seed")
    return f"{seeds.span(self.seeds)}, {count}" if len(self.seeds) > 1 else ""

  def __str__(self) -> str:
    """Returns e.g. '71.2 (4 of 7)'."""
    value = "none" if self.value is None else f"{self.value:.1f}"
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
    return Mean(0, len(tasks), None, ())
  of_seeds = tuple(by_seed.dropna().mean(axis=1).sort_index())
  return Mean(by_seed.shape[1], len(tasks), float(by_seed.median().mean()), of_seeds)


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
    points["seconds"] = [np.median([run.step_seconds for run in of]) for of in points.runs]
    if subject == reading.VTAB:
      points = pd.DataFrame(_totals(members, points), columns=points.columns)
    if points.shots.duplicated().any():
      result.append(Compared(points.sort_values(["shots", "parameters"], ignore_index=True)))
  return result


def _totals(members: pd.DataFrame, points: pd.DataFrame) -> Iterator[dict[str, Any]]:
  """Yields the points of networks with complete scores, with score and total time."""
  of_network = {point.architecture: point for point in seeds.rows(points)}
  for score in scores(members):
    mean = score.means["all"]
    if mean.value is not None and mean.is_complete:
      ends = mean.seeds or (mean.value,)
      total = seeds.Summary(len(mean.seeds), mean.value, min(ends), max(ends))
      seconds = [np.median([run.step_seconds for run in of]) for of in score.points.runs]
      point = of_network[score.runs[0].architecture]
      yield {**point._asdict(), "top1": total, "seconds": sum(seconds)}


@dataclasses.dataclass(frozen=True)
class RecipeComparison(Compared):
  """One network on one data set, by several recipes: points by recipe, the reference first.

  Attributes:
    points: See `Compared`; with the columns `values` of the `fields`, and `texts` of these.
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

  def closeness(point: Any) -> tuple[Any, ...]:
    recipe, presets = point.recipe, hyperrule.PRESETS
    place = presets.index(recipe.preset) if recipe.preset in presets else len(presets)
    departing = dict(recipe.departures).keys() - {"batch_size"}
    order = (recipe.preset, recipe.dtype or "", recipe.departures)
    return len(departing), place, -followed[recipe], *order

  result = []
  for _, members in runs.groupby(CELL, sort=False):
    if members.recipe.nunique() > 1:
      there = sorted(seeds.rows(seeds.points(members, ["recipe"])), key=closeness)
      fields = _differing(there)
      values: dict[Any, tuple[Any, ...]] = {p.recipe: _values(p, fields) for p in there}
      distance = functools.partial(_distance, values, there[0].recipe)
      points = pd.DataFrame(sorted(there, key=distance))
      points["values"] = points["recipe"].map(values)
      texts = {recipe: tuple(map(_text, of)) for recipe, of in values.items()}
      points["texts"] = points["recipe"].map(texts)
      result.append(RecipeComparison(points, fields))
  return result


def _values(point: Any, fields: Sequence[str]) -> tuple[Any, ...]:
  run = point.runs[0]
  of_recipe = {"dtype": run.recipe.dtype, "recipe": str(run.recipe)}
  return tuple(of_recipe.get(name, run.config.get(name)) for name in fields)


def _text(value: Any) -> str:
  if isinstance(value, bool):
    return "on" if value else "off"
  return f"{value:g}" if isinstance(value, float) else folders.plain(value)


def _differing(points: Sequence[Any]) -> tuple[str, ...]:
  """Returns the names of the fields in which recipes differ, as their values or from the rule."""
  departing = sorted({name for point in points for name, _ in point.recipe.departures})
  names = dict.fromkeys((*_SHOWN, *departing, "dtype"))
  return tuple(n for n in names if len({str(_values(p, [n])) for p in points}) > 1) or ("recipe",)


def _distance(values: dict[Any, tuple[Any, ...]], reference: Any, point: Any) -> tuple[Any, ...]:
  """Sorts recipes by how many fields differ from the reference, by which, and by their values."""
  own = values[point.recipe]
  changed = [i for i, (a, b) in enumerate(zip(values[reference], own, strict=True)) if a != b]
  numbers = [(v, "") if isinstance(v, int | float) else (math.inf, str(v)) for v in own]
  return len(changed), changed, numbers
