"""The report's figures, readable at their own size and whatever the reader's colour vision."""

import contextlib
import itertools
import math
import pathlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from bit_jax.runtime import plots
from experiments.results import curves, fields, model_sizes, recipe_comparisons, seeds, vtab_means

if TYPE_CHECKING:
  from matplotlib.axes import Axes
  from matplotlib.figure import Figure

# Okabe and Ito's colours, but for yellow, which is pale on white; each with a marker of its own.
# There is a marker more than there are colours, so 56 networks look different.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
_ACCURACY = "top-1 accuracy in %"
_COLUMNS = 2  # panels side by side
_DODGE = 1.12  # from the first network's dots to the last one's, as a factor
_LINE = 95  # characters of a line that fit
_MOST_LINES = 8  # that a text takes
_SPAN = 4.0  # points that recipes' axis has at least: a few tenths must not look decisive
_WIDTH = 9.0  # inches, of all figures


def few_shot(panels: Sequence[curves.Panel], title: str, picture: pathlib.Path) -> None:
  """Draws accuracy against examples of each class: each seed a dot, the medians a line.

  A median of fewer seeds than others on its line have is hollow, and what leads to it dashed.

  Args:
    panels: One for each data set, by one recipe.
    title: Above the picture.
    picture: The PNG file to write.
  """
  columns = min(_COLUMNS, len(panels))
  rows = -(-len(panels) // columns)
  ranks = {name: seeds.rank(points[0]) for p in panels for name, points in p.series.items()}
  networks = sorted(ranks, key=lambda name: ranks[name])
  marks = [*((name, _line(i)) for i, name in enumerate(networks)), *_kinds(panels)]
  with _figure(3.6 * rows + 0.9 + 0.2 * len(marks), title, picture) as figure:
    from matplotlib.lines import Line2D

    every = figure.subplots(rows, columns, squeeze=False).flat
    for axes, panel in itertools.zip_longest(every, panels):
      if panel is None:
        axes.set_axis_off()
        continue
      _draw_curves(axes, panel, networks)
    lines = [Line2D([], [], **look) for _, look in marks]
    _legend(figure, lines, [label for label, _ in marks])


def _draw_curves(axes: "Axes", panel: curves.Panel, networks: Sequence[str]) -> None:
  ticks = {}
  for name, points in panel.series.items():
    place = networks.index(name)
    shift = _DODGE ** (place / (len(networks) - 1) - 0.5) if len(networks) > 1 else 1.0
    numbers = [curves.per_class(p) for p in points]
    for number, point in zip(numbers, points, strict=True):
      full = point.runs[0].shots is None
      ticks[number] = f"full\n({number:,.0f})" if full else f"{number:g}"
      values = [100 * run.metrics["top1"] for run in point.runs]
      axes.plot([number * shift] * len(values), values, alpha=0.45, **_dots(place, 4.5))
    _draw_medians(axes, [n * shift for n in numbers], points, place)
  axes.set_xscale("log")
  axes.set_xticks(list(ticks), list(ticks.values()))
  axes.set_xticks([], minor=True)
  low, high = min(ticks), max(ticks)
  margin = (
    1.5 if high > low else 10.0
  )  # beside one number, what is set apart must not look like two
  axes.set_xlim(low / margin, high * margin)
  axes.set_xlabel("training images of each class")
  axes.set_ylabel(_ACCURACY)
  axes.grid(alpha=0.3)
  held_out = "" if panel.protocol == "final" else " (held-out part of train)"
  axes.set_title(_wrapped(f"{panel.dataset}{held_out}", _LINE // 2))


def _draw_medians(
  axes: "Axes", xs: Sequence[float], points: Sequence[seeds.Point], place: int
) -> None:
  places = [
    (x, p.top1.median, fewer)
    for x, p, fewer in zip(xs, points, curves.fewer_seeds(points), strict=True)
  ]
  for (x1, y1, fewer1), (x2, y2, fewer2) in itertools.pairwise(places):
    style = _line(place) | {"marker": "none", "linestyle": "--" if fewer1 or fewer2 else "-"}
    axes.plot([x1, x2], [y1, y2], **style)
  for x, y, fewer in places:
    axes.plot([x], [y], **(_hollow(place) if fewer else _dots(place, 6)))


def _kinds(panels: Iterable[curves.Panel]) -> Iterator[tuple[str, dict[str, Any]]]:
  """Yields what a legend says of dots and lines, whatever their colour, and how they look."""
  every = [points for panel in panels for points in panel.series.values()]
  grey = {"color": "#555555", "marker": "o"}
  yield "one seed", _dots(0, 4.5) | grey | {"alpha": 0.45}
  few = [p for c in every for p, less in zip(c, curves.fewer_seeds(c), strict=True) if less]
  if few:
    counts = sorted({p.top1.count for p in few})
    shown = " or ".join(map(str, counts)) if len(counts) < 3 else f"{counts[0]} to {counts[-1]}"
    dashed = {**grey, "markeredgecolor": grey["color"], "linestyle": "--"}
    yield f"fewer seeds than elsewhere on the line: {shown}", _hollow(0) | dashed


def vtab(scores: Sequence[vtab_means.Score], title: str, picture: pathlib.Path) -> None:
  """Draws a bar for each task and network, its median; whiskers to the extremes, seeds as dots.

  Args:
    scores: One for each network, by one recipe.
    title: Above the picture.
    picture: The PNG file to write.
  """
  tasks = [
    t for t in itertools.chain(*vtab_means.GROUPS.values()) if any(t in s.tasks for s in scores)
  ]
  positions = _grouped_positions(tasks)
  height = 0.8 / len(scores)
  inches = (0.22 + 0.13 * len(scores)) * (max(positions.values()) + 1)
  with _figure(inches + 1.5 + 0.25 * len(scores), title, picture) as figure:
    axes, bars = figure.subplots(), []
    for place, score in enumerate(scores):
      offset = (place - (len(scores) - 1) / 2) * height
      at = [positions[t] + offset for t in score.tasks]
      points = list(score.tasks.values())
      colour = _COLOURS[place % len(_COLOURS)]
      medians = [p.top1.median for p in points]
      hatch = "//" * (place // len(_COLOURS))
      look: dict[str, Any] = {"color": colour, "edgecolor": colour, "hatch": hatch, "alpha": 0.55}
      bars.append(axes.barh(at, medians, 0.9 * height, **look))
      for y, point in zip(at, points, strict=True):
        _whisker(axes, point, y, place, "black")
    axes.set_yticks([positions[t] for t in tasks], tasks)
    for group, members in vtab_means.GROUPS.items():
      there = [positions[t] for t in members if t in positions]
      if there:
        axes.text(0.5, min(there) - 0.85, group, fontweight="bold", va="center")
    axes.set_ylim(max(positions.values()) + 0.6, -1.3)
    axes.set_xlim(0, 100)
    axes.set_xlabel(_ACCURACY)
    axes.grid(axis="x", alpha=0.3)
    _legend(figure, bars, [f"{s.network}: {_of_tasks(s.means['all'])}" for s in scores])


def _of_tasks(mean: vtab_means.Mean) -> str:
  kind = "score" if mean.is_complete else "mean of those run"
  return f"{kind} {mean.value:.1f} ({mean.done} of {mean.of} tasks)"


def _grouped_positions(tasks: Iterable[str]) -> dict[str, float]:
  """Returns the place of each task, with room for a heading before each group."""
  place, result = 0.0, {}
  tasks = set(tasks)
  for members in vtab_means.GROUPS.values():
    there = [t for t in members if t in tasks]
    for task in there:
      result[task] = place
      place += 1
    place += 1 if there else 0
  return result


def sizes(one: model_sizes.Sizes, cost: str, title: str, picture: pathlib.Path) -> None:
  """Draws accuracy against parameters, and against the time that the steps of a run took.

  Args:
    one: What to draw, a line for each number of examples.
    cost: What took the time, and on what device.
    title: Above the picture.
    picture: The PNG file to write.
  """
  ordered = sorted(one.series.items(), key=lambda item: (item[0] is None, item[0] or 0))
  labels = ["all examples" if shots is None else f"{shots}-shot" for shots, _ in ordered]
  with _figure(4.8, title, picture) as figure:
    by_size, by_cost = figure.subplots(1, 2, sharey=True)
    for axes, position in ((by_size, _millions), (by_cost, _seconds)):
      for place, (_, there) in enumerate(ordered):
        placed = sorted(there, key=position)
        xs = [position(size) for size in placed]
        axes.plot(xs, [size.value for size in placed], **_line(place))
        colour = _COLOURS[place % len(_COLOURS)]
        axes.vlines(xs, [s.low for s in placed], [s.high for s in placed], color=colour)
      _name_sizes(axes, [size for _, there in ordered for size in there], position)
    by_size.set_xlabel("parameters in millions, without head")
    by_cost.set_xlabel(_wrapped(f"{cost}, in s", _LINE // 2))
    by_size.set_ylabel(_ACCURACY)
    for axes in (by_size, by_cost):
      axes.margins(0.22, 0.25)
      axes.grid(alpha=0.3)
      low, high = axes.get_xlim()
      plots.set_log_scale(axes, "x", (1, 2, 5) if high < 300 * low else (1,))
    low, high = by_size.get_ylim()
    by_size.set_yticks([y for y in by_size.get_yticks() if max(low, 0) <= y <= min(high, 100)])
    if len(ordered) > 1:
      _legend(figure, by_size.get_lines(), labels)


def _millions(size: model_sizes.Size) -> float:
  return size.parameters / 1e6


def _seconds(size: model_sizes.Size) -> float:
  return size.seconds


def _name_sizes(
  axes: "Axes", every: Sequence[model_sizes.Size], position: Callable[[model_sizes.Size], float]
) -> None:
  """Writes the networks' names by turns at the upper and the lower edge, each with a line to it."""
  there: dict[str, list[model_sizes.Size]] = defaultdict(list)
  for size in sorted(every, key=position):
    there[size.architecture].append(size)
  for place, (name, sizes_of) in enumerate(there.items()):
    above = place % 2 == 0
    last = max(sizes_of, key=lambda s: s.high) if above else min(sizes_of, key=lambda s: s.low)
    axes.annotate(
      name,
      (position(last), last.high if above else last.low),
      (position(last), 0.98 if above else 0.02),
      textcoords=axes.get_xaxis_transform(),
      arrowprops={"arrowstyle": "-", "linewidth": 0.6, "color": "#888888"},
      rotation=90,
      ha="center",
      va="top" if above else "bottom",
      fontsize=9,
    )


def comparison(one: recipe_comparisons.Comparison, title: str, picture: pathlib.Path) -> None:
  """Draws a line of dots for each recipe, one for each seed, and a stroke at their median.

  The axis has at least 4 points.

  Args:
    one: What to draw; its first recipe is what the others are compared with.
    title: Above the picture.
    picture: The PNG file to write.
  """
  with _figure(0.32 * len(one.rows) + 1.5, title, picture) as figure:
    axes = figure.subplots()
    own, first = one.rows[0]
    for y, (_, point) in enumerate(one.rows):
      place = 1 if y == 0 else 0
      top1 = [100 * run.metrics["top1"] for run in point.runs]
      axes.plot(top1, [y] * len(top1), alpha=0.6, **_dots(place, 5.5))
      median = point.top1.median
      axes.plot([median] * 2, [y - 0.32, y + 0.32], color=_COLOURS[place], linewidth=2.5)
    axes.axvline(first.top1.median, color=_COLOURS[1], linewidth=1, linestyle=":", zorder=0)
    labels = [_differing(one.fields, values, own) for values, _ in one.rows]
    axes.set_yticks(range(len(labels)), [_wrapped(t, 50) for t in labels])
    axes.set_ylim(len(labels) - 0.4, -0.6)
    low, high = axes.get_xlim()
    missing = max(_SPAN - (high - low), 0)
    axes.set_xlim(low - missing / 2, high + missing / 2)
    axes.set_xlabel(f"{_ACCURACY}; a dot a seed, a stroke the median")
    axes.grid(axis="x", alpha=0.3)


def _differing(names: Sequence[str], values: Sequence[Any], own: Sequence[Any]) -> str:
  """Returns what a recipe has that the reference hasn't; of that all."""
  is_own = values == own
  changed = [(n, v) for n, v, o in zip(names, values, own, strict=True) if is_own or v != o]
  listed = ", ".join(f"{name} {shown(value)}" for name, value in changed)
  return f"reference: {listed}" if is_own else listed


def shown(value: Any) -> str:
  """Returns a field's value as it is shown."""
  if isinstance(value, bool):
    return "on" if value else "off"
  return f"{value:g}" if isinstance(value, float) else fields.plain(value)


def _whisker(axes: "Axes", point: seeds.Point, y: float, place: int, colour: str) -> None:
  if point.top1.count > 1:
    axes.plot([point.top1.low, point.top1.high], [y, y], color=colour, linewidth=1)
  values = [100 * run.metrics["top1"] for run in point.runs]
  axes.plot(values, [y] * len(values), **_dots(place, 3.5, edge="black"))


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


def _hollow(place: int) -> dict[str, Any]:
  colour = _COLOURS[place % len(_COLOURS)]
  hollow = {"markerfacecolor": "white", "markeredgecolor": colour, "markeredgewidth": 1.6}
  return _dots(place, 6) | hollow


def _line(place: int) -> dict[str, Any]:
  return {**_dots(place, 6), "linestyle": "-", "linewidth": 1.6}


def _legend(figure: "Figure", handles: Sequence[Any], labels: Sequence[str]) -> None:
  """Puts the legend below the panels, where it hides nothing, a line for each long name."""
  labels = [_wrapped(label, _LINE) for label in labels]
  longest = max(len(line) for label in labels for line in label.splitlines())
  columns = max(1, min(len(handles), math.floor(10 * _WIDTH / (0.8 * longest + 7))))
  plots.legend(figure, handles, labels, loc="outside lower center", ncols=columns, frameon=False)


def _wrapped(text: str, width: int) -> str:
  return plots.wrapped(text, width, _MOST_LINES)


@contextlib.contextmanager
def _figure(height: float, title: str, picture: pathlib.Path) -> Iterator["Figure"]:
  with plots.figure(picture, (_WIDTH, height), dpi=110) as figure:
    yield figure
    figure.suptitle(_wrapped(title, _LINE), fontsize=11)
