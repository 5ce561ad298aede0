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

from bit_jax.models import architectures, resnet_v2
from bit_jax.runtime import machine as host
from bit_jax.training import optimizer, steps
from experiments.benchmarks import inputs, machine, plain_flax, workers

Step = Callable[[], tuple[jax.Array, Any]]  # numbers to compare, and what else it computes


class Problem(NamedTuple):
  """What an implementation is given.

  Attributes:
    architecture: Which network.
    arrays: Its weights, named as `architectures.parameter_shapes`.
    dtype: What convolutions compute in.
    images: [B, H, W, 3] float32.
    labels: [B] int32.
  """

  architecture: architectures.Architecture
  arrays: Mapping[str, np.ndarray]
  dtype: Any
  images: jax.Array
  labels: jax.Array


def build(spec: dict[str, Any]) -> workers.Workload:
  """Returns the workload of a spec (see `comparison.compare`), warmed up."""
  if spec["implementation"] == "ours" and spec["device"] == "cpu":
    host.keep_freed_memory()  # as the training command does
  dtype = jnp.dtype(spec["dtype"])
  matrix = jnp.ones((machine.MATMUL_SIDE, machine.MATMUL_SIDE), dtype)
  multiply = jax.jit(jnp.matmul)
  matmul_flops = machine.matmul_flops(lambda: multiply(matrix, matrix).block_until_ready())
  problem = Problem(
    architectures.find(spec["architecture"]),
    inputs.read_checkpoint(pathlib.Path(spec["checkpoint"])),
    dtype,
    jax.device_put(inputs.images(spec["batch"], spec["size"])),
    jax.device_put(inputs.labels(spec["batch"])),
  )
  step = STEPS[spec["implementation"], spec["task"]](problem)
  checked = inputs.compared([np.asarray(step()[0]) for _ in range(2)])  # the first compiles it
  repeat = workers.repetition(step, jax.block_until_ready, spec["batch"], spec["seconds"])
  machine.reset_peak_memory()
  info = {"device": jax.default_backend(), "matmul_flops": matmul_flops}
  return workers.Workload(repeat, info, _peak_memory, lambda: checked)


def our_training(problem: Problem) -> Step:
  """Returns our training step, MixUp included, with the factor that leaves images unchanged."""
  sgd = optimizer.sgd(inputs.MOMENTUM)
  step_of = functools.partial(steps.train_step, model=_our_network(problem), optimizer=sgd)
  train = jax.jit(step_of, donate_argnums=0)
  state = jax.device_put(steps.create_state(_our_params(problem.arrays), sgd))
  lam, rate = jnp.float32(1), jnp.float32(inputs.LEARNING_RATE)

  def step() -> tuple[jax.Array, Any]:
    nonlocal state
    state, metrics = train(state, problem.images, problem.labels, lam, rate)
    return metrics["loss"], state

  return step


def our_inference(problem: Problem) -> Step:
  """Returns our classification of a batch, with kernels standardised once."""
  standardize = jax.jit(functools.partial(resnet_v2.standardize_params, dtype=problem.dtype))
  variables = standardize(_our_params(problem.arrays))
  model = _our_network(problem)
  predict = jax.jit(lambda variables, images: model.apply(variables, images)[0])
  return lambda: (predict(variables, problem.images), None)


def plain_training(problem: Problem) -> Step:
  """Returns the plain port's training step."""
  params = jax.device_put(plain_flax.from_checkpoint(problem.arrays))
  network = _plain_network(problem)
  state = plain_flax.create_state(network, params, inputs.LEARNING_RATE, inputs.MOMENTUM)
  train = jax.jit(plain_flax.train_step, donate_argnums=0)

  def step() -> tuple[jax.Array, Any]:
    nonlocal state
    state, loss = train(state, problem.images, problem.labels)
    return loss, state

  return step


def plain_inference(problem: Problem) -> Step:
  """Returns the plain port's classification of a batch."""
  params = jax.device_put(plain_flax.from_checkpoint(problem.arrays))
  predict = jax.jit(_plain_network(problem).apply)
  return lambda: (predict({"params": params}, problem.images), None)


STEPS: Mapping[tuple[str, str], Callable[[Problem], Step]] = {
  ("ours", "training"): our_training,
  ("ours", "inference"): our_inference,
  ("plain", "training"): plain_training,
  ("plain", "inference"): plain_inference,
}


def _our_network(problem: Problem) -> resnet_v2.ResNetV2:
  return resnet_v2.ResNetV2(
    problem.architecture, inputs.NUM_CLASSES, problem.dtype, platform=jax.default_backend()
  )


def _our_params(arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
  return jax.device_put(flax.traverse_util.unflatten_dict(dict(arrays), sep="/"))


def _plain_network(problem: Problem) -> plain_flax.ResNet:
  network = problem.architecture
  return plain_flax.ResNet(network.depths, network.stem_channels, inputs.NUM_CLASSES, problem.dtype)


def _peak_memory() -> int:
  """Returns the peak of the device's memory, or of the process's if the device reports none."""
  stats = jax.local_devices()[0].memory_stats()
  return stats["peak_bytes_in_use"] if stats else machine.peak_memory()


if __name__ == "__main__":
  workers.serve(build)
