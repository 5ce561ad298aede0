"""SGD with momentum, and the learning rate of every step.

The rate is an argument of the step, so that runs that differ only in their schedule share one
compiled program.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax

from bit_jax import hyperrule


def learning_rates(
  base_lr: float, warmup_steps: int, decay_steps: Sequence[int], total_steps: int
) -> np.ndarray:
  """Returns the rate of each step: linear warm-up from 0 followed by a staircase.

  The step at a boundary still has the old rate, the next one a tenth of it. Source:
  google-research/big_transfer, `bit_hyperrule.get_lr`. (optax's schedules decay at the boundary
  itself, count a joined one from the join, and would compile a program for every length.)

  Args:
    base_lr: Rate after warm-up.
    warmup_steps: Length of the warm-up; 0 for none.
    decay_steps: Boundaries; duplicates count twice.
    total_steps: Steps of the run.

  Returns:
    [total_steps] float32.
  """
  steps = np.arange(total_steps)
  behind = np.searchsorted(np.sort(decay_steps), steps)
  rates = base_lr * hyperrule.DECAY_FACTOR**behind
  rising = steps < warmup_steps
  rates[rising] = base_lr * steps[rising] / warmup_steps
  return rates.astype(np.float32)


def sgd(momentum: float, dtype: str = "float32") -> optax.GradientTransformation:
  """Returns SGD with (heavy-ball) momentum, without the factor of the learning rate.

  The velocity accumulates gradients and `steps.update` scales it by the rate of the step, as in
  PyTorch: v = momentum * v + g; p = p - learning_rate * v. There is no weight decay and no clipping
  (paper 3.3).

  Args:
    momentum: Factor of the velocity from one step to the next.
    dtype: Type of the stored velocity, 'float32' or 'bfloat16'; updates are computed in float32
      in either case.
  """
  trace = optax.trace(momentum) if dtype == "float32" else _rounded_trace(momentum, dtype)
  return optax.chain(trace, optax.identity())  # the form of the state in checkpoints


def _rounded_trace(decay: float, dtype: str) -> optax.GradientTransformation:
  """Returns `optax.trace` that stores a rounded velocity and computes with it in float32.

  `optax.trace` itself would multiply in the narrow dtype: by 0.8984 for 0.9, and round the product.
  """
  exact = optax.trace(decay)

  def init(params: optax.Params) -> optax.OptState:
    return jax.tree.map(lambda v: jnp.zeros(v.shape, dtype), exact.init(params))

  def update(
    updates: optax.Updates, state: optax.OptState, params: optax.Params | None = None
  ) -> tuple[optax.Updates, optax.OptState]:
    wide = jax.tree.map(lambda v: v.astype(jnp.float32), state)
    velocity, wide = exact.update(updates, wide, params)
    return velocity, jax.tree.map(lambda v: v.astype(dtype), wide)

  return optax.GradientTransformation(init, update)
