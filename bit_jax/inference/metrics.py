"""The means of metrics over examples, in training and evaluation, as clu collections."""

from collections.abc import Sequence

import jax
import numpy as np
from clu import metrics

TOP5_CLASSES = 100  # with at least so many classes, top-5 is reported too


def collection(num_classes: int) -> type[metrics.Collection]:
  """Returns the collection of a task: means over examples of loss, top-1 and, with many, top-5."""
  names = ["loss", "top1"] + ["top5"] * (num_classes >= TOP5_CLASSES)
  averages = {n: metrics.Average.from_output(n) for n in names}
  created: type[metrics.Collection] = metrics.Collection.create(**averages)
  return created


def merge(parts: Sequence[metrics.Collection]) -> dict[str, float]:
  """Fetches collections from the devices and returns the means over all their examples.

  Args:
    parts: At least one, each gathered over the devices.
  """
  first, *others = jax.device_get(list(parts))
  for other in others:
    first = first.merge(other)
  return {name: float(value) for name, value in first.compute().items()}


def first_not_finite(parts: Sequence[metrics.Collection]) -> int | None:
  """Returns the index of the first collection whose loss is NaN or infinite, or None."""
  totals = jax.device_get([part.loss.total for part in parts])
  wrong = np.flatnonzero(~np.isfinite(totals))
  return int(wrong[0]) if len(wrong) else None
