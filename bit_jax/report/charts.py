"""Line charts as inline SVG: sharp at any size, in the colours of the page, light or dark."""

import dataclasses
import math
from collections.abc import Sequence

import markupsafe

Points = Sequence[tuple[float, float]]
_WIDTH, _HEIGHT = 360, 220  # of the drawing; the page shows it at about this size on a phone
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 14, 12, 36  # margins around the axes
_MOST_POINTS = 400  # of a line; of more, the mean of neighbours is drawn
_MOST_MARKED = 60  # points that have room for a mark each
_TICKS = 5
_LEAST = 1e-100  # what is less is 0 in a chart


@dataclasses.dataclass(frozen=True)
class Line:
  """One line of a chart.

  Attributes:
    name: What it shows.
    style: Its colour and mark: 'train', 'val' or 'test'.
    points: (x, y), sorted by x.
    stepped: Whether a value holds from the point before on.
  """

  name: str
  style: str
  points: Points
  stepped: bool = False


def draw(
  title: str,
  lines: Sequence[Line],
  *,
  unit: str = "",
  logarithmic: bool = False,
  low: float | None = None,
  high: float | None = None,
) -> markupsafe.Markup:
  """Returns a chart of lines against steps, as an SVG element that also says it in words.

  Args:
    title: What is drawn.
    lines: The lines; those without points are left out.
    unit: Follows each number, such as '%'.
    logarithmic: Whether the vertical axis is; values that aren't above 1e-100 are then left out.
    low: Lower end of the vertical axis at most.
    high: Upper end of the vertical axis at least.

  Returns:
    '' if there are no points.
  """
  drawn = []
  for line in lines:
    points = [p for p in line.points if not logarithmic or p[1] > _LEAST]
    if points:
      drawn.append(dataclasses.replace(line, points=thinned(points)))
  if not drawn:
    return markupsafe.Markup("")
  xs = [x for line in drawn for x, _ in line.points]
  ys = [y for line in drawn for _, y in line.points]
  x_ticks = [t for t in _ticks(min(0.0, *xs), max(1.0, *xs)) if t == int(t)]
  bottom, top = (
    min([*ys, *([] if low is None else [low])]),
    max([*ys, *([] if high is None else [high])]),
  )
  y_ticks = _log_ticks(bottom, top) if logarithmic else _ticks(bottom, top)
  x_axis = _Axis(min(0.0, *xs), max(1.0, *xs), _LEFT, _WIDTH - _RIGHT)
  ends = min(bottom, y_ticks[0]), max(top, y_ticks[-1])
  y_axis = _Axis(*ends, _HEIGHT - _BOTTOM, _TOP, logarithmic)
  parts = [_grid(x_axis, y_axis, x_ticks, y_ticks, unit)]
  parts += [_line(line, x_axis, y_axis, unit) for line in drawn]
  text = "; ".join(
    f"{line.name}: {format_number(line.points[0][1])}{unit} at step {line.points[0][0]:,.0f}, "
    f"{format_number(line.points[-1][1])}{unit} at step {line.points[-1][0]:,.0f}"
    for line in drawn
  )
  label = markupsafe.escape(f"{title} against steps. {text}.")
  body = "".join(parts)
  box = f'viewBox="0 0 {_WIDTH} {_HEIGHT}"'
  return markupsafe.Markup(f'<svg class="chart" {box} role="img" aria-label="{label}">{body}</svg>')


def thinned(points: Points, most: int = _MOST_POINTS) -> list[tuple[float, float]]:
  """Returns at most `most` points: of more, means of neighbours, each at the last one's x.

  The last point stays as it is.
  """
  if len(points) <= most:
    return list(points)
  width = math.ceil((len(points) - 1) / (most - 1))
  groups = [points[i : min(i + width, len(points) - 1)] for i in range(0, len(points) - 1, width)]
  means = [(group[-1][0], math.fsum(y for _, y in group) / len(group)) for group in groups]
  return [*means, points[-1]]


