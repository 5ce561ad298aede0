"""What a run can say of single classes: their accuracy, and what they are taken for."""

import pathlib
from collections.abc import Sequence

import numpy as np

from bit_jax import pictures, runs

PER_CLASS, CONFUSION, PICTURE = "per_class.csv", "confusion.csv", "confusion.png"
_IMBALANCED = 3  # times as many images in the largest class as in the smallest


def confusion(labels: np.ndarray, predictions: np.ndarray, num_classes: int) -> np.ndarray:
  """Returns how many examples of each class (rows) were taken for which class (columns).

  Args:
    labels: [N] integer, 0 to C - 1.
    predictions: [N] integer, 0 to C - 1.
    num_classes: C.

  Returns:
    [C, C] int64.
  """
  pairs = labels.astype(np.int64) * num_classes + predictions
  return np.bincount(pairs, minlength=num_classes**2).reshape(num_classes, num_classes)


def balance(labels: np.ndarray, class_names: Sequence[str]) -> str:
  """Returns a sentence on how many training images the classes have."""
  counts = np.bincount(labels, minlength=len(class_names))
  low, high = int(counts.argmin()), int(counts.argmax())
  if counts[low] == counts[high]:
    return f"Every class has {counts[low]:,} training images."
  text = (
    f"Classes have {counts[low]:,} ({class_names[low]}) to {counts[high]:,} ({class_names[high]}) "
    f"training images"
  )
  if counts[high] < _IMBALANCED * counts[low]:
    return f"{text}."
  return f"{text}: they are imbalanced, so look at the accuracy of each in {PER_CLASS}."


def write(
  folder: pathlib.Path,
  class_names: Sequence[str],
  labels: np.ndarray,
  predictions: np.ndarray,
  training_labels: np.ndarray | None,
) -> None:
  """Writes `per_class.csv`, `confusion.csv` and, as a picture, `confusion.png`.

  Args:
    folder: The run folder.
    class_names: C names.
    labels: [N] int32, of the evaluated images.
    predictions: [N] int32.
    training_labels: [M] int32; None where they are not known.
  """
  matrix = confusion(labels, predictions, len(class_names))
  totals = matrix.sum(axis=1)
  accuracy = matrix.diagonal() / np.maximum(totals, 1)
  trained: Sequence[object] = [""] * len(class_names)
  if training_labels is not None:
    trained = np.bincount(training_labels, minlength=len(class_names)).tolist()
  rows = [
    (name, images, total, f"{share:.4f}" if total else "")
    for name, images, total, share in zip(class_names, trained, totals, accuracy, strict=True)
  ]
  runs.write_csv(
    folder / PER_CLASS, [("class", "training_images", "evaluated_images", "top1"), *rows]
  )
  runs.write_csv(
    folder / CONFUSION,
    [
      ("class \\ predicted", *class_names),
      *((n, *r) for n, r in zip(class_names, matrix.tolist(), strict=True)),
    ],
  )
  shares = matrix / np.maximum(totals, 1)[:, None]
  pictures.confusion(shares, class_names, folder / PICTURE)
