"""Which runs stand side by side: in a curve, in a mean over tasks, in a comparison."""

import dataclasses
import itertools
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from bit_jax import architectures, hyperrule
from bit_jax.data import vtab
from experiments.results import collect, intervals, recipes

_VTAB = "vtab/"
GROUPS = {  # of VTAB, with their tasks in the order of `vtab`
  group: tuple(task for task in vtab.TASKS if vtab.find(task).group == group)
  for group in (vtab.NATURAL, vtab.SPECIALIZED, vtab.STRUCTURED)
}


@dataclasses.dataclass(frozen=True)
class Point:
  """The runs of one setting.

  Attributes:
    runs: They differ in their seeds alone.
    top1: Their accuracies in %.
  """

  runs: tuple[collect.Run, ...]
  top1: intervals.Summary


@dataclasses.dataclass(frozen=True)
class Panel:
  """Accuracy against examples of each class, of one data set by one recipe.

  Attributes:
    dataset: Its name.
    protocol: 'final' or 'select'.
    recipe: Of all its runs.
    series: {network: its points, by examples of each class}.
  """

  dataset: str
  protocol: str
  recipe: recipes.Recipe
  series: dict[str, list[Point]]


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
  tasks: dict[str, Point]
  means: dict[str, Mean]


@dataclasses.dataclass(frozen=True)
class Comparison:
  """One network on one data set, by several recipes.

  Attributes:
    dataset: Its name.
    protocol: 'final' or 'select'.
    shots: Examples of each class; None: all.
    network: What it started from.
    fields: Names of what differs.
    rows: (values of `fields`, runs), what the others are compared with first.
  """

  dataset: str
  protocol: str
  shots: int | None
  network: str
  fields: tuple[str, ...]
  rows: tuple[tuple[tuple[Any, ...], Point], ...]


def point(found: Iterable[collect.Run]) -> Point:
  """Returns runs of one setting as a point."""
  chosen = tuple(found)
  return Point(chosen, intervals.summarize([100 * run.metrics["top1"] for run in chosen]))


def points(found: Iterable[collect.Run], key: Callable[[collect.Run], Any]) -> dict[Any, Point]:
  """Returns {key: point} in the order in which the keys turn up."""
  groups: dict[Any, list[collect.Run]] = defaultdict(list)
  for run in found:
    groups[key(run)].append(run)
  return {k: point(group) for k, group in groups.items()}


def is_vtab(run: collect.Run) -> bool:
  """Whether a run is one of a VTAB-1k task, on all its 1000 (or 800) examples."""
  return run.dataset.startswith(_VTAB) and run.shots is None


def panels(found: Sequence[collect.Run]) -> list[Panel]:
  """Returns the curves: of two numbers of examples or more, or where nothing else shows them."""
  compared = {run.cell for c in comparisons(found) for _, p in c.rows for run in p.runs}
  by_panel: dict[Any, list[collect.Run]] = defaultdict(list)
  for run in found:
    if not is_vtab(run):
      by_panel[run.dataset, run.protocol, run.recipe].append(run)
  result = []
  for (dataset, protocol, recipe), members in by_panel.items():
    placed = [run for run in members if run.per_class is not None]
    numbers = {run.shots for run in placed}
    alone = all(run.cell not in compared for run in members) and numbers != {None}
    if len(numbers) > 1 or (placed and alone):
      by_network = points(placed, lambda run: (run.network, run.shots))
      series: dict[str, list[Point]] = defaultdict(list)
      for (network, _), one in sorted(by_network.items(), key=lambda item: _position(item[1])):
        series[network].append(one)
      result.append(Panel(dataset, protocol, recipe, dict(sorted(series.items()))))
  return result


def per_class(one: Point) -> float:
  """Returns the examples of each class of a point of a panel."""
  numbers = [run.per_class for run in one.runs if run.per_class is not None]
  return sum(numbers) / len(numbers)


def _position(one: Point) -> tuple[bool, float]:
  return one.runs[0].shots is None, per_class(one)


def scores(found: Iterable[collect.Run]) -> list[Score]:
  """Returns what there is of VTAB-1k, for each network and recipe."""
  by_score: dict[Any, list[collect.Run]] = defaultdict(list)
  for run in found:
    if is_vtab(run):
      by_score[run.network, run.protocol, run.recipe].append(run)
  result = []
  for (network, protocol, recipe), members in by_score.items():
    by_task = points(members, lambda run: run.dataset.removeprefix(_VTAB))
    tasks = {t: by_task[t] for t in itertools.chain(*GROUPS.values()) if t in by_task}
    means = {group: _mean(tasks, of) for group, of in GROUPS.items()}
    means["all"] = _mean(tasks, vtab.TASKS)
    result.append(Score(network, protocol, recipe, tasks, means))
  return result