def format_number(value: float) -> str:
  """Returns a number as short text: '12,345', '0.125', '3e-5'."""
  if abs(value) >= 1000:
    return f"{value:,.0f}" if abs(value) < 1e9 else f"{value:.3g}"
  if 0 < abs(value) < 0.001:
    digits, _, power = f"{value:.2e}".partition("e")
    return f"{float(digits):g}e{int(power)}"
  return f"{value:.3g}"


@dataclasses.dataclass(frozen=True)
class _Axis:
  """Places values between two ends of the drawing."""

  low: float
  high: float
  start: float
  end: float
  logarithmic: bool = False

  def __call__(self, value: float) -> float:
    low, high = self.low, self.high
    if self.logarithmic:
      low, high, value = math.log10(low), math.log10(high), math.log10(value)
    share = (value - low) / (high - low) if high > low else 0.5
    return round(self.start + share * (self.end - self.start), 1)


def _ticks(low: float, high: float) -> list[float]:
  """Returns round numbers at equal distances that enclose both ends."""
  if high <= low:
    low, high = low - (abs(low) or 1.0) / 2, high + (abs(high) or 1.0) / 2
  raw = max((high - low) / _TICKS, _LEAST)
  power = 10.0 ** math.floor(math.log10(raw))
  step = next(power * m for m in (1, 2, 2.5, 5, 10) if power * m >= raw * 0.999)
  first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
  return [round(i * step, 12) for i in range(first, last + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
  """Returns powers of ten, over few decades with 2 and 5 times as much, that enclose both ends."""
  first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
  factors = (1, 2, 5) if last - first <= 2 else (1,)
  every = -(-(last - first) // (2 * _TICKS)) or 1
  powers = range(first - every, last + every + 1, every)
  ticks = [f * 10.0**power for power in powers for f in factors]
  start = max(i for i, t in enumerate(ticks) if t <= low * 1.0001)
  stop = min(i for i, t in enumerate(ticks) if t >= high * 0.9999 and i > start)
  return ticks[start : stop + 1]


def _grid(x_axis: _Axis, y_axis: _Axis, xs: Sequence[float], ys: Sequence[float], unit: str) -> str:
  left, right, bottom = x_axis.start, x_axis.end, y_axis.start
  parts = []
  for y in ys:
    at = y_axis(y)
    parts.append(f'<path class="grid" d="M{left} {at}H{right}"/>')
    parts.append(f'<text x="{left - 6}" y="{at + 4}" class="end">{format_number(y)}{unit}</text>')
  for x in xs:
    if x_axis.low <= x <= x_axis.high:
      at = x_axis(x)
      parts.append(f'<path class="grid" d="M{at} {bottom}v4"/>')
      parts.append(f'<text x="{at}" y="{bottom + 17}" class="mid">{x:,.0f}</text>')
  parts.append(f'<path class="axis" d="M{left} {bottom}H{right}"/>')
  parts.append(f'<text x="{(left + right) / 2}" y="{_HEIGHT - 4}" class="mid">step</text>')
  return "".join(parts)


def _line(line: Line, x_axis: _Axis, y_axis: _Axis, unit: str) -> str:
  places = [(x_axis(x), y_axis(y)) for x, y in line.points]
  path = f"M{places[0][0]:g} {places[0][1]:g}"
  for x, y in places[1:]:
    path += f"V{y:g}H{x:g}" if line.stepped else f"L{x:g} {y:g}"
  parts = [f'<path class="line {line.style}" d="{path}"/>'] if len(places) > 1 else []
  if len(places) == 1 or (line.style != "train" and len(places) <= _MOST_MARKED):
    for (at, y_at), (x, y) in zip(places, line.points, strict=True):
      title = markupsafe.escape(f"{line.name}, step {x:,.0f}: {format_number(y)}{unit}")
      shape = (
        f'<rect x="{at - 3.2:g}" y="{y_at - 3.2:g}" width="6.4" height="6.4"'
        if line.style == "val"
        else f'<circle cx="{at:g}" cy="{y_at:g}" r="3.6"'
      )
      parts.append(
        f'{shape} class="mark {line.style}"><title>{title}</title>{_END[line.style == "val"]}'
      )
  return "".join(parts)


_END = {True: "</rect>", False: "</circle>"}
