"""Predictions for image files: the most probable classes, as text, JSON, CSV or a picture."""

import csv
import dataclasses
import io
import json
import pathlib
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from bit_jax.data import images, resizing, stream
from bit_jax.inference import inputs, outputs
from bit_jax.runtime import errors, plots

CSV_HEADER = "path,rank,label,class,probability\n"
SHEET = 96  # images on a sheet
_COLUMNS = 8
_TILE = 160  # pixels of an image on the sheet
_WIDEST = 60  # characters to which paths are padded


@dataclasses.dataclass(frozen=True)
class Prediction:
  """The most probable classes of an image, or why there are none.

  Attributes:
    path: The image file, as in `inputs.Files`.
    labels: [K] indices of classes, the most probable one first.
    probabilities: [K] in [0, 1]: the softmax over all classes.
    error: A sentence if the image can't be read; there are then no classes.
  """

  path: str
  labels: tuple[int, ...] = ()
  probabilities: tuple[float, ...] = ()
  error: str | None = None


def top(found: outputs.Outputs, count: int) -> tuple[np.ndarray, np.ndarray]:
  """Returns the most probable classes of each image.

  Args:
    found: What a network computes from B images, for C classes.
    count: Number of classes, at least 1; no more than C are returned.

  Returns:
    labels: [B, K] int64, the most probable first; of equal ones the first, as in `argmax`.
    probabilities: [B, K] float32 in [0, 1], of all C classes.

  Raises:
    UserError: A logit isn't finite.
  """
  logits = found.logits
  if not np.isfinite(logits).all():
    raise errors.UserError("The network's outputs are not finite: its weights are damaged.")
  count = min(count, logits.shape[1])
  least = np.partition(logits, -count, axis=1)[:, -count]
  labels = np.empty((len(logits), count), np.int64)
  for place, (row, bound) in enumerate(zip(logits, least, strict=True)):
    candidates = np.flatnonzero(row >= bound)
    labels[place] = candidates[np.argsort(-row[candidates], kind="stable")][:count]
  return labels, np.take_along_axis(found.probabilities, labels, axis=1)


def predict(
  forward: outputs.Forward,
  files: inputs.Files,
  count: int,
  report: Callable[[int], object] = lambda _: None,
) -> Iterator[Prediction]:
  """Yields the prediction for each file, in order, while later ones are decoded.

  Args:
    forward: The network.
    files: The images.
    count: Number of classes, as in `top`.
    report: Called with the number of images of each batch when it has been sent.
  """
  unreadable: dict[int, str] = {}
  done = 0

  def missing(stop: int) -> Iterator[Prediction]:
    """Yields the unreadable images before `stop` that come next."""
    for index in range(done, stop):
      yield Prediction(files.paths[index], error=unreadable.pop(index))

  for batch in forward.run(
    files, unreadable, image_size=files.kept_size(forward.size), report=report
  ):
    found = zip(batch.indices.tolist(), *top(batch, count), strict=True)
    for index, labels, probabilities in found:
      yield from missing(index)
      yield Prediction(files.paths[index], tuple(labels.tolist()), tuple(probabilities.tolist()))
      done = index + 1
  yield from missing(len(files))


def as_text(
  prediction: Prediction, class_names: Sequence[str], *, width: int = 0, bold: bool = False
) -> str:
  """Returns lines for a reader; '' for an image that can't be read.

  A single class stands behind the path; several are below it.

  Args:
    prediction: The prediction.
    class_names: C names.
    width: Characters that the path takes up before a single class.
    bold: Whether the path is emphasised, with the escape sequences of terminals.
  """
  if prediction.error is not None:
    return ""
  path = inputs.escaped(prediction.path)
  shown = f"\033[1m{path}\033[0m" if bold else path
  classes = [
    f"{probability:7.2%}  {class_names[label]}"
    for label, probability in zip(prediction.labels, prediction.probabilities, strict=True)
  ]
  if len(classes) == 1:
    return f"{shown}{' ' * (width - len(path))} {classes[0]}\n"
  return "\n  ".join([shown, *classes]) + "\n"


def width(files: inputs.Files) -> int:
  """Returns the characters to which paths are padded, for `as_text`."""
  return max((n for p in files.paths if (n := len(inputs.escaped(p))) <= _WIDEST), default=0)


def as_json(prediction: Prediction, class_names: Sequence[str]) -> str:
  """Returns a line of JSON; of an image that can't be read, with the field 'error'.

  Args:
    prediction: The prediction.
    class_names: C names.
  """
  if prediction.error is not None:
    return json.dumps({"path": prediction.path, "error": prediction.error}) + "\n"
  classes = [
    {"class": class_names[label], "label": label, "probability": _rounded(probability)}
    for label, probability in zip(prediction.labels, prediction.probabilities, strict=True)
  ]
  return json.dumps({"path": prediction.path, "predictions": classes}) + "\n"


def as_csv(prediction: Prediction, class_names: Sequence[str]) -> str:
  """Returns a row of `CSV_HEADER` for each class; none for an image that can't be read.

  Args:
    prediction: The prediction.
    class_names: C names.
  """
  found = zip(prediction.labels, prediction.probabilities, strict=True)
  file = io.StringIO()
  csv.writer(file, lineterminator="\n").writerows(
    (prediction.path, rank, label, class_names[label], _rounded(probability))
    for rank, (label, probability) in enumerate(found, 1)
  )
  return file.getvalue()


def _rounded(probability: float) -> float:
  """Returns a float32 number with the digits that it has."""
  return float(f"{probability:.7g}")


def for_sheet(count: int) -> frozenset[int]:
  """Returns which of `count` images are drawn on a sheet: up to `SHEET`, evenly spaced."""
  return frozenset(np.linspace(0, count - 1, min(count, SHEET)).round().astype(int).tolist())


def draw(
  shown: Sequence[Prediction], class_names: Sequence[str], picture: pathlib.Path, title: str
) -> None:
  """Draws a contact sheet: images with their most probable class, its probability, and their names.

  Args:
    shown: At least one prediction without an error.
    class_names: C names.
    picture: The PNG file to write.
    title: Above the picture.

  Raises:
    ImportError: matplotlib can't be imported.
  """
  tiles = list(stream.in_threads(_tile, [p.path for p in shown], "Drawing"))
  captions = [
    f"{p.probabilities[0]:.0%} {class_names[p.labels[0]]}\n"
    f"{inputs.escaped(pathlib.PurePath(p.path).name)}"
    for p in shown
  ]
  plots.sheet(np.stack(tiles), captions, picture, title, min(_COLUMNS, len(tiles)))


def _tile(path: str) -> np.ndarray:
  """Fits an image into a white square of the sheet, keeping its shape.

  It is blank if the file can't be read a second time, as a pipe can't.
  """
  try:
    image = images.decode(pathlib.Path(path))
  except images.Unreadable:
    return np.full((_TILE, _TILE, 3), 255, np.uint8)
  return resizing.contain(image, _TILE)
