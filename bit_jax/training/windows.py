"""The metrics of the steps since the last log, as a checkpoint keeps them."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from bit_jax.inference import metrics


def packed(window: Sequence[Any]) -> list[list[float]]:
  """Returns the metrics of steps as numbers.

  Args:
    window: A collection by `metrics.collection` for each step.
  """
  return [[float(x) for x in jax.tree.leaves(part)] for part in jax.device_get(window)]


def unpacked(numbers: Sequence[Sequence[float]], num_classes: int) -> list[Any]:
  """Returns the metrics of steps that `packed` was given.

  Args:
    numbers: What it returned.
    num_classes: Classes of the task.
  """
  leaves, structure = jax.tree.flatten(metrics.collection(num_classes).empty())
  types = [leaf.dtype for leaf in leaves]

  def part(of_step: Sequence[float]) -> Any:
    arrays = [np.asarray(x, dtype) for x, dtype in zip(of_step, types, strict=True)]
    return jax.tree.unflatten(structure, arrays)

  return [part(of_step) for of_step in numbers]
