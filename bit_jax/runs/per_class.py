"""Results per class: accuracies, their means, and the confusion matrix as table and picture."""

import pathlib
from collections.abc import Callable, Sequence

import numpy as np

from bit_jax.runs import run_folder
from bit_jax.runtime import phrases, plots

PER_CLASS, CONFUSION, PICTURE = "per_class.csv", "confusion.csv", "confusion.png"
LARGEST_MATRIX = 1000  # classes; above, only the most frequent confusions are listed
_MOST_PAIRS = 1000
_IMBALANCED = 3  # times as many images in the largest class as in the smallest
_NAMED_CLASSES = 40
_NUMBERED_CLASSES = 15  # classes whose cells have room for a number
_NAME_WIDTH = 24  # characters of a class name that leave room for the matrix beside it


def means(labels: np.ndarray, predictions: np.ndarray) -> dict[str, float]:
  """Returns two accuracies that count every class equally, however many images it has.

  As scikit-learn's `balanced_accuracy_score` and `f1_score(average="macro")` define them, with an
  F1 of 0 for a class that is predicted and has no images.

  Args:
    labels: [N] integer, N at least 1.
    predictions: [N] integer.

  Returns:
    'balanced_accuracy', the mean recall of the classes that occur in `labels`, and 'macro_f1', the
    mean F1 of the classes that occur in `labels` or `predictions`; both in [0, 1].
  """
  from sklearn import metrics  # about a second

  _, recall, f1, images = metrics.precision_recall_fscore_support(
    labels, predictions, zero_division=0.0
  )
  return {"balanced_accuracy": float(recall[images > 0].mean()), "macro_f1": float(f1.mean())}


def totals_and_hits(labels: np.ndarray, predictions: np.ndarray, num_classes: int) -> np.ndarray:
  """Returns how many examples each class has, and how many of them were predicted as it.

  Args:
    labels: [N] integer, 0 to C - 1.
    predictions: [N] integer.
    num_classes: C.

  Returns:
    [2, C] int64.
  """
  hits = labels[labels == predictions]
  return np.stack([np.bincount(found, minlength=num_classes) for found in (labels, hits)])


def confusion(labels: np.ndarray, predictions: np.ndarray, num_classes: int) -> np.ndarray:
  """Returns how many examples of each class (rows) were predicted as each class (columns).

  Args:
    labels: [N] integer, 0 to C - 1.
    predictions: [N] integer, 0 to C - 1.
    num_classes: C.

  Returns:
    [C, C] int64.
  """
  pairs = labels.astype(np.int64) * num_classes + predictions
  return np.bincount(pairs, minlength=num_classes**2).reshape(num_classes, num_classes)


def largest_confusions(labels: np.ndarray, predictions: np.ndarray, most: int) -> np.ndarray:
  """Returns the most frequent confusions of two classes.

  Args:
    labels: [N] integer, at least 0.
    predictions: [N] integer, at least 0.
    most: Confusions to return at most.

  Returns:
    [K, 3] int64: class, predicted class, examples. The most frequent pair comes first; ties are
    sorted by class, then by predicted class.
  """
  wrong = labels != predictions
  pairs, counts = np.unique(
    np.stack([labels[wrong], predictions[wrong]], axis=1), axis=0, return_counts=True
  )
  first = np.argsort(-counts, kind="stable")[:most]
  return np.column_stack([pairs[first], counts[first]]).astype(np.int64)


def balance(labels: np.ndarray, class_names: Sequence[str]) -> str:
  """Returns a sentence on the number of training images per class."""
  counts = np.bincount(labels, minlength=len(class_names))
  low, high = int(counts.argmin()), int(counts.argmax())
  if counts[low] == counts[high]:
    return f"Every class has {phrases.counted(int(counts[low]), 'training image')}."
  text = (
    f"Classes have {counts[low]:,} ({class_names[low]}) to {counts[high]:,} ({class_names[high]}) "
    f"training images"
  )
  if counts[high] < _IMBALANCED * counts[low]:
    return f"{text}."
  return f"{text}. They are imbalanced: see the accuracy of each class in {PER_CLASS}."


