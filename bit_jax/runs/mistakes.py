"""The most confident mistakes of an evaluation, as a table and a picture: often wrong labels."""

import pathlib
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from bit_jax.data import pipeline
from bit_jax.runs import run_folder
from bit_jax.runtime import files, phrases, plots

TABLE, PICTURE = "mistakes.csv", "mistakes.png"
ADVICE = "Check their labels first: in real data, many of them are wrong."
_SHOWN = 24  # images in the picture
_COLUMNS, _SIDE = 6, 160  # images in a row, pixels of each


def most_confident(
  labels: np.ndarray, predictions: np.ndarray, confidence: np.ndarray
) -> np.ndarray:
  """Returns the indices of all wrong predictions, the most confident first.

  Args:
    labels: [N] integer.
    predictions: [N] integer.
    confidence: [N] float: the probability of each prediction, in [0, 1].

  Returns:
    [M] int64; equally confident ones stay in their order.
  """
  wrong = np.flatnonzero(labels != predictions)
  return wrong[np.argsort(-confidence[wrong], kind="stable")]


def write(
  folder: pathlib.Path,
  class_names: Sequence[str],
  labels: np.ndarray,
  predictions: np.ndarray,
  confidence: np.ndarray,
  paths: Sequence[str] | None,
  say: Callable[[str], None],
) -> None:
  """Writes `mistakes.csv`: every mistake, the most confident first; warns if it can't.

  Args:
    folder: Where it is written.
    class_names: C names.
    labels: [N] int32, of the evaluated images.
    predictions: [N] int32.
    confidence: [N] float32: the probability of each prediction, in [0, 1].
    paths: N paths of the images; None where they have none: they are numbered from 0 on, in the
      order in which they were evaluated.
    say: Gets a warning.
  """
  wrong = most_confident(labels, predictions, confidence)
  with run_folder.optional_table(folder, TABLE, say) as temporary:
    table = rows(wrong, class_names, labels, predictions, confidence, paths)
    run_folder.write_csv(temporary, table)


def rows(
  indices: np.ndarray,
  class_names: Sequence[str],
  labels: np.ndarray,
  predictions: np.ndarray,
  confidence: np.ndarray,
  paths: Sequence[str] | None,
) -> Iterator[Sequence[object]]:
  """Yields the header of a table of predictions, and a row for each of some images.

  Args:
    indices: [M] integer: the images.
    class_names: As in `write`, like the others.
    labels: [N] int32.
    predictions: [N] int32.
    confidence: [N] float32.
    paths: N paths, or None.
  """
  yield "image", "label", "predicted", "confidence"
  for i in indices.tolist():
    image = i if paths is None else paths[i]
    yield image, class_names[labels[i]], class_names[predictions[i]], f"{confidence[i]:.4f}"


def draw(
  folder: pathlib.Path,
  part: pipeline.Part,
  labels: np.ndarray,
  predictions: np.ndarray,
  confidence: np.ndarray,
  title: str,
  say: Callable[[str], None],
) -> None:
  """Draws the most confident mistakes, `mistakes.png`; warns if it can't.

  Without any mistake there is no picture, and an earlier picture is deleted.

  Args:
    folder: Where it is drawn.
    part: The evaluated images.
    labels: [N] int32, their labels.
    predictions: [N] int32.
    confidence: [N] float32: the probability of each prediction, in [0, 1].
    title: What was evaluated; the first line above the picture.
    say: Gets a warning.
  """
  mistakes = most_confident(labels, predictions, confidence)
  shown = mistakes[:_SHOWN]
  with files.optional(PICTURE, say):
    if not len(shown):
      (folder / PICTURE).unlink(missing_ok=True)
      return
    images = part.to_look_at(shown, _SIDE)
    captions = [
      f"{confidence[i]:.0%} {part.class_names[predictions[i]]}\nlabel {part.class_names[labels[i]]}"
      for i in shown.tolist()
    ]
    what = "The only mistake"
    if len(mistakes) > 1:
      what = f"All {len(mistakes)} mistakes"
    if len(mistakes) > len(shown):
      what = f"The {len(shown)} most confident of {len(mistakes):,} mistakes"
    of = f" in {phrases.counted(len(labels), 'image')}"
    heading = f"{title}\n{what}{of}: confidence and prediction, above the label. {ADVICE}"
    plots.sheet(images, captions, folder / PICTURE, heading, _COLUMNS)
