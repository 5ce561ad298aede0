"""`metrics.jsonl`: rows read back as far as they are intact, and drawn as curves.

Each line is a row, one JSON object. A crash may leave zeros, half a line, or half a line
followed by further rows.
"""

import pathlib
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from bit_jax.runtime import json_text, plots

if TYPE_CHECKING:
  from matplotlib.axes import Axes

_RATES = 15  # learning rates that have room on their axis
_TOO_LARGE = 1e100  # nor is NaN less; float32 ends at 3e38
_START = b'{"step"'  # of every row


def read(path: pathlib.Path) -> tuple[list[dict[str, Any]], int]:
  """Reads a file; one that doesn't exist has no rows.

  A last line without a line end was being written when the process was killed: it is left out, and
  not counted as damaged.

  Returns:
    The rows, each with 'step' (int), 'kind' (such as 'train' or 'eval') and finite numbers by name;
    and the number of lines that are not as they were written. A row at the end of such a line is
    among the rows.
  """
  try:
    *lines, _ = path.read_bytes().split(b"\n")
  except FileNotFoundError:
    return [], 0
  parsed = [_parse(line) for line in lines]
  rescued = [
    row or _parse(line[max(0, line.rfind(_START)) :])
    for line, row in zip(lines, parsed, strict=True)
  ]
  return [row for row in rescued if row is not None], parsed.count(None)


def _parse(line: bytes) -> dict[str, Any] | None:
  """Returns the row of a line, None if it is damaged."""
  try:
    row = json_text.parse(line.decode())
    numbers = [value for name, value in row.items() if name != "kind"]
    intact = (
      isinstance(row["kind"], str)
      and type(row["step"]) is int
      and {"loss", "top1"} <= row.keys()
      and all(type(v) in (int, float) and abs(v) < _TOO_LARGE for v in numbers)
    )
  except (ValueError, AttributeError, KeyError):  # the second: no JSON object
    return None
  return row if intact else None


def draw(metrics: pathlib.Path, picture: pathlib.Path, title: str, evaluated: str) -> None:
  """Draws loss, accuracy and learning rate against steps.

  Args:
    metrics: The run's `metrics.jsonl`.
    picture: The PNG file to write.
    title: Above the picture.
    evaluated: The name of the evaluated images, such as 'test images'.
  """
  rows = sorted(read(metrics)[0], key=lambda row: row["step"])
  kinds: list[tuple[str, str, dict[str, Any]]] = [
    ("train", "training, as augmented", {"color": plots.BLUE, "marker": ".", "markersize": 3}),
    ("val", "validation images", {"color": plots.GREEN, "marker": "s"}),
    ("eval", evaluated, {"color": plots.ORANGE, "marker": "o"}),
  ]
  if not any(row["kind"] == "val" for row in rows):
    del kinds[1]
  with plots.figure(picture, (12, 3.6), dpi=120) as figure:
    loss, accuracy, rate = figure.subplots(1, 3)
    for kind, label, style in kinds:
      loss.plot(*_series(rows, kind, "loss"), label=label, **style)
      steps, top1 = _series(rows, kind, "top1")
      accuracy.plot(steps, [100 * v for v in top1], label=label, **style)
    _draw_rates(rate, *_series(rows, "train", "learning_rate"))
    loss.set_ylabel("cross-entropy")
    accuracy.set_ylabel("top-1 accuracy in %")
    for axes in (loss, accuracy, rate):
      axes.set_xlabel("step")
      axes.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
      axes.grid(alpha=0.3)
    handles, labels = loss.get_legend_handles_labels()
    plots.legend(figure, handles, labels, loc="outside lower center", ncols=len(kinds))
    plots.set_title(figure, title)


def _series(rows: list[dict[str, Any]], kind: str, name: str) -> tuple[list[int], list[float]]:
  chosen = [r for r in rows if r["kind"] == kind and name in r]
  return [r["step"] for r in chosen], [r[name] for r in chosen]


def _draw_rates(axes: "Axes", steps: Sequence[int], rates: Sequence[float]) -> None:
  """Draws learning rates on a logarithmic axis, which can't show a rate of 0."""
  drawn = np.array(rates, float)
  if (drawn > 0).any():
    drawn[drawn <= 0] = np.nan  # or a line would leave the picture at its lower edge
  axes.plot(steps, drawn, color=plots.BLUE, marker=".", markersize=3, drawstyle="steps-pre")
  axes.set_ylabel("learning rate")
  positive = Counter(r for r in rates if r > 0)
  if not positive:
    return
  low, high = min(positive) / 2, 2 * max(positive)
  decades = np.log10(high / low)
  plots.set_log_scale(axes, "y", (1, 2, 5) if decades < 2 else (1, 3) if decades < 5 else (1,))
  axes.set_ylim(low, high)
  # All rates if they are few, else the last one and those that were kept for a while.
  kept = {r for r, times in positive.items() if times > 1 or r == rates[-1]}
  for shown in map(sorted, (positive, kept)):
    gaps = np.diff(np.log10(shown))
    if len(positive) == 1 or (len(shown) > 1 and gaps.min() > decades / _RATES):
      axes.set_yticks(shown)
      break
