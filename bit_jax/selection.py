"""Which evaluation of a run was the best, and whether waiting for a better one is over."""

import pathlib
from collections.abc import Mapping

BEST = "best.npz"  # the weights of the best evaluation so far, in the official naming
BEST_STEP = "best.json"


def exhausted(evaluations: Mapping[int, float], patience: int | None) -> bool:
  """Returns whether the last `patience` evaluations brought nothing better than one before them.

  Args:
    evaluations: {step: top-1 accuracy}.
    patience: At least 1; None never ends a run.
  """
  if patience is None or not evaluations:
    return False
  best = min(evaluations, key=lambda step: (-evaluations[step], step))
  return sum(step > best for step in evaluations) >= patience


def discard(folder: pathlib.Path) -> None:
  """Removes the best weights from a run folder that doesn't need them any more."""
  for name in (BEST, BEST_STEP):
    (folder / name).unlink(missing_ok=True)
