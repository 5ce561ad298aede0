"""One network on one data set by several recipes: which, and what differs between them."""

import dataclasses
import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

from bit_jax import hyperrule
from experiments.results import reading, recipes, seeds


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
  rows: tuple[tuple[tuple[Any, ...], seeds.Point], ...]

  @property
  def runs(self) -> list[reading.Run]:
    """All of them."""
    return [run for _, one in self.rows for run in one.runs]


def comparisons(found: Sequence[reading.Run]) -> list[Comparison]:
  """Returns every network, data set and number of examples that was run by several recipes.

  First comes what follows the rule most closely: the fewest departures (but for the batch, which is
  none with preset=scaled), then the presets in their order, then what more runs follow, on whatever
  data.
  """
  followed = Counter(run.recipe for run in found)
  by_cell: dict[Any, dict[Any, seeds.Point]] = {}
  for cell in dict.fromkeys(run.cell for run in found):
    members = [run for run in found if run.cell == cell]
    by_recipe = seeds.points(members, lambda run: run.recipe)
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


# What is told of a recipe even where all follow the rule in it: presets set them otherwise.
_SHOWN = ("preset", "batch_size", "base_lr", "total_steps", "mixup_alpha", "resize", "crop")


def _differing(there: Sequence[seeds.Point]) -> tuple[str, ...]:
  """Returns the names of the fields in which recipes differ, as their values or from the rule."""
  departing = [dict(one.runs[0].recipe.departures) for one in there]
  names = dict.fromkeys((*_SHOWN, *sorted({n for d in departing for n in d}), "dtype"))
  differing = tuple(n for n in names if len({str(_value(one, n)) for one in there}) > 1)
  return differing or ("recipe",)


def _value(one: seeds.Point, name: str) -> Any:
  run = one.runs[0]
  of_recipe = {"dtype": run.recipe.dtype, "recipe": str(run.recipe)}
  return of_recipe.get(name, run.config.get(name))


def _of(one: seeds.Point, fields: Sequence[str]) -> tuple[Any, ...]:
  return tuple(_value(one, name) for name in fields)


def _distance(own: tuple[Any, ...], values: tuple[Any, ...]) -> tuple[Any, ...]:
  """Sorts recipes by how many fields differ from the first one's, by which, and by their values."""
  changed = [i for i, (a, b) in enumerate(zip(own, values, strict=True)) if a != b]
  numbers = [(v, "") if isinstance(v, int | float) else (math.inf, str(v)) for v in values]
  return len(changed), changed, numbers
