"""The sections on accuracy: against examples, tasks, size, and by recipe, each with its figure."""

import functools
import pathlib
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

from bit_jax.data import vtab
from bit_jax.models import architectures
from bit_jax.runtime import files, phrases
from experiments.results import (
  curves,
  figures,
  galleries,
  intervals,
  model_sizes,
  pages,
  reading,
  recipe_comparisons,
  recipes,
  seeds,
  vtab_means,
  wording,
)

_PARTIAL = "A mean over fewer tasks than all is no score, and is compared with nothing."
_PAIRED = (
  "A seed picks the examples and their order. So differences are taken between runs with the same "
  "seed: the median, in points, over the seeds that a recipe and the reference both have, which "
  "needn't be the difference of the medians."
)
_Shown = TypeVar("_Shown", curves.Panel, vtab_means.Score)


def few_shot(panels: Sequence[curves.Panel], gallery: galleries.Gallery) -> Iterator[pages.Block]:
  """Yields a figure and a table of the curves, for each recipe."""
  if not panels:
    return
  yield pages.Heading(2, "Accuracy against examples of each class")
  for there in _by_recipe(panels):
    found = [run for panel in there for run in panel.runs]
    title = wording.title("Accuracy against examples of each class", found)
    names = "-".join(sorted({p.dataset for p in there}))
    picture = gallery.path("fewshot", names, there[0].protocol)
    yield pages.Paragraph(wording.made(found))
    draw = functools.partial(figures.few_shot, there, title)
    yield from _picture(draw, picture, wording.described(title, *_marks(there)))
    yield _few_shot_table(there)


def _picture(
  draw: Callable[[pathlib.Path], None], picture: pathlib.Path, text: str
) -> list[pages.Picture]:
  """Draws a figure and returns its block; none if that fails, as tables hold its numbers."""
  drawn: list[pages.Picture] = []
  with files.optional(picture.name, functools.partial(print, file=sys.stderr)):
    draw(picture)
    drawn.append(pages.Picture(picture.name, text))
  return drawn


def _marks(panels: Iterable[curves.Panel]) -> Iterator[str]:
  """Yields what the marks of a figure of curves mean."""
  yield "a dot a seed, the line their median"
  if any(any(curves.fewer_seeds(curve)) for panel in panels for curve in panel.series.values()):
    yield "hollow and dashed where there are fewer seeds than elsewhere on the line"


def _few_shot_table(panels: Sequence[curves.Panel]) -> pages.Table:
  columns: dict[int | None, None] = {}
  for panel in panels:
    for points in panel.series.values():
      columns |= dict.fromkeys(one.runs[0].shots for one in points)
  ordered = sorted(columns, key=lambda shots: (shots is None, shots))
  rows = []
  for panel in panels:
    for network, points in panel.series.items():
      by_shots = {one.runs[0].shots: wording.summary(one.top1) for one in points}
      cells = [by_shots.get(shots, "") for shots in ordered]
      rows.append((wording.dataset(panel.dataset, panel.protocol), network, *cells))
  return pages.Table(("data set", "network", *map(wording.shots, ordered)), rows, names=2)


def vtab_scores(
  scores: Sequence[vtab_means.Score], gallery: galleries.Gallery
) -> Iterator[pages.Block]:
  """Yields a figure and tables of means and tasks, for each recipe."""
  if not scores:
    return
  yield pages.Heading(2, "VTAB-1k")
  for there in _by_recipe(scores):
    found = [run for score in there for run in score.runs]
    fewest, most = min(len(s.tasks) for s in there), max(len(s.tasks) for s in there)
    done = f"{most}" if fewest == most else f"{fewest} to {most}"
    title = wording.title(f"VTAB-1k, {done} of {len(vtab.TASKS)} tasks", found)
    picture = gallery.path("vtab", there[0].protocol)
    yield pages.Paragraph(wording.made(found))
    marks = "bars are medians, whiskers go from the lowest to the highest seed"
    draw = functools.partial(figures.vtab, there, title)
    yield from _picture(draw, picture, wording.described(title, marks))
    yield pages.Paragraph("Means of the tasks' medians; over all 19 tasks it is the score:")
    yield _vtab_means(there)
    if any(not score.means["all"].is_complete for score in there):
      yield pages.Paragraph(_PARTIAL)
    yield _vtab_tasks(there)


def _vtab_means(scores: Sequence[vtab_means.Score]) -> pages.Table:
  kinds = (*vtab_means.GROUPS, "all")
  header = ("network", *vtab_means.GROUPS, "all", "all, lowest to highest seed")
  rows = []
  for score in scores:
    means = [_mean(score.means[kind]) for kind in kinds]
    rows.append((score.network, *means, _of_seeds(score.means["all"].seeds)))
  return pages.Table(header, rows)


def _of_seeds(means: Sequence[float]) -> str:
  if len(means) < 2:
    return ""
  return f"{wording.span((min(means), max(means)))}, {phrases.counted(len(means), 'seed')}"


