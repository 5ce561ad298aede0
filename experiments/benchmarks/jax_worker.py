"""Measures this project's network, or the plain Flax port: a worker, see `workers`.

Needs only jax, flax and optax.
"""

import functools
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

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

# (state, images, labels) -> (new state, loss or metrics), or (variables, images) -> logits.
Function = Callable[..., Any]


def build(spec: dict[str, Any]) -> workers.Workload:
  """Returns the workload of a spec (see `comparison.compare`), warmed up."""
  if spec["implementation"] == "ours" and spec["device"] == "cpu":
    host.keep_freed_memory()  # as the training command does
  arrays = inputs.read_checkpoint(pathlib.Path(spec["checkpoint"]))
  implementation = {"ours": ours, "plain": plain}[spec["implementation"]]
  architecture, dtype = architectures.find(spec["architecture"]), jnp.dtype(spec["dtype"])
  training = spec["task"] == "training"
  variables, function = implementation(architecture, arrays, dtype, training=training)
  images = inputs.images(spec["batch"], spec["size"])
  step = step_of(variables, function, images, inputs.labels(spec["batch"]), training=training)
  matrix = jnp.ones((workers.MATMUL_SIDE, workers.MATMUL_SIDE), dtype)
  product = jax.jit(jnp.matmul)

  def multiply() -> object:
    return product(matrix, matrix).block_until_ready()

  return workers.comparable(spec, jax.default_backend(), step, _array, multiply, _peak_memory)


def step_of(
  variables: Any, function: Function, images: np.ndarray, labels: np.ndarray, *, training: bool
) -> Callable[[], Any]:
  """Returns a step on a batch: of training (returns the loss or metrics), or of inference (logits).

  Args:
    variables: From `ours` or `plain`, with the function.
    function: Compiled by the first step.
    images: [B, H, W, 3] float32.
    labels: [B] int32.
    training: As for `ours`.
  """
  state, *batch = jax.device_put((variables, images, labels))
  compiled = jax.jit(function, donate_argnums=0 if training else ())

  def train() -> Any:
    nonlocal state
    state, metrics = compiled(state, *batch)
    return metrics

  return train if training else lambda: compiled(state, batch[0])


def ours(
  architecture: architectures.Architecture,
  arrays: Mapping[str, np.ndarray],
  dtype: jnp.dtype,
  *,
  training: bool,
) -> tuple[Any, Function]:
  """Returns the variables of our network and its function.

  A training step includes MixUp, with the factor that leaves images unchanged. For inference,
  kernels are standardised once.

  Args:
    architecture: Which network.
    arrays: Its weights, named as `architectures.parameter_shapes`.
    dtype: What convolutions compute in.
    training: A step of training; else of inference.
  """
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


def plain(
  architecture: architectures.Architecture,
  arrays: Mapping[str, np.ndarray],
  dtype: jnp.dtype,
  *,
  training: bool,
) -> tuple[Any, Function]:
  """Returns the variables of the plain port and its function; arguments as of `ours`."""
  depths, channels = architecture.depths, architecture.stem_channels
  network = plain_flax.ResNet(depths, channels, inputs.NUM_CLASSES, dtype)
  params = plain_flax.from_checkpoint(arrays)
  if not training:
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
