"""Measures this project's network, or the plain Flax port: a worker, see `workers`.

Needs jax, flax and optax alone.
"""

import functools
import pathlib
import time
from collections.abc import Callable, Mapping
from typing import Any

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np

from bit_jax import allocator, architectures, models, optimizer, steps
from experiments.benchmarks import inputs, machine, plain_flax, workers

Step = Callable[[], tuple[jax.Array, Any]]  # numbers to compare, and what else it computes

_SIDE = 2048  # of the matrices whose product shows what the CPU can do
_TRIES = 5


def build(spec: dict[str, Any]) -> workers.Workload:
  """Returns the workload of a spec (see `comparison.compare`), warmed up."""
  make = {
    ("ours", "training"): our_training,
    ("ours", "inference"): our_inference,
    ("plain", "training"): plain_training,
    ("plain", "inference"): plain_inference,
  }[spec["implementation"], spec["task"]]
  if spec["implementation"] == "ours" and spec["device"] == "cpu":
    allocator.keep_freed()  # as the training command does
  dtype = jnp.dtype(spec["dtype"])
  matmul_flops = _matmul_flops(dtype)
  step = make(
    architectures.find(spec["architecture"]),
    inputs.read_checkpoint(pathlib.Path(spec["checkpoint"])),
    dtype,
    jax.device_put(inputs.images(spec["batch"], spec["size"])),
    jax.device_put(inputs.labels(spec["batch"])),
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


def our_training(
  architecture: architectures.Architecture,
  arrays: Mapping[str, np.ndarray],
  dtype: Any,
  images: jax.Array,
  labels: jax.Array,
) -> Step:
  """Returns our training step, with MixUp in its program and the factor that leaves images alone.

  Args:
    architecture: Which network.
    arrays: Its weights, named as `architectures.parameter_shapes`.
    dtype: What convolutions compute in.
    images: [B, H, W, 3] float32.
    labels: [B] int32.
  """
  momentum = optimizer.sgd(inputs.MOMENTUM)
  model = models.ResNetV2(architecture, inputs.NUM_CLASSES, dtype)
  train = jax.jit(
    functools.partial(steps.train_step, model=model, optimizer=momentum), donate_argnums=0
  )
  state = steps.create_state(_our_params(arrays), momentum)
  state = jax.device_put(state)
  lam, rate = jnp.float32(1), jnp.float32(inputs.LEARNING_RATE)

  def step() -> tuple[jax.Array, Any]:
    nonlocal state
    state, metrics = train(state, images, labels, lam, rate)
    return metrics["loss"], state

  return step


def our_inference(
  architecture: architectures.Architecture,
  arrays: Mapping[str, np.ndarray],
  dtype: Any,
  images: jax.Array,
  labels: jax.Array,
) -> Step:
  """Returns our classification of a batch, kernels standardised ahead; arguments as above."""
  del labels
  model = models.ResNetV2(architecture, inputs.NUM_CLASSES, dtype)
  standardize = jax.jit(functools.partial(models.standardize_params, dtype=dtype))
  variables = standardize(_our_params(arrays))
  predict = jax.jit(lambda variables, images: model.apply(variables, images)[0])
  return lambda: (predict(variables, images), None)


def plain_training(
  architecture: architectures.Architecture,
  arrays: Mapping[str, np.ndarray],
  dtype: Any,
  images: jax.Array,
  labels: jax.Array,
) -> Step:
  """Returns the plain port's training step; arguments as above."""
  network = _plain_network(architecture, dtype)
  params = jax.device_put(plain_flax.from_checkpoint(arrays))
  state = plain_flax.create_state(network, params, inputs.LEARNING_RATE, inputs.MOMENTUM)
  train = jax.jit(plain_flax.train_step, donate_argnums=0)

  def step() -> tuple[jax.Array, Any]:
    nonlocal state
    state, loss = train(state, images, labels)
    return loss, state

  return step


def plain_inference(
  architecture: architectures.Architecture,
  arrays: Mapping[str, np.ndarray],
  dtype: Any,
  images: jax.Array,
  labels: jax.Array,
) -> Step:
  """Returns the plain port's classification of a batch; arguments as above."""
  del labels
  network = _plain_network(architecture, dtype)
  params = jax.device_put(plain_flax.from_checkpoint(arrays))
  predict = jax.jit(network.apply)
  return lambda: (predict({"params": params}, images), None)


def _our_params(arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
  return jax.device_put(flax.traverse_util.unflatten_dict(dict(arrays), sep="/"))


def _plain_network(architecture: architectures.Architecture, dtype: Any) -> plain_flax.ResNet:
  return plain_flax.ResNet(
    architecture.depths, architecture.stem_channels, inputs.NUM_CLASSES, dtype
  )


def _matmul_flops(dtype: Any) -> float:
  """Returns the FLOP/s of the best of some large matrix products."""
  matrix = jnp.ones((_SIDE, _SIDE), dtype)
  multiply = jax.jit(jnp.matmul)
  multiply(matrix, matrix).block_until_ready()
  times = []
  for _ in range(_TRIES):
    start = time.perf_counter()
    multiply(matrix, matrix).block_until_ready()
    times.append(time.perf_counter() - start)
  return 2 * _SIDE**3 / min(times)


def _peak_memory() -> int:
  """Returns the peak of the device's memory, or of the process's where the device has no record."""
  stats = jax.local_devices()[0].memory_stats()
  return stats["peak_bytes_in_use"] if stats else machine.peak_memory()


if __name__ == "__main__":
  workers.serve(build)
