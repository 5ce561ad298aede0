"""Which examples of a set take part in a run: what is left out, and the few-shot subset."""

import contextlib
import io
import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from bit_jax.data import fewshot, opening, stream
from bit_jax.runtime import cache, errors

_MANY = 100_000  # labels whose reading takes a while
_LISTED = 20  # bad images in a message


def usable(
  source: opening.Source, part: str, config: Any, unchecked: bool
) -> tuple[np.ndarray, dict[str, int]]:
  """Returns the examples that a config doesn't leave out.

  Args:
    source: A part of a data set.
    part: Its name in messages: 'training' or 'test'.
    config: With `min_side`, `max_aspect` and `on_bad_image`.
    unchecked: Whether images may be unreadable.

  Returns:
    Their indices, ascending int64, and how many were left out for which reason.

  Raises:
    UserError: None is left.
  """
  keep, reasons = np.ones(len(source), bool), {}
  if config.min_side or config.max_aspect:
    fits = _fits(source.read_sizes(), config.min_side, config.max_aspect)
    reasons[f"{part} images of odd size"] = int(np.sum(~fits))
    keep &= fits
  if unchecked and config.on_bad_image == "skip":
    bad = np.zeros(len(source), bool)
    bad[list(unreadable(source, part))] = True
    reasons[f"unreadable {part} images"] = int(np.sum(bad & keep))
    keep &= ~bad
  if not keep.any():
    raise errors.UserError(
      f"All {len(source)} {part} images are left out ({_counted(reasons)}): loosen min_side, "
      f"max_aspect or on_bad_image."
    )
  return np.flatnonzero(keep), {why: n for why, n in reasons.items() if n}


def require_all_classes(labels: np.ndarray, usable: np.ndarray, class_names: Sequence[str]) -> None:
  """Raises a `UserError` if what was left out was all of a class.

  Args:
    labels: [N] integer, of a training part.
    usable: [M] integer indices of what is left.
    class_names: The names of the classes.
  """
  gone = np.setdiff1d(labels, labels[usable])
  if len(gone):
    names = ", ".join(class_names[c] for c in gone[:_LISTED])
    raise errors.UserError(
      f"No training image is left of {names}: mend them, loosen what leaves them out (min_side, "
      f"max_aspect, on_bad_image), or remove the class."
    )


def few_shot(source: opening.Source, usable: np.ndarray, shots: int, seed: int) -> np.ndarray:
  """Returns the subset of the usable examples: [shots * classes] int64 indices into the source.

  Args:
    source: The training part.
    usable: Indices to choose from.
    shots: Images of each class.
    seed: Names the subset.

  Raises:
    UserError: A class has too few.
  """
  labels = _labels(source)[usable]
  return usable[fewshot.select(labels, shots, seed, source.class_names)]


def _labels(source: opening.Source) -> np.ndarray:
  """Returns all labels, [N] int32; a large set's take minutes to read, so they are remembered."""
  if len(source) < _MANY:
    return source.read_labels()
  record = f"{source.fingerprint()}.npy"
  with contextlib.suppress(OSError, ValueError, EOFError):
    labels = np.load(io.BytesIO(cache.recall("labels", record)))
    if labels.shape == (len(source),):
      return labels
  labels = source.read_labels()
  content = io.BytesIO()
  np.save(content, labels)
  cache.remember("labels", record, content.getvalue())
  return labels


def unreadable(source: opening.Source, part: str) -> dict[int, str]:
  """Returns {index: why} of all unreadable images; decodes each once, and remembers the outcome.

  Those that were unreadable before are tried again: it may have been for want of a permission.
  """
  record = f"{source.fingerprint()}.json"
  what = f"Checking the {part} images"
  with contextlib.suppress(OSError, ValueError, TypeError):
    before = np.array(json.loads(cache.recall("unreadable", record)), np.int64)
    again = stream.unreadable(stream.Chosen(source, before), what)
    return {int(before[i]): why for i, why in again.items()}
  found = stream.unreadable(source, what)
  cache.remember("unreadable", record, json.dumps(list(found)).encode())
  return found


def require_readable(reasons: list[str], total: int) -> None:
  """Raises a `UserError` that lists the unreadable images, if there are any.

  Args:
    reasons: Why each of them can't be read, with its name.
    total: Images that were tried.
  """
  if not reasons:
    return
  more = f"\n  and {len(reasons) - _LISTED} more" if len(reasons) > _LISTED else ""
  listed = "".join(f"\n  {reason}" for reason in reasons[:_LISTED])
  raise errors.UserError(
    f"{len(reasons)} of {total:,} images can't be read: mend or remove them, or leave them out "
    f"with --config.on_bad_image=skip. python -m bit_jax.data check lists all problems."
    f"{listed}{more}"
  )


def _fits(sizes: np.ndarray, min_side: int, max_aspect: float) -> np.ndarray:
  """Returns which [N, 2] sizes pass; what has none is not judged by it."""
  shorter, longer = sizes.min(axis=1), sizes.max(axis=1)
  fits = shorter >= min_side
  if max_aspect:
    fits &= longer <= max_aspect * shorter
  return fits | (shorter < 0)


def _counted(reasons: dict[str, int]) -> str:
  return ", ".join(f"{n} {why}" for why, n in reasons.items())
