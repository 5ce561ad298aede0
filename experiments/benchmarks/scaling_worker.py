"""A training step on forced CPU devices, or the evaluation of a set: a worker, see `workers`."""

import functools
from collections.abc import Callable
from typing import Any

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np

from bit_jax.data import loading
from bit_jax.data.sources import arrays
from bit_jax.models import architectures, resnet_v2
from bit_jax.runtime import parallel
from bit_jax.training import feeds, optimizer, steps
from experiments.benchmarks import inputs, workers


def build(spec: dict[str, Any]) -> workers.Workload:
  """Returns the workload of a spec (see `scaling.Axis`), warmed up; an item is a step or a set."""
  name, depths, width = spec["architecture"]
  architecture = architectures.Architecture(name, tuple(depths), width)
  once = {"training": _training, "evaluation": _evaluation}[spec["task"]](architecture, spec)
  once()

  def repeat(count: int) -> int:
    for _ in range(count):
      once()
    return count

  count = workers.steps_for(spec["seconds"], lambda: repeat(1))
  return workers.Workload(lambda: repeat(count), {"devices": jax.local_device_count()})


def _training(
  architecture: architectures.Architecture, spec: dict[str, Any]
) -> Callable[[], object]:
  """Returns a training step with `batch` images on each device; it waits for its end."""
  model = resnet_v2.ResNetV2(architecture, inputs.NUM_CLASSES, platform=jax.default_backend())
  sgd = optimizer.sgd(inputs.MOMENTUM)
  devices, batch, size = jax.local_device_count(), spec["batch"], spec["size"]
  images = inputs.images(devices * batch, size).reshape(devices, batch, size, size, 3)
  labels = inputs.labels(devices * batch).reshape(devices, batch)
  train = jax.pmap(
    functools.partial(steps.train_step, model=model, optimizer=sgd, axis_name="devices"),
    "devices",
    in_axes=(0, 0, 0, None, None),
    donate_argnums=0,
  )
  state = steps.create_state(_params(architecture), sgd)
  state = jax.tree.map(lambda x: np.stack([np.asarray(x)] * devices), state)

  def once() -> None:
    nonlocal state
    state, metrics = train(state, images, labels, jnp.float32(1), jnp.float32(0.003))
    jax.block_until_ready((state, metrics))

  return once


def _evaluation(
  architecture: architectures.Architecture, spec: dict[str, Any]
) -> Callable[[], object]:
  """Returns the evaluation of a set of `examples` images that lies on the devices."""
  model = resnet_v2.ResNetV2(architecture, inputs.NUM_CLASSES, platform=jax.default_backend())
  count, size = spec["examples"], spec["size"]
  images = np.zeros((count, size, size, 3), np.uint8)
  labels = inputs.labels(count)
  names = tuple(map(str, range(inputs.NUM_CLASSES)))
  examples = arrays.Examples(images, labels, names)
  feed = feeds.Feed(loading.Part(examples, None, names, examples, labels))
  params = parallel.replicate(_params(architecture))
  return lambda: feed.evaluate(model, size, params, spec["batch"])


def _params(architecture: architectures.Architecture) -> dict[str, Any]:
  return flax.traverse_util.unflatten_dict(dict(inputs.parameters(architecture)), sep="/")


if __name__ == "__main__":
  workers.serve(build)
