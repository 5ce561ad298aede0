"""Operations and disk space of a run, computed from its config alone.

Operations are those of convolutions and head (`architectures.forward_flops`): a multiplication and
its addition count as two, a gradient as twice its product. Recomputation by `remat` isn't counted,
as in a model's FLOP utilisation.
"""

import functools

import jax.numpy as jnp

from bit_jax import run_config
from bit_jax.data import datasets
from bit_jax.models import architectures

_FLOAT32 = 4  # bytes
# Figures, logs and JSON of a run folder: 0.35 MB in two runs of CIFAR-10.
_RECORDS = 4e5


def flops(config: run_config.RunConfig, spec: datasets.DatasetSpec) -> float:
  """Returns the operations of a run: its steps, forward and backward, and its evaluations.

  Args:
    config: Resolved. A run that `patience` ends early takes fewer.
    spec: The data set.
  """
  evaluations = -(-config.total_steps // config.eval_every)  # the last step is always evaluated
  evaluated = evaluations * spec.num_test
  if spec.num_val:  # then the test images are evaluated once
    evaluated = evaluations * spec.num_val + spec.num_test
  architecture = architectures.find(config.model)
  forward = functools.partial(architectures.forward_flops, architecture, spec.num_classes)
  trained = architectures.TRAINING_FACTOR * config.total_steps * config.batch_size
  return float(trained * forward(config.crop) + evaluated * forward(config.test_size))


def disk_bytes(model: str, num_classes: int, momentum_dtype: str) -> float:
  """Returns the bytes of a finished run's folder, an upper bound within a tenth or so.

  It holds the last two checkpoints of weights and momentum (compression saves little of trained
  weights), the exported weights, figures and logs. While a checkpoint is saved, there are three.

  Args:
    model: Name of the network.
    num_classes: Classes of its head.
    momentum_dtype: Type of the stored momentum.
  """
  count = architectures.num_parameters(architectures.find(model), num_classes)
  checkpoint = _FLOAT32 + jnp.dtype(momentum_dtype).itemsize
  return float(count * (_FLOAT32 + 2 * checkpoint) + _RECORDS)
