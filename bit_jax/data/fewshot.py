"""Class-balanced random subsets, as functions of the labels and a seed.

Source: BiT paper (arXiv 1912.11370), figure 2: random class-balanced subsets, five per setting. The
subsets of the paper were never released, so a seed identifies a subset of this code only.
"""

from collections.abc import Sequence

import numpy as np

from bit_jax.runtime import checks, errors, phrases


def select(labels: np.ndarray, shots: int, seed: int, class_names: Sequence[str]) -> np.ndarray:
  """Returns the few-shot subset of a seed.

  Args:
    labels: [N] integer, 0 to `len(class_names) - 1`.
    shots: Images per class, drawn without replacement.
    seed: At least 0.
    class_names: The names of the classes, in the order of their labels.

  Returns:
    [shots * len(class_names)] int64 indices into `labels`, class by class.

  Raises:
    UserError: `shots` is below 1, the seed is negative, or a class has fewer than `shots` images.
  """
  checks.at_least("shots", shots, 1)
  available = np.bincount(labels, minlength=len(class_names))
  least, short = int(available.argmin()), int((available < shots).sum())
  if short:
    others = f" ({short} of {len(class_names)} classes have fewer)" if short > 1 else ""
    number = phrases.counted(int(available[least]), "training image")
    lower = f"Lower shots to at most {available[least]}" if available[least] else "Leave shots out"
    raise errors.UserError(
      f"The smallest class, {class_names[least]}, has {number}; shots={shots} needs {shots} per "
      f"class{others}. {lower}, or add images."
    )
  return np.concatenate(_draw(labels, np.full(len(class_names), shots), seed))


def hold_out(labels: np.ndarray, counts: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
  """Splits a set in two, with a given number of held-out examples per class.

  Args:
    labels: [N] integer, 0 to C - 1.
    counts: [C] integer: the number of held-out examples of each class; it must have so many.
    seed: At least 0.

  Returns:
    The indices of the kept and of the held-out examples, [N - sum(counts)] and [sum(counts)]
    int64, both ascending.
  """
  held_out = np.sort(np.concatenate(_draw(labels, counts, seed)))
  kept = np.setdiff1d(np.arange(len(labels)), held_out, assume_unique=True)
  return kept, held_out


def _draw(labels: np.ndarray, counts: np.ndarray, seed: int) -> list[np.ndarray]:
  """Draws `counts[c]` indices of each class c without replacement."""
  checks.at_least("seed", seed, 0)
  rng = np.random.Generator(np.random.Philox(seed))
  ends = np.cumsum(np.bincount(labels, minlength=len(counts)))
  members = np.split(np.argsort(labels, kind="stable"), ends[:-1])
  return [
    rng.permutation(one)[:count].astype(np.int64)
    for one, count in zip(members, counts, strict=True)
  ]
