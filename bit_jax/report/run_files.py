"""The files of a run folder, read as far as they are there and intact.

A run may be going on, have stopped, or be of an earlier version; files may be damaged or missing.
"""

import csv
import dataclasses
import pathlib
from typing import Any

import numpy as np

from bit_jax.inference import networks
from bit_jax.report import values
from bit_jax.runs import metrics_log, mistakes, per_class, reporting, run_folder
from bit_jax.runtime import errors, phrases

_MOST_MISTAKES = 64  # that are read
_RECORDS = (run_folder.CONFIG, run_folder.ENVIRONMENT, run_folder.RESULT)
_MATRIX_HEAD = "class \\ predicted"


@dataclasses.dataclass(frozen=True)
class Class:
  """A row of `per_class.csv`, with what the confusion matrix says of the class.

  Attributes:
    name: Its name.
    trained: Number of training images, None if it is not known.
    evaluated: Number of evaluated images.
    top1: Share of them that are right; None without any.
    precision: Share of the images predicted as the class that belong to it; None without any.
    confused: The class that its images are most often wrongly predicted as, or ''.
    times: How often.
  """

  name: str
  trained: int | None
  evaluated: int
  top1: float | None
  precision: float | None = None
  confused: str = ""
  times: int = 0


@dataclasses.dataclass(frozen=True)
class Confusion:
  """What each class was predicted as.

  Attributes:
    names: The names of the classes.
    counts: [C, C] int64: images of each class (rows) by prediction (columns); None where the run
      lists only the most frequent confusions.
    pairs: (class, predicted class, images, share of the class), the most frequent first.
  """

  names: tuple[str, ...]
  counts: np.ndarray | None
  pairs: tuple[tuple[str, str, int, float], ...]


@dataclasses.dataclass(frozen=True)
class Mistake:
  """A row of `mistakes.csv`.

  Attributes:
    image: The file or the number of the image.
    label: Its label.
    prediction: What it was predicted as.
    confidence: Probability of the prediction, in [0, 1].
  """

  image: str
  label: str
  prediction: str
  confidence: float


@dataclasses.dataclass(frozen=True)
class RunFiles:
  """What a run folder holds.

  Attributes:
    folder: The folder.
    config: The content of `config.json`; empty if that can't be read.
    environment: The content of `environment.json`, likewise.
    result: The content of `result.json`, likewise.
    rows: The rows of `metrics.jsonl` by kind, each sorted by step.
    classes: The classes.
    confusion: The confusions, None without a record of them.
    mistakes: The most confident mistakes, None without a record of them.
    num_mistakes: Number of all mistakes that are on record.
    faults: {file: what is wrong with it}, such as 'is not there'.
  """

  folder: pathlib.Path
  config: dict[str, Any]
  environment: dict[str, Any]
  result: dict[str, Any]
  rows: dict[str, list[dict[str, Any]]]
  classes: tuple[Class, ...]
  confusion: Confusion | None
  mistakes: tuple[Mistake, ...] | None
  num_mistakes: int
  faults: dict[str, str]

  @property
  def is_finished(self) -> bool:
    """Whether the run has a result."""
    return bool(self.result)


def read(folder: pathlib.Path) -> RunFiles:
  """Reads a run folder.

  Raises:
    UserError: It isn't a folder, can't be read, or holds no file of a run; or it was exported from
      a checkpoint.
  """
  if not folder.is_dir():
    raise errors.UserError(f"Folder {folder} not found: give the folder of a run.")
  if not any((folder / name).is_file() for name in (*_RECORDS, reporting.METRICS)):
    raise errors.UserError(
      f"{folder} holds none of the files of a run ({', '.join(_RECORDS)}): give the folder that "
      f"bit_jax.train wrote, its --workdir."
    )
  faults: dict[str, str] = {}
  config, environment, result = (_record(folder / name, faults) for name in _RECORDS)
  if origin := networks.origin(config):
    raise errors.UserError(
      f"{folder} was exported from the checkpoint {origin.name} and holds no run: give the folder "
      f"that bit_jax.train wrote, its --workdir."
    )
  classes = _table(folder / per_class.PER_CLASS, faults, _classes) or ()
  confusion = _table(folder / per_class.CONFUSION, faults, _confusion)
  shown, num_mistakes = _table(folder / mistakes.TABLE, faults, _mistakes) or (None, 0)
  return RunFiles(
    folder=folder,
    config=config,
    environment=environment,
    result=result,
    rows=_metrics(folder / reporting.METRICS, faults),
    classes=_completed(classes, confusion),
    confusion=confusion,
    mistakes=shown,
    num_mistakes=num_mistakes,
    faults=faults,
  )


