"""What a run takes, known from its config alone: operations and disk.

Operations are counted as everywhere in the project (`architectures.forward_flops`): those of
convolutions and head, a multiplication and its addition being two, a gradient twice its product.
What is computed again with `remat` doesn't count, as it doesn't in a model's FLOP utilisation.
"""

from typing import Any

import jax.numpy as jnp

from bit_jax.data import datasets
from bit_jax.models import architectures

_FLOAT32 = 4  # bytes
# Pictures, logs and JSON of a run folder: those of two runs of CIFAR-10 came to 0.35 MB. Pictures
# have a fixed size, whatever the images.
_RECORDS = 4e5


def flops(config: Any, spec: datasets.DatasetSpec) -> float:
  """Returns the operations of a run: its steps, forward and backward, and its evaluations.

  Args:
    config: Resolved. A run that `patience` ends early takes fewer.
    spec: The data set.
  """
  evaluations = -(-config.total_steps // config.eval_every)  # the last step's is always made
  evaluated = evaluations * spec.num_test
  if spec.num_val:  # the test images are evaluated once
    evaluated = evaluations * spec.num_val + spec.num_test
  return flops_of_images(
    architectures.find(config.model),
    spec.num_classes,
    trained=(config.total_steps * config.batch_size, config.crop),
    tested=(evaluated, config.test_size),
  )


def flops_of_images(
  architecture: architectures.Architecture,
  num_classes: int,
  *,
  trained: tuple[int, int],
  tested: tuple[int, int],
) -> float:
  """Returns the operations of going through images, forward and backward, and forward alone.

  Args:
    architecture: The network.
    num_classes: Of its head.
    trained: How many images are trained on, and their side in pixels.
    tested: The same of those that are scored.
  """
  forward = [
    count * architectures.forward_flops(architecture, num_classes, size)
    for count, size in (trained, tested)
  ]
  return float(architectures.TRAINING_FACTOR * forward[0] + forward[1])


def disk_bytes(config: Any, spec: datasets.DatasetSpec) -> float:
  """Returns the bytes of a finished run's folder: what it holds at most, within a tenth or so.

  One checkpoint of weights and velocity (`checkpoint.Checkpoints` keeps the newest; its compression
  saves little of trained weights), the exported weights, and pictures and logs. While a checkpoint
  is saved, the one before is there as well.

  Args:
    config: Resolved.
    spec: The data set.
  """
  architecture = architectures.find(config.model)
  count = architectures.num_parameters(architecture, spec.num_classes)
  velocity = jnp.dtype(config.momentum_dtype).itemsize
  return float(count * (2 * _FLOAT32 + velocity) + _RECORDS)