def write(
  folder: pathlib.Path,
  class_names: Sequence[str],
  labels: np.ndarray,
  predictions: np.ndarray,
  training_labels: np.ndarray | None,
  say: Callable[[str], None],
) -> None:
  """Writes `per_class.csv` and `confusion.csv`; if one can't be written, warns.

  `confusion.csv` is a matrix for up to `LARGEST_MATRIX` classes, and a list of the most frequent
  confusions for more.

  Args:
    folder: The run folder.
    class_names: C names.
    labels: [N] int32, of the evaluated images.
    predictions: [N] int32.
    training_labels: [M] int32; None where they are not known.
    say: Gets warnings and remarks on the files.
  """
  count = len(class_names)
  totals, right = totals_and_hits(labels, predictions, count).tolist()
  trained: Sequence[object] = [""] * count
  if training_labels is not None:
    trained = np.bincount(training_labels, minlength=count).tolist()
  with run_folder.optional_table(folder, PER_CLASS, say) as temporary:
    rows: list[Sequence[object]] = [("class", "training_images", "evaluated_images", "top1")]
    for name, images, total, hits in zip(class_names, trained, totals, right, strict=True):
      rows.append((name, images, total, f"{hits / total:.4f}" if total else ""))
    run_folder.write_csv(temporary, rows)
  with run_folder.optional_table(folder, CONFUSION, say) as temporary:
    if count <= LARGEST_MATRIX:
      rows = [("class \\ predicted", *class_names)]
      for name, row in zip(class_names, confusion(labels, predictions, count), strict=True):
        rows.append((name, *row.tolist()))
    else:
      rows = [("class", "predicted", "count", "share")]  # share: of the images of the class
      for true, predicted, n in largest_confusions(labels, predictions, _MOST_PAIRS).tolist():
        rows.append((class_names[true], class_names[predicted], n, f"{n / totals[true]:.4f}"))
    run_folder.write_csv(temporary, rows)
  if count > LARGEST_MATRIX:
    say(
      f"With more than {LARGEST_MATRIX:,} classes, {CONFUSION} lists the {_MOST_PAIRS:,} most "
      f"frequent confusions, and {PICTURE} is not drawn."
    )


def draw(
  folder: pathlib.Path,
  class_names: Sequence[str],
  labels: np.ndarray,
  predictions: np.ndarray,
  title: str,
) -> None:
  """Draws the confusion matrix, `confusion.png`, unless there are over `LARGEST_MATRIX` classes.

  Args:
    folder: The run folder.
    class_names: C names. Up to 40 classes have theirs beside the matrix, shortened if it is long;
      more have numbers.
    labels: [N] int32, of the evaluated images.
    predictions: [N] int32.
    title: Above the picture.
  """
  count = len(class_names)
  if count > LARGEST_MATRIX:
    return
  matrix = confusion(labels, predictions, count)
  shares = matrix / np.maximum(matrix.sum(axis=1), 1)[:, None]
  named = count <= _NAMED_CLASSES
  cell = 0.4 if count <= _NUMBERED_CLASSES else 0.3
  side = max(4.0, cell * count + 1.5) if named else 9.0
  with plots.figure(folder / PICTURE, (side + 1, side), dpi=110) as figure:
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
      for row, column in zip(*np.nonzero(shares), strict=True):
        share = shares[row, column]
        text = f"{100 * share:.0f}" if share >= 0.005 else "<1"
        colour = "black" if share > 0.5 else "white"  # on yellow, on blue
        axes.text(column, row, text, ha="center", va="center", fontsize=8, color=colour)
    axes.set_xlabel("predicted class")
    axes.set_ylabel("class")
    figure.colorbar(drawn, ax=axes, label="% of the images of a class")
    plots.set_title(figure, title)
