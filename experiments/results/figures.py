"""The report's figures, readable at their own size and with any colour vision."""

import contextlib
import itertools
import math
import pathlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from bit_jax.runtime import plots
from experiments.results import comparisons, reading, seeds

if TYPE_CHECKING:
  from matplotlib.axes import Axes
  from matplotlib.figure import Figure

# Okabe and Ito's colours without yellow, which is pale on white; each with its own marker.
# There is one more marker than colours, so 56 networks look different.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
_ACCURACY = "top-1 accuracy in %"
_COLUMNS = 2  # panels side by side
_DODGE = 1.12  # from the first network's dots to the last one's, as a factor
_LINE = 95  # characters that fit in a line
_MOST_LINES = 8  # of one text
_SPAN = 4.0  # points that the axis of recipes has at least: a few tenths must not look decisive
_WIDTH = 9.0  # inches, of all figures
_GREY = "#555555"


def few_shot(panels: Sequence[comparisons.Compared], title: str, picture: pathlib.Path) -> None:
  """Draws accuracy against examples per class: a dot per seed, a line through the medians.

  A median of fewer seeds than others on its line is hollow, and the line to it dashed.

  Args:
    panels: One per data set, all by one recipe.
    title: Title of the figure.
    picture: The PNG file to write.
  """
  columns = min(_COLUMNS, len(panels))
  rows = -(-len(panels) // columns)
  every = pd.concat([panel.points for panel in panels])
  networks = list(every.sort_values(["parameters", "network"]).network.unique())
  marks = {name: _line(place) for place, name in enumerate(networks)} | _kinds(every)
  with _figure(3.6 * rows + 0.9 + 0.2 * len(marks), title, picture) as figure:
    from matplotlib.lines import Line2D

    places = iter(figure.subplots(rows, columns, squeeze=False).flat)
    for panel, axes in zip(panels, places, strict=False):
      _draw_panel(axes, panel, networks)
    for axes in places:  # without a panel
      axes.set_axis_off()
    _legend(figure, {label: Line2D([], [], **look) for label, look in marks.items()})


def _draw_panel(axes: "Axes", panel: comparisons.Compared, networks: Sequence[str]) -> None:
  ticks = {}
  for name, of_network in panel.points.groupby("network", sort=False):
    place = networks.index(name)
    shift = _DODGE ** (place / (len(networks) - 1) - 0.5) if len(networks) > 1 else 1.0
    points = seeds.rows(of_network)
    for point in points:
      full, number = point.shots == reading.ALL, point.per_class
      ticks[number] = f"full\n({number:,.0f})" if full else f"{number:g}"
      values = _values(point)
      axes.plot([number * shift] * len(values), values, alpha=0.45, **_dots(place, 4.5))
    marks = [(p.per_class * shift, p.top1.median, p.fewer) for p in points]
    for a, b in itertools.pairwise(marks):
      style = _line(place) | {"marker": "none", "linestyle": "--" if a[2] or b[2] else "-"}
      axes.plot([a[0], b[0]], [a[1], b[1]], **style)
    for x, y, fewer in marks:
      axes.plot([x], [y], **_hollow(place) if fewer else _dots(place, 6))
  axes.set_xscale("log")
  axes.set_xticks(list(ticks), list(ticks.values()))
  axes.set_xticks([], minor=True)
  margin = 1.5 if len(ticks) > 1 else 10.0  # dodged dots must not look like two numbers
  run = panel.runs[0]
  held_out = "" if run.protocol == "final" else " (held-out part of train)"
  axes.set(
    xlim=(min(ticks) / margin, max(ticks) * margin),
    xlabel="training images per class",
    ylabel=_ACCURACY,
    title=_wrapped(f"{run.dataset}{held_out}", _LINE // 2),
  )
  axes.grid(alpha=0.3)


def _kinds(points: pd.DataFrame) -> dict[str, dict[str, Any]]:
  """Returns the legend's labels of dots and lines of any colour, and how they look."""
  grey = {"color": _GREY, "marker": "o"}
  kinds = {"one seed": _dots(0, 4.5) | grey | {"alpha": 0.45}}
  if counts := sorted(set(points["count"][points.fewer])):
    shown = " or ".join(map(str, counts)) if len(counts) < 3 else f"{counts[0]} to {counts[-1]}"
    dashed = grey | {"markeredgecolor": _GREY, "linestyle": "--"}
    kinds[f"fewer seeds than elsewhere on the line: {shown}"] = _hollow(0) | dashed
  return kinds


def vtab(scores: Sequence[comparisons.Score], title: str, picture: pathlib.Path) -> None:
  """Draws a bar per task and network, its median; whiskers to the extremes, dots for the seeds.

  Args:
    scores: One per network, all by one recipe.
    title: Title of the figure.
    picture: The PNG file to write.
  """
  done = pd.concat([score.points for score in scores]).sort_values("place")
  groups = done.groupby("group", sort=False).task.unique()
  positions: dict[str, float] = {}
  for number, tasks in enumerate(groups):  # a gap before each group
    positions |= {task: len(positions) + number + i for i, task in enumerate(tasks)}
  height = 0.8 / len(scores)
  inches = (0.22 + 0.13 * len(scores)) * (max(positions.values()) + 1)
  with _figure(inches + 1.5 + 0.25 * len(scores), title, picture) as figure:
    axes, bars = figure.subplots(), {}
    for place, score in enumerate(scores):
      offset = (place - (len(scores) - 1) / 2) * height
      at = [positions[task] + offset for task in score.points.task]
      colour = _COLOURS[place % len(_COLOURS)]
      look: dict[str, Any] = {"color": colour, "edgecolor": colour, "alpha": 0.55}
      hatch = "//" * (place // len(_COLOURS))
      mean = score.means["all"]
      kind = "score" if mean.is_complete else "mean of tasks run"
      label = f"{score.runs[0].network}: {kind} {str(mean).removesuffix(')')} tasks)"
      medians = [top1.median for top1 in score.points.top1]
      bars[label] = axes.barh(at, medians, 0.9 * height, hatch=hatch, **look)
      for y, point in zip(at, seeds.rows(score.points), strict=True):
        if point.top1.count > 1:
          axes.plot([point.top1.low, point.top1.high], [y, y], color="black", linewidth=1)
        values = _values(point)
        axes.plot(values, [y] * len(values), **_dots(place, 3.5, edge="black"))
    axes.set_yticks(list(positions.values()), list(positions))
    for group, tasks in groups.items():
      axes.text(0.5, positions[tasks[0]] - 0.85, str(group), fontweight="bold", va="center")
    axes.set(ylim=(max(positions.values()) + 0.6, -1.3), xlim=(0, 100), xlabel=_ACCURACY)
    axes.grid(axis="x", alpha=0.3)
    _legend(figure, bars)


def sizes(one: comparisons.Compared, cost: str, title: str, picture: pathlib.Path) -> None:
  """Draws accuracy against parameters, and against the time of a run's steps.

  Args:
    one: What to draw, a line per number of examples.
    cost: What took the time, and on what device.
    title: Title of the figure.
    picture: The PNG file to write.
  """
  with _figure(4.8, title, picture) as figure:
    by_size, by_cost = figure.subplots(1, 2, sharey=True)
    ends = {n: [getattr(top1, n) for top1 in one.points.top1] for n in ("low", "median", "high")}
    for axes, xs in ((by_size, one.points.parameters / 1e6), (by_cost, one.points.seconds)):
      placed = one.points.assign(x=xs, **ends).sort_values("x", kind="stable")
      for place, (_, there) in enumerate(placed.groupby("shots")):
        axes.plot(there.x, there["median"], **_line(place))
        axes.vlines(there.x, there.low, there.high, color=_COLOURS[place % len(_COLOURS)])
      _name_sizes(axes, placed)
    by_size.set(xlabel="parameters in millions, without head", ylabel=_ACCURACY)
    by_cost.set_xlabel(_wrapped(f"{cost}, in s", _LINE // 2))
    for axes in (by_size, by_cost):
      axes.margins(0.22, 0.25)
      axes.grid(alpha=0.3)
      low, high = axes.get_xlim()
      plots.set_log_scale(axes, "x", (1, 2, 5) if high < 300 * low else (1,))
    low, high = by_size.get_ylim()
    by_size.set_yticks([y for y in by_size.get_yticks() if max(low, 0) <= y <= min(high, 100)])
    lines = dict(zip(sorted(set(one.points.shots)), by_size.get_lines(), strict=True))
    if len(lines) > 1:
      labels = {n: "all examples" if n == reading.ALL else reading.examples(n) for n in lines}
      _legend(figure, {labels[n]: line for n, line in lines.items()})


def _name_sizes(axes: "Axes", placed: pd.DataFrame) -> None:
  """Writes the networks' names alternately at the upper and lower edge, each with a line to it."""
  edges = ("high", "max", 0.98, "top"), ("low", "min", 0.02, "bottom")
  for place, (name, there) in enumerate(placed.groupby("architecture", sort=False)):
    end, of, edge, va = edges[place % 2]
    y = there[end].agg(of)
    x = there.x[there[end] == y].iloc[0]
    line = {"arrowstyle": "-", "linewidth": 0.6, "color": "#888888"}
    look: dict[str, Any] = {"rotation": 90, "ha": "center", "va": va, "fontsize": 9}
    transform = axes.get_xaxis_transform()
    axes.annotate(str(name), (x, y), (x, edge), textcoords=transform, arrowprops=line, **look)


def recipes(one: comparisons.RecipeComparison, title: str, picture: pathlib.Path) -> None:
  """Draws a line of dots per recipe, one per seed, and a stroke at their median.

  The axis spans at least 4 points.

  Args:
    one: What to draw; its first recipe is the reference.
    title: Title of the figure.
    picture: The PNG file to write.
  """
  with _figure(0.32 * len(one.points) + 1.5, title, picture) as figure:
    axes = figure.subplots()
    points = seeds.rows(one.points)
    for y, point in enumerate(points):
      place, values, median = (1 if y == 0 else 0), _values(point), point.top1.median
      axes.plot(values, [y] * len(values), alpha=0.6, **_dots(place, 5.5))
      axes.plot([median] * 2, [y - 0.32, y + 0.32], color=_COLOURS[place], linewidth=2.5)
    reference = points[0].top1.median
    axes.axvline(reference, color=_COLOURS[1], linewidth=1, linestyle=":", zorder=0)
    axes.set_yticks(range(len(points)), [_wrapped(_differing(one, p), 50) for p in points])
    low, high = axes.get_xlim()
    missing = max(_SPAN - (high - low), 0)
    axes.set(
      ylim=(len(points) - 0.4, -0.6),
      xlim=(low - missing / 2, high + missing / 2),
      xlabel=f"{_ACCURACY}; a dot per seed, a stroke at the median",
    )
    axes.grid(axis="x", alpha=0.3)


def _differing(one: comparisons.RecipeComparison, point: Any) -> str:
  """Returns the fields in which a recipe differs from the reference; all those of the reference."""
  reference = one.points.texts[0]
  texts = zip(one.fields, point.texts, reference, strict=True)
  if point.texts == reference:
    return f"reference: {', '.join(f'{name} {text}' for name, text, _ in texts)}"
  return ", ".join(f"{name} {text}" for name, text, theirs in texts if text != theirs)


def _values(point: Any) -> list[float]:
  return [100 * run.metrics["top1"] for run in point.runs]


def _dots(place: int, size: float, edge: str = "none") -> dict[str, Any]:
  return {
    "linestyle": "none",
    "marker": _MARKERS[place % len(_MARKERS)],
    "markersize": size,
    "color": _COLOURS[place % len(_COLOURS)],
    "markeredgecolor": edge,
    "markeredgewidth": 0.5,
  }


def _hollow(place: int) -> dict[str, Any]:
  look = _dots(place, 6, edge=_COLOURS[place % len(_COLOURS)])
  return look | {"markerfacecolor": "white", "markeredgewidth": 1.6}


def _line(place: int) -> dict[str, Any]:
  return {**_dots(place, 6), "linestyle": "-", "linewidth": 1.6}


def _legend(figure: "Figure", handles: dict[str, Any]) -> None:
  """Puts a legend below the panels, where it hides nothing, a line for each long name.

  Args:
    figure: The figure.
    handles: {label: artist}.
  """
  labels = [_wrapped(label, _LINE) for label in handles]
  longest = max(len(line) for label in labels for line in label.splitlines())
  columns = max(1, min(len(handles), math.floor(10 * _WIDTH / (0.8 * longest + 7))))
  artists, where = list(handles.values()), "outside lower center"
  plots.legend(figure, artists, labels, loc=where, ncols=columns, frameon=False)


def _wrapped(text: str, width: int) -> str:
  return plots.wrapped(text, width, _MOST_LINES)


@contextlib.contextmanager
def _figure(height: float, title: str, picture: pathlib.Path) -> Iterator["Figure"]:
  with plots.figure(picture, (_WIDTH, height), dpi=110) as figure:
    yield figure
    figure.suptitle(_wrapped(title, _LINE), fontsize=11)
