"""SGD with momentum, and the learning rate of every step.

The rate is an argument of the update rather than a part of it, so that runs which differ in nothing
but their schedule share one compiled program.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax

from bit_jax import hyperrule


def schedule(base_lr: float, warmup_steps: int, decay_steps: Sequence[int]) -> optax.Schedule:
  """Returns linear warm-up from 0 followed by a staircase, as a function of the step (from 0).

  The step at a boundary still has the old rate, and the next one a tenth of it. Source:
  google-research/big_transfer, `bit_hyperrule.get_lr`.

  Args:
    base_lr: Rate after warm-up.
    warmup_steps: Length of the warm-up; 0 for none.
    decay_steps: Boundaries; one that is given twice counts twice.
  """
  # optax lets the rate fall at the boundary itself and counts a joined schedule from the join. Its
  # linear_schedule loses digits: 3e-5 of the rate at the first of 500 steps.
  staircase = optax.piecewise_constant_schedule(
    base_lr,
    {s + 1 - warmup_steps: hyperrule.DECAY_FACTOR ** decay_steps.count(s) for s in decay_steps},
  )
  if not warmup_steps:
    return staircase
  return optax.join_schedules(
    [lambda step: base_lr * step / warmup_steps, staircase], [warmup_steps]
  )


def learning_rates(
  base_lr: float, warmup_steps: int, decay_steps: Sequence[int], total_steps: int
) -> np.ndarray:
  """Returns the rate of each step: [total_steps] float32 (see `schedule`)."""
  rates = jax.vmap(schedule(base_lr, warmup_steps, decay_steps))(jnp.arange(total_steps))
  return np.asarray(rates, np.float32)


def sgd(momentum: float) -> optax.GradientTransformationExtraArgs:
  """Returns SGD with (heavy-ball) momentum, whose update takes `learning_rate`: [] float32.

  The velocity accumulates gradients and is scaled by the rate of the step, as in PyTorch:
  v = momentum * v + g; p = p - learning_rate * v. No weight decay, no clipping (paper 3.3).
  """
  return optax.chain(optax.trace(decay=momentum), _scale_by_argument())


def _scale_by_argument() -> optax.GradientTransformationExtraArgs:
  def update(
    updates: optax.Updates,
    state: optax.EmptyState,
    params: optax.Params | None = None,
    *,
    learning_rate: jax.Array,
    **_: object,
  ) -> tuple[optax.Updates, optax.EmptyState]:
    del params
    return jax.tree.map(lambda u: -learning_rate * u, updates), state

  return optax.GradientTransformationExtraArgs(lambda _: optax.EmptyState(), update)
