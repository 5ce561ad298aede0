"""Measures this project's network, or the plain Flax port: a worker, see `workers`.

Needs jax, flax and optax alone.
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
  make = {
    ("ours", "training"): our_training,
    ("ours", "inference"): our_inference,
    ("plain", "training"): plain_training,
    ("plain", "inference"): plain_inference,
  }[spec["implementation"], spec["task"]]
  if spec["implementation"] == "ours" and spec["device"] == "cpu":
    host.keep_freed_memory()  # as the training command does
  dtype = jnp.dtype(spec["dtype"])
  matmul_flops = _matmul_flops(dtype)
  step = make(
    Problem(
      architectures.find(spec["architecture"]),
      inputs.read_checkpoint(pathlib.Path(spec["checkpoint"])),
      dtype,
      jax.device_put(inputs.images(spec["batch"], spec["size"])),
      jax.device_put(inputs.labels(spec["batch"])),
    )
  )
  checked = [np.asarray(step()[0]) for _ in range(2)]  # compiled by the first

  def repeat(count: int) -> int:
    for _ in range(count):
      last = step()
    jax.block_until_ready(last)
    return count * spec["batch"]

  count = workers.steps_for(spec["seconds"], lambda: repeat(1))
  machine.reset_peak_memory()

  info = {"device": jax.default_backend(), "matmul_flops": matmul_flops}
  return workers.Workload(
    lambda: repeat(count), info, _peak_memory, lambda: inputs.compared(checked)
  )


def our_training(problem: Problem) -> Step:
  """Returns our training step: MixUp is in its program, with the factor that changes nothing."""
  momentum = optimizer.sgd(inputs.MOMENTUM)
  model = resnet_v2.ResNetV2(
    problem.architecture, inputs.NUM_CLASSES, problem.dtype, platform=jax.default_backend()
  )
  train = jax.jit(
    functools.partial(steps.train_step, model=model, optimizer=momentum), donate_argnums=0
  )
  state = steps.create_state(_our_params(problem.arrays), momentum)
  state = jax.device_put(state)
  lam, rate = jnp.float32(1), jnp.float32(inputs.LEARNING_RATE)

  def step() -> tuple[jax.Array, Any]:
    nonlocal state
    state, metrics = train(state, problem.images, problem.labels, lam, rate)
    return metrics["loss"], state

  return step


def our_inference(problem: Problem) -> Step:
  """Returns our classification of a batch, kernels standardised ahead."""
  model = resnet_v2.ResNetV2(
    problem.architecture, inputs.NUM_CLASSES, problem.dtype, platform=jax.default_backend()
  )
  standardize = jax.jit(functools.partial(resnet_v2.standardize_params, dtype=problem.dtype))
  variables = standardize(_our_params(problem.arrays))
  predict = jax.jit(lambda variables, images: model.apply(variables, images)[0])
  return lambda: (predict(variables, problem.images), None)


def plain_training(problem: Problem) -> Step:
  """Returns the plain port's training step."""
  network = _plain_network(problem)
  params = jax.device_put(plain_flax.from_checkpoint(problem.arrays))
  state = plain_flax.create_state(network, params, inputs.LEARNING_RATE, inputs.MOMENTUM)
  train = jax.jit(plain_flax.train_step, donate_argnums=0)

  def step() -> tuple[jax.Array, Any]:
    nonlocal state
    state, loss = train(state, problem.images, problem.labels)
    return loss, state

  return step


def plain_inference(problem: Problem) -> Step:
  """Returns the plain port's classification of a batch."""
  network = _plain_network(problem)
  params = jax.device_put(plain_flax.from_checkpoint(problem.arrays))
  predict = jax.jit(network.apply)
  return lambda: (predict({"params": params}, problem.images), None)


def _our_params(arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
  return jax.device_put(flax.traverse_util.unflatten_dict(dict(arrays), sep="/"))


def _plain_network(problem: Problem) -> plain_flax.ResNet:
  network = problem.architecture
  return plain_flax.ResNet(network.depths, network.stem_channels, inputs.NUM_CLASSES, problem.dtype)


def _matmul_flops(dtype: Any) -> float:
  matrix = jnp.ones((machine.MATMUL_SIDE, machine.MATMUL_SIDE), dtype)
  multiply = jax.jit(jnp.matmul)
  return machine.matmul_flops(lambda: multiply(matrix, matrix).block_until_ready())


def _peak_memory() -> int:
  """Returns the peak of the device's memory, or of the process's where the device has no record."""
  stats = jax.local_devices()[0].memory_stats()
  return stats["peak_bytes_in_use"] if stats else machine.peak_memory()


if __name__ == "__main__":
  workers.serve(build)