def _record(path: pathlib.Path, faults: dict[str, str]) -> dict[str, Any]:
  try:
    found = run_folder.read_json(path)
  except errors.UserError:
    faults[path.name] = "is damaged"
  except OSError as e:
    faults[path.name] = f"can't be read ({e.strerror})"
  else:
    if found:
      return found
    faults[path.name] = "is not there" if found is None else "is empty"
  return {}


def _metrics(path: pathlib.Path, faults: dict[str, str]) -> dict[str, list[dict[str, Any]]]:
  try:
    rows, damaged = metrics_log.read(path)
  except OSError as e:
    faults[path.name] = f"can't be read ({e.strerror})"
    return {}
  if rows and damaged:
    faults[path.name] = f"has {phrases.counted(damaged, 'damaged line')}"
  if not rows:
    faults[path.name] = "is damaged" if damaged else "is empty" if path.exists() else "is not there"
  by_kind: dict[str, list[dict[str, Any]]] = {}
  for row in sorted(rows, key=lambda row: row["step"]):
    by_kind.setdefault(row["kind"], []).append(row)
  return by_kind


def _table(path: pathlib.Path, faults: dict[str, str], parse: Any) -> Any:
  """Returns what a parser makes of the rows of a CSV file; None, and a fault, where it can't."""
  try:
    with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
      return parse(list(csv.reader(file)))
  except FileNotFoundError:
    faults[path.name] = "is not there"
  except OSError as e:
    faults[path.name] = f"can't be read ({e.strerror})"
  except (ValueError, IndexError, KeyError, OverflowError, csv.Error):
    faults[path.name] = "is damaged"
  return None


def _classes(rows: list[list[str]]) -> tuple[Class, ...]:
  head, *rest = rows
  if head != ["class", "training_images", "evaluated_images", "top1"]:
    raise ValueError(head)
  return tuple(
    Class(name, _count(trained) if trained else None, _count(n), _share(top1) if top1 else None)
    for name, trained, n, top1 in rest
  )


def _confusion(rows: list[list[str]]) -> Confusion:
  head, *rest = rows
  if head == ["class", "predicted", "count", "share"]:
    pairs = tuple((a, b, _count(n), _share(share)) for a, b, n, share in rest)
    return Confusion((), None, pairs)
  names = tuple(head[1:])
  if head[0] != _MATRIX_HEAD or not names or tuple(row[0] for row in rest) != names:
    raise ValueError(head[0])
  counts = np.array([[_count(n) for n in row[1:]] for row in rest], np.int64)
  if counts.shape != (len(names), len(names)):
    raise ValueError(counts.shape)
  totals = counts.sum(axis=1)
  wrong = counts * ~np.eye(len(names), dtype=bool)
  places = np.argwhere(wrong)
  order = np.argsort(-wrong[tuple(places.T)], kind="stable")
  pairs = tuple(
    (names[a], names[b], int(counts[a, b]), float(counts[a, b] / totals[a]))
    for a, b in places[order].tolist()
  )
  return Confusion(names, counts, pairs)


def _completed(classes: tuple[Class, ...], confusion: Confusion | None) -> tuple[Class, ...]:
  """Returns the classes with what the confusion matrix says of them."""
  if confusion is None or confusion.names != tuple(c.name for c in classes):
    return classes
  counts = confusion.counts
  assert counts is not None  # a matrix has names
  wrong = counts * ~np.eye(len(counts), dtype=bool)
  mostly, predicted, right = wrong.argmax(axis=1), counts.sum(axis=0), counts.diagonal()
  result = []
  for i, one in enumerate(classes):
    times = int(wrong[i, mostly[i]])
    result.append(
      dataclasses.replace(
        one,
        precision=float(right[i] / predicted[i]) if predicted[i] else None,
        confused=confusion.names[mostly[i]] if times else "",
        times=times,
      )
    )
  return tuple(result)


def _mistakes(rows: list[list[str]]) -> tuple[tuple[Mistake, ...], int]:
  head, *rest = rows
  if head != ["image", "label", "predicted", "confidence"]:
    raise ValueError(head)
  shown = rest[:_MOST_MISTAKES]
  return tuple(Mistake(i, label, p, _share(c)) for i, label, p, c in shown), len(rest)


def _count(text: str) -> int:
  """Returns a number of images; raises a `ValueError` if it isn't one."""
  found = int(text)
  if not 0 <= found < 2**53:
    raise ValueError(text)
  return found


def _share(text: str) -> float:
  """Returns a share; raises a `ValueError` if it isn't one."""
  found = values.number(float(text))
  if found is None or not 0 <= found <= 1:
    raise ValueError(text)
  return found