def _mean(mean: vtab_means.Mean) -> str:
  value = "none" if mean.value is None else f"{mean.value:.1f}"
  return f"{value} ({mean.done} of {mean.of})"


def _vtab_tasks(scores: Sequence[vtab_means.Score]) -> pages.Table:
  rows = []
  for group, tasks in vtab_means.GROUPS.items():
    for task in tasks:
      cells = [wording.summary(s.tasks[task].top1) if task in s.tasks else "" for s in scores]
      if any(cells):
        rows.append((task, group, *cells))
  return pages.Table(("task", "group", *(s.network for s in scores)), rows, names=2)


def sizes(found: Sequence[reading.Run], gallery: galleries.Gallery) -> Iterator[pages.Block]:
  """Yields a figure and a table of networks that differ in size alone, where there are any."""
  known = {run.architecture for run in found} & set(architectures.ARCHITECTURES)
  if len(known) < 2:
    return
  several = [
    one for one in model_sizes.sizes(found) if any(len(s) > 1 for s in one.series.values())
  ]
  yield pages.Heading(2, "Accuracy against size and cost")
  if not several:
    yield pages.Paragraph(
      f"Of {', '.join(sorted(known))}, no two were run on one data set (or on all of VTAB-1k) by "
      f"one recipe, from one kind of start and on one device: there is nothing to compare."
    )
  for one in several:
    what = f"{wording.dataset(one.dataset, one.protocol)}, {one.start}"
    title = wording.title(f"Accuracy against size and cost: {what}", one.runs)
    picture = gallery.path("sizes", one.dataset, one.protocol, one.start)
    runs = f"{len(vtab.TASKS)} tasks' runs" if one.dataset == vtab_means.VTAB else "a run"
    cost = f"time of the steps of {runs} on {wording.places(one.runs)}"
    yield pages.Paragraph(wording.made(one.runs))
    draw = functools.partial(figures.sizes, one, cost, title)
    yield from _picture(draw, picture, wording.described(title))
    header = ("network", "examples", "parameters in millions, without head", "top-1")
    rows = [
      (
        size.architecture,
        wording.shots(shots) if one.dataset != vtab_means.VTAB else "",
        *_size(size),
      )
      for shots, there in one.series.items()
      for size in there
    ]
    yield pages.Table((*header, f"{cost}, in s"), rows, names=2)


def _size(size: model_sizes.Size) -> tuple[str, ...]:
  count = phrases.counted(size.count, "seed")
  spread = f" ({wording.span((size.low, size.high))})" if size.count > 1 else ""
  accuracy = f"{size.value:.1f}{spread}, {count}"
  return f"{size.parameters / 1e6:,.1f}", accuracy, f"{size.seconds:,.0f}"


def comparisons(
  found: Sequence[recipe_comparisons.Comparison], gallery: galleries.Gallery
) -> Iterator[pages.Block]:
  """Yields a figure and a table of each network on one data set by several recipes.

  Differences are those of runs with the same seed (`seeds.paired_differences`).
  """
  if not found:
    return
  yield pages.Heading(2, "Recipes compared")
  yield pages.Paragraph(_PAIRED)
  for one in found:
    what = (
      f"{wording.dataset(one.dataset, one.protocol)}, {wording.shots(one.shots)}, {one.network}"
    )
    first = one.rows[0][1]
    title = wording.title(what, first.runs)
    picture = gallery.path(
      "recipes", one.dataset, one.protocol, wording.shots(one.shots), one.network
    )
    yield pages.Heading(3, what)
    yield pages.Paragraph(
      f"{wording.run_on(one.runs)} The reference: {wording.recipe(first.runs)}."
    )
    draw = functools.partial(figures.comparison, one, title)
    yield from _picture(draw, picture, wording.described(title))
    rows = []
    for values, point in one.rows:
      shown = "reference" if point is first else _difference(point, first)
      rows.append((*map(figures.shown, values), wording.summary(point.top1), shown))
    header = (*one.fields, "top-1", "difference, same seeds")
    yield pages.Table(header, rows, names=len(one.fields))


def _difference(one: seeds.Point, reference: seeds.Point) -> str:
  """Returns the median of the paired differences, and their number where seeds are without one."""
  paired = seeds.paired_differences(one, reference)
  if not paired:
    return "no seed in common"
  count = "" if len(paired) == len(one.runs) else f", {len(paired)} of {len(one.runs)} seeds"
  return f"{intervals.summarize(paired).median:+.2f}{count}"


def _by_recipe(there: Iterable[_Shown]) -> list[list[_Shown]]:
  """Returns together what one figure can show: what has one recipe and protocol."""
  result: dict[tuple[recipes.Recipe, str], list[_Shown]] = defaultdict(list)
  for one in there:
    result[one.recipe, one.protocol].append(one)
  return list(result.values())