def _mean(tasks: dict[str, Point], of: Sequence[str]) -> Mean:
  there = [tasks[name] for name in of if name in tasks]
  if not there:
    return Mean(0, len(of), None, ())
  by_seed = [{run.seed: 100 * run.metrics["top1"] for run in one.runs} for one in there]
  shared = sorted(set.intersection(*(set(values) for values in by_seed)))
  seeds = tuple(_average([values[s] for values in by_seed]) for s in shared)
  return Mean(len(there), len(of), _average([one.top1.median for one in there]), seeds)


def _average(values: Sequence[float]) -> float:
  return math.fsum(values) / len(values)


def comparisons(found: Sequence[collect.Run]) -> list[Comparison]:
  """Returns every network, data set and number of examples that was run by several recipes.

  First comes what follows the rule most closely: the fewest departures, then the presets in their
  order, then what more runs follow, on whatever data.
  """
  followed = Counter(run.recipe for run in found)
  by_cell: dict[Any, dict[Any, Point]] = {}
  for cell in dict.fromkeys(run.cell for run in found):
    members = [run for run in found if run.cell == cell]
    by_recipe = points(members, lambda run: run.recipe)
    if len(by_recipe) > 1:
      by_cell[cell] = by_recipe
  result = []
  for (dataset, protocol, shots, network), by_recipe in by_cell.items():

    def closeness(recipe: recipes.Recipe) -> tuple[Any, ...]:
      presets = hyperrule.PRESETS
      place = presets.index(recipe.preset) if recipe.preset in presets else len(presets)
      return len(recipe.departures), place, -followed[recipe]

    ordered = sorted(by_recipe, key=lambda r: (closeness(r), r.preset, r.dtype or "", r.departures))
    first, rest = ordered[0], sorted(ordered[1:], key=lambda r: _values(by_recipe[r]))
    fields = _differing([by_recipe[r] for r in ordered])
    rows = tuple((_of(by_recipe[r], fields), by_recipe[r]) for r in (first, *rest))
    result.append(Comparison(dataset, protocol, shots, network, fields, rows))
  return result


def sizes(found: Iterable[collect.Run]) -> dict[tuple[Any, ...], list[Point]]:
  """Returns {(data set, protocol, shots, kind of start, recipe, device): a point an architecture}.

  Only runs of a known architecture and with a measured time are in it; points are sorted by
  parameters.
  """
  known = [r for r in found if r.architecture in architectures.ARCHITECTURES and r.step_seconds]

  def key(run: collect.Run) -> tuple[Any, ...]:
    start = run.start.replace(f"-{run.architecture}", "")  # of the checkpoints of a family
    return (run.dataset, run.protocol, run.shots, start, run.recipe, run.device)

  by_point = points(known, lambda run: (*key(run), run.architecture))
  result: dict[tuple[Any, ...], list[Point]] = defaultdict(list)
  for (*group, _), one in by_point.items():
    result[tuple(group)].append(one)
  return {group: sorted(there, key=parameters) for group, there in result.items()}


def parameters(one: Point) -> int:
  """Returns how many parameters the network of a point has without its head."""
  architecture = architectures.ARCHITECTURES[one.runs[0].architecture]
  return architectures.num_parameters(architecture, None)


def median_seconds(one: Point) -> float:
  """Returns the median of the time that the steps of its runs took, the first left out."""
  return intervals.summarize([r.step_seconds for r in one.runs if r.step_seconds]).median


# What is told of a recipe even where all follow the rule in it: presets set them otherwise.
_SHOWN = ("preset", "batch_size", "base_lr", "total_steps", "mixup_alpha", "resize", "crop")


def _differing(there: Sequence[Point]) -> tuple[str, ...]:
  """Returns the names of the fields in which recipes differ, as their values or from the rule."""
  departing = [dict(one.runs[0].recipe.departures) for one in there]
  names = dict.fromkeys((*_SHOWN, *sorted({n for d in departing for n in d}), "dtype"))
  differing = tuple(n for n in names if len({str(_value(one, n)) for one in there}) > 1)
  return differing or ("recipe",)


def _value(one: Point, name: str) -> Any:
  run = one.runs[0]
  of_recipe = {"dtype": run.recipe.dtype, "recipe": str(run.recipe)}
  return of_recipe.get(name, run.config.get(name))


def _of(one: Point, fields: Sequence[str]) -> tuple[Any, ...]:
  return tuple(_value(one, name) for name in fields)


def _values(one: Point) -> tuple[Any, ...]:
  return (*_of(one, _SHOWN), str(one.runs[0].recipe))
