"""Accuracy against examples of each class: which runs make a curve, and which curves a panel."""

import dataclasses
import statistics
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from experiments.results import reading, recipe_comparisons, recipes, seeds, vtab_means


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
  series: dict[str, list[seeds.Point]]

  @property
  def runs(self) -> list[reading.Run]:
    """All of them."""
    return [run for points in self.series.values() for one in points for run in one.runs]


def panels(found: Sequence[reading.Run]) -> list[Panel]:
  """Returns the curves: of several numbers of examples, or of several networks at one number.

  Networks at one number by a recipe that is there to be compared with another one are no curve.
  """
  varied = {
    id(run)
    for one in recipe_comparisons.comparisons(found)
    for _, point in one.rows[1:]
    for run in point.runs
  }
  by_panel: dict[Any, list[reading.Run]] = defaultdict(list)
  for run in found:
    if not vtab_means.is_vtab(run):
      by_panel[run.dataset, run.protocol, run.recipe].append(run)
  result = []
  for (dataset, protocol, recipe), members in by_panel.items():
    placed = [run for run in members if run.per_class is not None]
    numbers = {run.shots for run in placed}
    alone = any(id(run) not in varied for run in placed) and numbers != {None}
    networks = {run.network for run in placed}
    if len(numbers) > 1 or (len(networks) > 1 and alone):
      by_network = seeds.points(placed, lambda run: (run.network, run.shots))
      series: dict[str, list[seeds.Point]] = defaultdict(list)
      for (network, _), one in sorted(by_network.items(), key=lambda item: _position(item[1])):
        series[network].append(one)
      ordered = sorted(series, key=lambda network: seeds.rank(series[network][0]))
      shown = {network: series[network] for network in ordered}
      result.append(Panel(dataset, protocol, recipe, shown))
  return result


def per_class(one: seeds.Point) -> float:
  """Returns the examples of each class of a point of a panel."""
  numbers = [run.per_class for run in one.runs if run.per_class is not None]
  # The same for all networks, however many runs there are.
  return round(statistics.fmean(numbers), 6)


def fewer_seeds(curve: Sequence[seeds.Point]) -> list[bool]:
  """Returns for each point of a curve whether it has fewer seeds than another one."""
  most = max(one.top1.count for one in curve)
  return [one.top1.count < most for one in curve]


def _position(one: seeds.Point) -> tuple[bool, float]:
  return one.runs[0].shots is None, per_class(one)
