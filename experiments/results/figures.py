"""The report's figures, readable at their own size and whatever the reader's colour vision."""

import itertools
import math
import pathlib
import warnings
from collections.abc import Iterable, Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.results import groups

# Okabe and Ito's colours, but for yellow, which is pale on white; each with a marker of its own.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
_ACCURACY = "top-1 accuracy in %"
_COLUMNS = 2  # panels side by side
_DODGE = 1.05  # dots of two networks are so far apart, as a factor
_WIDTH = 9.0  # inches, of all figures


def few_shot(panels: Sequence[groups.Panel], title: str, picture: pathlib.Path) -> None:
  """Draws accuracy against examples of each class: each seed a dot, the medians a line.

  Args:
    panels: One for each data set, by one recipe.
    title: Above the picture.
    picture: The PNG file to write.
  """
  columns = min(_COLUMNS, len(panels))
  rows = -(-len(panels) // columns)
  networks = sorted({name for panel in panels for name in panel.series})
  figure = Figure(figsize=(_WIDTH, 3.6 * rows + 0.9 + 0.2 * len(networks)), layout="constrained")
  every = figure.subplots(rows, columns, squeeze=False).flat
  for axes, panel in itertools.zip_longest(every, panels):
    if panel is None:
      axes.set_axis_off()
      continue
    _draw_curves(axes, panel, networks)
  handles = {h.get_label(): h for axes in figure.axes for h in axes.get_lines() if _named(h)}
  _legend(figure, [handles[name] for name in networks])
  _save(figure, title, picture)


def _draw_curves(axes: Axes, panel: groups.Panel, networks: Sequence[str]) -> None:
  ticks = {}
  for name, points in panel.series.items():
    place = networks.index(name)
    shift = _DODGE ** (place - (len(networks) - 1) / 2)
    numbers = [groups.per_class(p) for p in points]
    for number, point in zip(numbers, points, strict=True):
      full = point.runs[0].shots is None
      ticks[number] = f"full\n({number:,.0f})" if full else f"{number:g}"
      values = [100 * run.metrics["top1"] for run in point.runs]
      axes.plot([number * shift] * len(values), values, alpha=0.45, **_dots(place, 4.5))
    medians = [p.top1.median for p in points]
    axes.plot([n * shift for n in numbers], medians, label=name, **_line(place))
  axes.set_xscale("log")
  axes.set_xticks(list(ticks), list(ticks.values()))
  axes.set_xticks([], minor=True)
  low, high = min(ticks), max(ticks)
  axes.set_xlim(low / 1.5, high * 1.5)
  axes.set_xlabel("training images of each class")
  axes.set_ylabel(_ACCURACY)
  axes.grid(alpha=0.3)
  held_out = "" if panel.protocol == "final" else " (held-out part of train)"
  axes.set_title(f"{panel.dataset}{held_out}", parse_math=False)


def vtab(scores: Sequence[groups.Score], title: str, picture: pathlib.Path) -> None:
  """Draws a bar for each task and network, its median; whiskers to the extremes, seeds as dots.

  Args:
    scores: One for each network, by one recipe.
    title: Above the picture.
    picture: The PNG file to write.
  """
  tasks = [t for t in itertools.chain(*groups.GROUPS.values()) if any(t in s.tasks for s in scores)]
  positions = _grouped_positions(tasks)
  height = 0.8 / len(scores)
  inches = (0.22 + 0.13 * len(scores)) * (max(positions.values()) + 1)
  figure = Figure(figsize=(_WIDTH, inches + 1.5 + 0.25 * len(scores)), layout="constrained")
  axes = figure.subplots()
  for place, score in enumerate(scores):
    label = f"{score.network}: {_of_tasks(score.means['all'])}"
    offset = (place - (len(scores) - 1) / 2) * height
    at = [positions[t] + offset for t in score.tasks]
    points = list(score.tasks.values())
    colour = _COLOURS[place % len(_COLOURS)]
    medians = [p.top1.median for p in points]
    axes.barh(at, medians, 0.9 * height, color=colour, alpha=0.55, label=label, edgecolor=colour)
    for y, point in zip(at, points, strict=True):
      _whisker(axes, point, y, place, "black")
  axes.set_yticks([positions[t] for t in tasks], tasks, parse_math=False)
  for group, members in groups.GROUPS.items():
    there = [positions[t] for t in members if t in positions]
    if there:
      axes.text(0, min(there) - 0.85, group, fontweight="bold", va="center")
  axes.set_ylim(max(positions.values()) + 0.6, -1.3)
  axes.set_xlim(0, 100)
  axes.set_xlabel(_ACCURACY)
  axes.grid(axis="x", alpha=0.3)
  _legend(figure, axes.get_legend_handles_labels()[0])
  _save(figure, title, picture)


def _of_tasks(mean: groups.Mean) -> str:
  kind = "score" if mean.is_complete else "mean of those run"
  return f"{kind} {mean.value:.1f} ({mean.done} of {mean.of} tasks)"


def _grouped_positions(tasks: Iterable[str]) -> dict[str, float]:
  """Returns the place of each task, with room for a heading before each group."""
  place, result = 0.0, {}
  tasks = set(tasks)
  for members in groups.GROUPS.values():
    there = [t for t in members if t in tasks]
    for task in there:
      result[task] = place
      place += 1
    place += 1 if there else 0
  return result


def sizes(points: Sequence[groups.Point], cost: str, title: str, picture: pathlib.Path) -> None:
  """Draws accuracy against parameters, and against the time that the steps of a run took.

  Args:
    points: One for each architecture.
    cost: What the time was measured on.
    title: Above the picture.
    picture: The PNG file to write.
  """
  figure = Figure(figsize=(_WIDTH, 4.2), layout="constrained")
  by_size, by_cost = figure.subplots(1, 2, sharey=True)
  for place, point in enumerate(points):
    run = point.runs[0]
    x = groups.parameters(point) / 1e6
    for axes, value in ((by_size, x), (by_cost, groups.median_seconds(point))):
      _error_bar(axes, point, value, place)
      axes.annotate(
        run.architecture,
        (value, point.top1.median),
        (9, -3),
        textcoords="offset points",
        parse_math=False,
      )
  by_size.set_xlabel("parameters in millions, without head")
  by_cost.set_xlabel(f"time of a run's steps in s, {cost}", parse_math=False)
  by_size.set_ylabel(_ACCURACY)
  for axes in (by_size, by_cost):
    axes.set_xscale("log")
    axes.margins(0.2)
    axes.grid(alpha=0.3, which="both")
  _save(figure, title, picture)


def comparison(one: groups.Comparison, title: str, picture: pathlib.Path) -> None:
  """Draws a line of dots for each recipe, one for each seed, and a stroke at their median.

  Args:
    one: What to draw; its first recipe is what the others are compared with.
    title: Above the picture.
    picture: The PNG file to write.
  """
  figure = Figure(figsize=(_WIDTH, 0.34 * len(one.rows) + 1.5), layout="constrained")
  axes = figure.subplots()
  labels = []
  for y, (values, point) in enumerate(one.rows):
    labels.append(", ".join(f"{n} {shown(v)}" for n, v in zip(one.fields, values, strict=True)))
    colour = _COLOURS[1] if y == 0 else _COLOURS[0]
    values_in_percent = [100 * run.metrics["top1"] for run in point.runs]
    marker = _MARKERS[1] if y == 0 else _MARKERS[0]
    axes.plot(
      values_in_percent, [y] * len(point.runs), marker, color=colour, alpha=0.6, markersize=5
    )
    axes.plot([point.top1.median] * 2, [y - 0.32, y + 0.32], color=colour, linewidth=2.5)
  axes.axvline(one.rows[0][1].top1.median, color=_COLOURS[1], linewidth=1, linestyle=":", zorder=0)
  axes.set_yticks(range(len(labels)), labels, parse_math=False)
  axes.set_ylim(len(labels) - 0.4, -0.6)
  axes.set_xlabel(f"{_ACCURACY}; a dot a seed, a stroke the median; above: what is compared with")
  axes.grid(axis="x", alpha=0.3)
  _save(figure, title, picture)


def shown(value: Any) -> str:
  """Returns a field's value as it is shown."""
  if isinstance(value, bool):
    return "on" if value else "off"
  return f"{value:g}" if isinstance(value, float) else str(value)


def _whisker(axes: Axes, point: groups.Point, y: float, place: int, colour: str) -> None:
  if point.top1.count > 1:
    axes.plot([point.top1.low, point.top1.high], [y, y], color=colour, linewidth=1)
  values = [100 * run.metrics["top1"] for run in point.runs]
  axes.plot(values, [y] * len(values), **_dots(place, 3.5, edge="black"))


def _error_bar(axes: Axes, point: groups.Point, x: float, place: int) -> None:
  summary = point.top1
  values = [100 * run.metrics["top1"] for run in point.runs]
  if summary.count > 1:
    axes.plot([x, x], [summary.low, summary.high], color=_COLOURS[place % len(_COLOURS)])
    axes.plot([x] * len(values), values, alpha=0.45, **_dots(place, 4))
  axes.plot([x], [summary.median], **_dots(place, 8))


def _dots(place: int, size: float, edge: str | None = None) -> dict[str, Any]:
  colour = _COLOURS[place % len(_COLOURS)]
  return {
    "linestyle": "none",
    "marker": _MARKERS[place % len(_MARKERS)],
    "markersize": size,
    "color": colour,
    "markeredgecolor": edge or "none",
    "markeredgewidth": 0.5,
  }


def _line(place: int) -> dict[str, Any]:
  style = ("-", "--", ":")[place // len(_COLOURS) % 3]
  return {**_dots(place, 6), "linestyle": style, "linewidth": 1.6}


def _named(line: Any) -> bool:
  return not str(line.get_label()).startswith("_")


def _legend(figure: Figure, handles: Sequence[Any]) -> None:
  """Puts the legend below the panels, where it hides nothing, a line for each long name."""
  longest = max(len(str(h.get_label())) for h in handles)
  columns = max(1, min(len(handles), math.floor(110 / (longest + 6))))
  legend = figure.legend(handles=handles, loc="outside lower center", ncols=columns, frameon=False)
  for text in legend.get_texts():
    text.set_parse_math(False)


def _save(figure: Figure, title: str, picture: pathlib.Path) -> None:
  figure.suptitle(title, fontsize=11, parse_math=False, wrap=True)
  with mpl.rc_context({"savefig.bbox": None}), warnings.catch_warnings():
    # Names may be in a script that matplotlib's font doesn't have: boxes stand for those letters.
    warnings.filterwarnings("ignore", message="Glyph .* missing from font")
    figure.savefig(picture, dpi=110, metadata={"Software": None})
