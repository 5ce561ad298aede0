"""Measures this project's network, or the plain Flax port: a worker, see `workers`.

Needs only jax, flax and optax.
"""

import functools
import pathlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.training import train_state

from bit_jax.models import architectures, resnet_v2
from bit_jax.runtime import machine as host
from bit_jax.training import optimizer, steps
from experiments.benchmarks import inputs, machine, plain_flax, workers


class Problem(NamedTuple):
  """What an implementation is given.

  Attributes:
    architecture: Which network.
    arrays: Its weights, named as `architectures.parameter_shapes`.
    dtype: What convolutions compute in.
    training: A step of training; else of inference.
  """

  architecture: architectures.Architecture
  arrays: Mapping[str, np.ndarray]
  dtype: jnp.dtype
  training: bool


# Its first argument, and (state, images, labels) -> (new state, loss or metrics), or
# (variables, images) -> logits.
Implementation = tuple[Any, Callable[..., Any]]


def build(spec: dict[str, Any]) -> workers.Workload:
  """Returns the workload of a spec (see `comparison.compare`), warmed up."""
  if spec["implementation"] == "ours" and spec["device"] == "cpu":
    host.keep_freed_memory()  # as the training command does
  arrays = inputs.read_checkpoint(pathlib.Path(spec["checkpoint"]))
  architecture, dtype = architectures.find(spec["architecture"]), jnp.dtype(spec["dtype"])
  problem = Problem(architecture, arrays, dtype, spec["task"] == "training")
  implementation = ours(problem) if spec["implementation"] == "ours" else plain(problem)
  images, labels = inputs.images(spec["batch"], spec["size"]), inputs.labels(spec["batch"])
  step = step_of(implementation, images, labels, training=problem.training)
  matrix = jnp.ones((workers.MATMUL_SIDE,) * 2, dtype)

  def multiply() -> object:
    return jnp.matmul(matrix, matrix).block_until_ready()

  return workers.comparable(spec, jax.default_backend(), step, _array, multiply, _peak_memory)


def step_of(
  implementation: Implementation, images: np.ndarray, labels: np.ndarray, *, training: bool
) -> Callable[[], Any]:
  """Returns a step on a batch: of training (returns the loss or metrics), or of inference (logits).

  Args:
    implementation: From `ours` or `plain`; the first step compiles it.
    images: [B, H, W, 3] float32.
    labels: [B] int32.
    training: As of the implementation.
  """
  variables, function = implementation
  state, *batch = jax.device_put((variables, images, labels))
  compiled = jax.jit(function, donate_argnums=0 if training else ())

  def train() -> Any:
    nonlocal state
    state, metrics = compiled(state, *batch)
    return metrics

  return train if training else lambda: compiled(state, batch[0])


def ours(problem: Problem) -> Implementation:
  """Returns our implementation.

  A training step includes MixUp, with the factor that leaves images unchanged. For inference,
  kernels are standardised once.
  """
  architecture, arrays, dtype, training = problem
  platform = jax.default_backend()
  model = resnet_v2.ResNetV2(architecture, inputs.NUM_CLASSES, dtype, platform=platform)
  params = jax.device_put(flax.traverse_util.unflatten_dict(dict(arrays), sep="/"))
  if not training:
    standardize = jax.jit(functools.partial(resnet_v2.standardize_params, dtype=dtype))
    return standardize(params), lambda variables, images: model.apply(variables, images)[0]
  sgd = optimizer.sgd(inputs.MOMENTUM)

  def train(before: Any, images: jax.Array, labels: jax.Array) -> tuple[Any, Any]:
    state, *rates = before  # arguments, as constants would remove MixUp from the program
    state, metrics = steps.train_step(state, images, labels, *rates, model=model, optimizer=sgd)
    return (state, *rates), metrics

  lam, learning_rate = np.float32(1), np.float32(inputs.LEARNING_RATE)
  return (steps.create_state(params, sgd), lam, learning_rate), train


def plain(problem: Problem) -> Implementation:
  """Returns the plain port's implementation."""
  depths, channels = problem.architecture.depths, problem.architecture.stem_channels
  network = plain_flax.ResNet(depths, channels, inputs.NUM_CLASSES, problem.dtype)
  params = plain_flax.from_checkpoint(problem.arrays)
  if not problem.training:
    return {"params": params}, network.apply
  sgd = optax.sgd(inputs.LEARNING_RATE, momentum=inputs.MOMENTUM)
  state = train_state.TrainState.create(apply_fn=network.apply, params=params, tx=sgd)
  return state, plain_flax.train_step


def _array(output: Any) -> np.ndarray:
  return np.asarray(output["loss"] if isinstance(output, dict) else output)


def _peak_memory() -> int:
  """Returns the peak of the device's memory, or of the process's if the device reports none."""
  stats = jax.local_devices()[0].memory_stats()
  return stats["peak_bytes_in_use"] if stats else machine.peak_memory()


if __name__ == "__main__":
  workers.serve(build)
