"""Pictures of a run: its curves, and sheets of images with captions."""

import pathlib
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from bit_jax.runs import metrics_log
from bit_jax.runtime import plots

if TYPE_CHECKING:
  from matplotlib.axes import Axes

_NAMED_CLASSES = 40
_NUMBERED_CLASSES = 15  # classes whose cells have room for a number
_RATES = 15  # learning rates that have room on their axis
_NAME_WIDTH = 24  # characters of a class name that leave room for the matrix beside it


def curves(metrics: pathlib.Path, picture: pathlib.Path, title: str, evaluated: str) -> None:
  """Draws loss, accuracy and learning rate against steps.

  Args:
    metrics: The run's `metrics.jsonl`.
    picture: The PNG file to write.
    title: Above the picture.
    evaluated: What the images are that are evaluated, such as 'test images'.
  """
  rows = sorted((row for _, row in metrics_log.read(metrics).rows), key=lambda row: row["step"])
  with plots.figure(picture, (12, 3.6), dpi=120) as figure:
    loss, accuracy, rate = figure.subplots(1, 3)
    has_val = any(row["kind"] == "val" for row in rows)
    kinds: list[tuple[str, str, dict[str, Any]]] = [
      ("train", "training, as augmented", {"color": plots.BLUE, "marker": ".", "markersize": 3}),
      ("eval", evaluated, {"color": plots.ORANGE, "marker": "o"}),
    ]
    if has_val:
      kinds.insert(1, ("val", "validation images", {"color": plots.GREEN, "marker": "s"}))
    for kind, label, style in kinds:
      loss.plot(*_series(rows, kind, "loss"), label=label, **style)
      steps, top1 = _series(rows, kind, "top1")
      accuracy.plot(steps, [100 * v for v in top1], label=label, **style)
    _draw_rates(rate, *_series(rows, "train", "learning_rate"))
    for axes, name in ((loss, "cross-entropy"), (accuracy, "top-1 accuracy in %")):
      axes.set_ylabel(name)
    for axes in (loss, accuracy, rate):
      axes.set_xlabel("step")
      axes.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
      axes.grid(alpha=0.3)
    handles, labels = loss.get_legend_handles_labels()
    plots.legend(figure, handles, labels, loc="outside lower center", ncols=len(kinds))
    plots.set_title(figure, title)


def _draw_rates(axes: "Axes", steps: Sequence[int], rates: Sequence[float]) -> None:
  """Draws learning rates on a logarithmic axis, which has no place for a rate of 0."""
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
  # All rates if they are few, or else those that were kept for a while and the last.
  kept = {r for r, times in positive.items() if times > 1 or r == rates[-1]}
  for shown in map(sorted, (positive, kept)):
    gaps = np.diff(np.log10(shown))
    if len(positive) == 1 or (len(shown) > 1 and gaps.min() > decades / _RATES):
      axes.set_yticks(shown)
      break


def confusion(
  shares: np.ndarray, class_names: Sequence[str], picture: pathlib.Path, title: str
) -> None:
  """Draws a confusion matrix.

  Args:
    shares: [C, C] in [0, 1]: of each class (row), the share that was taken for each class (column).
    class_names: C names; they are written beside up to 40 classes, their beginnings if they are
      long, and numbers beside more.
    picture: The PNG file to write.
    title: Above the picture.
  """
  count = len(class_names)
  named = count <= _NAMED_CLASSES
  cell = 0.4 if count <= _NUMBERED_CLASSES else 0.3
  side = max(4.0, cell * count + 1.5) if named else 9.0
  with plots.figure(picture, (side + 1, side), dpi=110) as figure:
    axes = figure.subplots()
    drawn = axes.imshow(100 * shares, cmap="cividis", vmin=0, vmax=100)
    if named:
      names = [plots.cut(name, _NAME_WIDTH) for name in class_names]
      axes.set_xticks(range(count), names, rotation=90, fontsize=8)
      axes.set_yticks(range(count), names, fontsize=8)
      edges = np.arange(1, count) - 0.5
      axes.hlines(edges, -0.5, count - 0.5, color="white", linewidth=0.6)
      axes.vlines(edges, -0.5, count - 0.5, color="white", linewidth=0.6)
    if count <= _NUMBERED_CLASSES:
      _write_shares(axes, shares)
    axes.set_xlabel("predicted class")
    axes.set_ylabel("class")
    figure.colorbar(drawn, ax=axes, label="% of the images of a class")
    plots.set_title(figure, title)


def _write_shares(axes: "Axes", shares: np.ndarray) -> None:
  """Writes the percentages into the cells that have any."""
  for row, column in zip(*np.nonzero(shares), strict=True):
    share = shares[row, column]
    text = f"{100 * share:.0f}" if share >= 0.005 else "<1"
    colour = "black" if share > 0.5 else "white"  # on yellow, on blue
    axes.text(column, row, text, ha="center", va="center", fontsize=8, color=colour)


def _series(rows: list[dict[str, Any]], kind: str, name: str) -> tuple[list[int], list[float]]:
  chosen = [r for r in rows if r["kind"] == kind and name in r]
  return [r["step"] for r in chosen], [r[name] for r in chosen]
