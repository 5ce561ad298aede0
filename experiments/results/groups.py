"""Which runs stand side by side: in a curve, in a mean over tasks, in a comparison."""

import dataclasses
import itertools
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from bit_jax import architectures, hyperrule
from bit_jax.data import vtab
from experiments.results import intervals, reading, recipes

VTAB = "VTAB-1k"
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

  runs: tuple[reading.Run, ...]
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

  @property
  def runs(self) -> list[reading.Run]:
    """All of them."""
    return [run for points in self.series.values() for one in points for run in one.runs]


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

  @property
  def runs(self) -> list[reading.Run]:
    """All of them."""
    return [run for one in self.tasks.values() for run in one.runs]


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

  @property
  def runs(self) -> list[reading.Run]:
    """All of them."""
    return [run for _, one in self.rows for run in one.runs]


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


def is_vtab(run: reading.Run) -> bool:
  """Whether a run is one of a known VTAB-1k task, on all its 1000 (or 800) examples."""
  name = str(run.config["dataset"])  # and not what a folder of images is called
  return name.startswith(_VTAB) and name.removeprefix(_VTAB) in vtab.TASKS and run.shots is None


def subject(run: reading.Run) -> str:
  """Returns what a run is about: its data set, or `VTAB`, whose tasks stand together."""
  return VTAB if is_vtab(run) else run.dataset


def panels(found: Sequence[reading.Run]) -> list[Panel]:
  """Returns the curves: of several numbers of examples, or of several networks at one number.

  Runs that are compared by their recipes are no curve by that alone.
  """
  compared = {run.cell for one in comparisons(found) for run in one.runs}
  by_panel: dict[Any, list[reading.Run]] = defaultdict(list)
  for run in found:
    if not is_vtab(run):
      by_panel[run.dataset, run.protocol, run.recipe].append(run)
  result = []
  for (dataset, protocol, recipe), members in by_panel.items():
    placed = [run for run in members if run.per_class is not None]
    numbers = {run.shots for run in placed}
    alone = all(run.cell not in compared for run in members) and numbers != {None}
    networks = {run.network for run in placed}
    if len(numbers) > 1 or (len(networks) > 1 and alone):
      by_network = points(placed, lambda run: (run.network, run.shots))
      series: dict[str, list[Point]] = defaultdict(list)
      for (network, _), one in sorted(by_network.items(), key=lambda item: _position(item[1])):
        series[network].append(one)
      ordered = sorted(series, key=lambda network: rank(series[network][0]))
      curves = {network: series[network] for network in ordered}
      result.append(Panel(dataset, protocol, recipe, curves))
  return result


def rank(one: Point) -> tuple[float, str]:
  """Returns what networks are ordered by: size, then name."""
  run = one.runs[0]
  known = run.architecture in architectures.ARCHITECTURES
  return _parameters(run.architecture) if known else math.inf, run.network


def per_class(one: Point) -> float:
  """Returns the examples of each class of a point of a panel."""
  numbers = [run.per_class for run in one.runs if run.per_class is not None]
  return round(_average(numbers), 6)  # the same for all networks, however many runs there are


def fewer_seeds(curve: Sequence[Point]) -> list[bool]:
  """Returns for each point of a curve whether it has fewer seeds than another one."""
  most = max(one.top1.count for one in curve)
  return [one.top1.count < most for one in curve]


def _position(one: Point) -> tuple[bool, float]:
  return one.runs[0].shots is None, per_class(one)


def scores(found: Iterable[reading.Run]) -> list[Score]:
  """Returns what there is of VTAB-1k, for each network and recipe."""
  by_score: dict[Any, list[reading.Run]] = defaultdict(list)
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
  return sorted(result, key=lambda score: rank(next(iter(score.tasks.values()))))


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


def comparisons(found: Sequence[reading.Run]) -> list[Comparison]:
  """Returns every network, data set and number of examples that was run by several recipes.

  First comes what follows the rule most closely: the fewest departures (but for the batch, which is
  none with preset=scaled), then the presets in their order, then what more runs follow, on whatever
  data.
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
      departing = dict(recipe.departures).keys() - {"batch_size"}
      return len(departing), place, -followed[recipe]

    ordered = sorted(by_recipe, key=lambda r: (closeness(r), r.preset, r.dtype or "", r.departures))
    there = [by_recipe[recipe] for recipe in ordered]
    fields = _differing(there)
    rows = [(_of(one, fields), one) for one in there]
    rows[1:] = sorted(rows[1:], key=lambda row: _distance(rows[0][0], row[0]))
    result.append(Comparison(dataset, protocol, shots, network, fields, tuple(rows)))
  return result


def sizes(found: Sequence[reading.Run]) -> list[Sizes]:
  """Returns what was run of networks of known architecture whose time was measured.

  Of VTAB-1k that is the score where no task is missing.
  """
  timed = [r for r in found if r.architecture in architectures.ARCHITECTURES and r.step_seconds]
  by_group: dict[Any, list[reading.Run]] = defaultdict(list)
  for run in timed:
    by_group[subject(run), run.protocol, family(run), run.recipe, run.place].append(run)
  result = []
  for (dataset, protocol, start, recipe, device), members in by_group.items():
    if dataset == VTAB:
      there = [s for s in map(_size_of_score, scores(members)) if s is not None]
      series: dict[int | None, list[Size]] = {None: there} if there else {}
    else:
      series = defaultdict(list)
      for (shots, _), one in points(members, lambda run: (run.shots, run.architecture)).items():
        series[shots].append(_size_of_point(one))
    sizes_of = {k: tuple(sorted(v, key=lambda size: size.parameters)) for k, v in series.items()}
    runs = tuple(members)
    result.append(Sizes(dataset, protocol, start, recipe, device, sizes_of, runs))
  return result


def family(run: reading.Run) -> str:
  """Returns how a network was initialised without its architecture: 'BiT-M' of 'BiT-M-R50x1'."""
  return run.start.replace(f"-{run.architecture}", "")


def _size_of_point(one: Point) -> Size:
  architecture = one.runs[0].architecture
  seconds = intervals.summarize([r.step_seconds or 0.0 for r in one.runs]).median
  top1 = one.top1
  return Size(
    architecture, _parameters(architecture), seconds, top1.median, top1.low, top1.high, top1.count
  )


def _size_of_score(score: Score) -> Size | None:
  mean = score.means["all"]
  if mean.value is None or not mean.is_complete:
    return None
  tasks = [_size_of_point(one) for one in score.tasks.values()]
  seconds = math.fsum(task.seconds for task in tasks)
  low, high = min(mean.seeds, default=mean.value), max(mean.seeds, default=mean.value)
  architecture = tasks[0].architecture
  count = len(mean.seeds)
  return Size(architecture, _parameters(architecture), seconds, mean.value, low, high, count)


def _parameters(architecture: str) -> int:
  return architectures.num_parameters(architectures.ARCHITECTURES[architecture], None)


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


def _distance(own: tuple[Any, ...], values: tuple[Any, ...]) -> tuple[Any, ...]:
  """Sorts recipes by how many fields differ from the first one's, by which, and by their values."""
  changed = [i for i, (a, b) in enumerate(zip(own, values, strict=True)) if a != b]
  numbers = [(v, "") if isinstance(v, int | float) else (math.inf, str(v)) for v in values]
  return len(changed), changed, numbers
