"""The best evaluation of a run, the file of its weights, and when patience is exhausted."""

import pathlib
from collections.abc import Collection, Mapping


def best(evaluations: Mapping[int, float]) -> int:
  """Returns the step of the highest accuracy, the first of equals.

  Args:
    evaluations: {step: top-1 accuracy}; at least one.
  """
  return min(evaluations, key=lambda step: (-evaluations[step], step))


def exhausted(evaluations: Mapping[int, float], patience: int | None) -> bool:
  """Returns whether the last `patience` evaluations brought nothing better than one before them.

  Args:
    evaluations: {step: top-1 accuracy}.
    patience: At least 1; None never ends a run.
  """
  if patience is None or not evaluations:
    return False
  return sum(step > best(evaluations) for step in evaluations) >= patience


def weights_path(folder: pathlib.Path, step: int) -> pathlib.Path:
  """Returns the file of the weights after a step that were the best so far."""
  return folder / f"best-{step}.npz"


def discard(folder: pathlib.Path, keep: Collection[int] = ()) -> None:
  """Removes the best weights from a run folder, except those after the steps in `keep`."""
  kept = {weights_path(folder, step) for step in keep}
  for path in folder.glob("best-*.npz"):
    if path not in kept:
      path.unlink(missing_ok=True)
