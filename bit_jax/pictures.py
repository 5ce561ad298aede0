"""Pictures of a run: its curves, and sheets of images with captions."""

import json
import pathlib
import textwrap
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

# Blue and orange can be told apart whatever the reader's colour vision (Okabe and Ito).
_TRAIN, _EVAL = "#0072B2", "#D55E00"
_NAMED_CLASSES = 40
_CAPTION_WIDTH = 18  # characters that fit above an image
_NAME_WIDTH = 24  # characters of a class name that leave room for the matrix beside it


def curves(metrics: pathlib.Path, picture: pathlib.Path, title: str) -> None:
  """Draws loss, accuracy and learning rate against steps.

  Args:
    metrics: The run's `metrics.jsonl`.
    picture: The PNG file to write.
    title: Above the picture.
  """
  rows = [json.loads(line) for line in metrics.read_text().splitlines()]
  figure = Figure(figsize=(12, 3.6), layout="constrained")
  loss, accuracy, rate = figure.subplots(1, 3)
  for kind, label, style in (
    ("train", "training, as augmented", {"color": _TRAIN, "marker": ".", "markersize": 3}),
    ("eval", "evaluated images", {"color": _EVAL, "marker": "o"}),
  ):
    loss.plot(*_series(rows, kind, "loss"), label=label, **style)
    steps, top1 = _series(rows, kind, "top1")
    accuracy.plot(steps, [100 * v for v in top1], label=label, **style)
  rate.plot(
    *_series(rows, "train", "learning_rate"),
    color=_TRAIN,
    marker=".",
    markersize=3,
    drawstyle="steps-pre",
  )
  for axes, name in ((loss, "cross-entropy"), (accuracy, "top-1 accuracy in %")):
    axes.set_ylabel(name)
    axes.legend()
  rate.set_ylabel("learning rate")
  for axes in (loss, accuracy, rate):
    axes.set_xlabel("step")
    axes.grid(alpha=0.3)
  figure.suptitle(title)
  figure.savefig(picture, dpi=120)


def sheet(
  images: np.ndarray, captions: Sequence[str], picture: pathlib.Path, title: str, columns: int = 8
) -> None:
  """Draws images in rows with a caption above each.

  Args:
    images: [N, H, W, 3], uint8 or float32 in [-1, 1].
    captions: N texts; one that starts with '!' is drawn in the colour of a mistake, without it.
      What doesn't fit on two lines is cut.
    picture: The PNG file to write.
    title: Above the picture.
    columns: Images in a row.
  """
  if images.dtype != np.uint8:
    images = np.clip((images + 1) / 2, 0, 1)
  rows = -(-len(images) // columns)
  figure = Figure(figsize=(1.5 * columns, 1.75 * rows + 0.4), layout="constrained")
  for axes in figure.subplots(rows, columns, squeeze=False).flat:
    axes.set_axis_off()
  for axes, image, caption in zip(figure.axes, images, captions, strict=False):
    axes.imshow(image)
    colour = _EVAL if caption.startswith("!") else "black"
    lines = textwrap.wrap(caption.removeprefix("!"), _CAPTION_WIDTH, max_lines=2, placeholder=" …")
    axes.set_title("\n".join(lines), fontsize=9, color=colour, parse_math=False)
  figure.suptitle(title)
  with mpl.rc_context({"savefig.bbox": None}):
    figure.savefig(picture, dpi=110)


def confusion(shares: np.ndarray, class_names: Sequence[str], picture: pathlib.Path) -> None:
  """Draws a confusion matrix.

  Args:
    shares: [C, C] in [0, 1]: of each class (row), the share that was taken for each class (column).
    class_names: C names; they are written beside up to 40 classes, their beginnings if they are
      long, and numbers beside more.
    picture: The PNG file to write.
  """
  count = len(class_names)
  named = count <= _NAMED_CLASSES
  side = max(4.0, 0.3 * count + 1.5) if named else 9.0
  figure = Figure(figsize=(side + 1, side), layout="constrained")
  axes = figure.subplots()
  drawn = axes.imshow(100 * shares, cmap="cividis", vmin=0, vmax=100)
  if named:
    names = [n if len(n) <= _NAME_WIDTH else f"{n[: _NAME_WIDTH - 1]}…" for n in class_names]
    axes.set_xticks(range(count), names, rotation=90, fontsize=8, parse_math=False)
    axes.set_yticks(range(count), names, fontsize=8, parse_math=False)
  axes.set_xlabel("predicted class")
  axes.set_ylabel("class")
  figure.colorbar(drawn, ax=axes, label="% of the images of a class")
  figure.savefig(picture, dpi=110)


def _series(rows: list[dict[str, Any]], kind: str, name: str) -> tuple[list[int], list[float]]:
  chosen = [r for r in rows if r["kind"] == kind and name in r]
  return [r["step"] for r in chosen], [r[name] for r in chosen]
