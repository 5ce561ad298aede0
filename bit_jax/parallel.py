"""Training and evaluation steps over all devices of all processes; the one module that calls pmap.

A resident set lies on every device, decoded, and a step sends indices into it. Of a streamed one, a
step sends each device its images.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import psutil
from clu import metrics as clu_metrics

from bit_jax import metrics, models, optimizer, steps
from bit_jax.data import device

_AXIS = "devices"


class Examples(NamedTuple):
  """What the examples of a step are taken from.

  Attributes:
    images: [N, h, w, 3] uint8, the whole resident set; streamed: [devices, b, h, w, 3].
    labels: [N] int32; streamed: [devices, b].
  """

  images: Any
  labels: Any


class Share(NamedTuple):
  """Which examples of a step each device of this process takes.

  Attributes:
    indices: [devices, b] int32 into a resident set; None where the examples are streamed.
    positions: [devices, b] int32: their places in the global batch.
  """

  indices: Any
  positions: Any


class StepArguments(NamedTuple):
  """What else a step is told; arguments, so that no choice of them compiles a program of its own.

  Attributes:
    key: [] typed PRNG key of the run, for crops and flips.
    lam: [] float32 MixUp factor.
    learning_rate: [] float32.
    flip: [] bool: mirror images at random.
    random_crop: [] bool: crop images at random.
  """

  key: Any
  lam: Any
  learning_rate: Any
  flip: Any
  random_crop: Any


def compute_dtype(name: str) -> Any:
  """Returns the dtype of a config's 'auto', 'float32' or 'bfloat16' on this machine."""
  if name == "auto":
    name = "float32" if jax.default_backend() == "cpu" else "bfloat16"
  return jnp.dtype(name)


def local_rows(rows: np.ndarray) -> np.ndarray:
  """Returns this process's share of an array [all devices, ...]: [devices, ...]."""
  first = jax.process_index() * jax.local_device_count()
  return rows[first : first + jax.local_device_count()]


def replicate(tree: Any) -> Any:
  """Places host arrays on every device as a pmapped step returns its state.

  A plain transfer would have another sharding, and the step would be compiled a second time.
  """
  place = jax.pmap(lambda t, _: t, _AXIS, in_axes=(None, 0), out_axes=None)
  return place(tree, np.zeros(jax.local_device_count()))


def _taken(examples: Examples, indices: Any) -> Examples:
  """Returns the examples of one device: those at its indices, or, without any, all it was sent."""
  if indices is None:
    return examples
  return Examples(examples.images[indices], examples.labels[indices])


@functools.lru_cache  # another run of the same shapes compiles nothing
def train_function(
  model: models.ResNetV2, momentum: float, resize: int, crop: int, streamed: bool = False
) -> Callable[
  [steps.TrainState, Examples, Share, StepArguments],
  tuple[steps.TrainState, clu_metrics.Collection],
]:
  """Returns the training step over all devices.

  It takes the state (which it gives up), the examples, the shares and the arguments, and returns
  the new state and the metrics of the whole batch.

  Args:
    model: The network.
    momentum: Of SGD.
    resize: Side of the square that images are resized to, in pixels.
    crop: Side of the crop of it, in pixels.
    streamed: Whether the examples are those of the step alone.
  """
  collection = metrics.collection(model.num_classes)
  sgd = optimizer.sgd(momentum)

  def train(
    state: steps.TrainState, examples: Examples, share: Share, arguments: StepArguments
  ) -> tuple[steps.TrainState, clu_metrics.Collection]:
    examples = _taken(examples, share.indices)
    images = device.augment(
      examples.images,
      device.example_keys(arguments.key, state.step, share.positions),
      resize=resize,
      crop=crop,
      flip=arguments.flip,
      random_crop=arguments.random_crop,
    )
    state, outputs = steps.train_step(
      state,
      images,
      examples.labels,
      arguments.lam,
      arguments.learning_rate,
      model=model,
      optimizer=sgd,
      axis_name=_AXIS,
    )
    return state, collection.gather_from_model_output(axis_name=_AXIS, **outputs)

  in_axes = (None, 0 if streamed else None, 0, None)
  return jax.pmap(train, _AXIS, in_axes=in_axes, out_axes=(None, None), donate_argnums=0)


@functools.lru_cache
def eval_function(
  model: models.ResNetV2, size: int, streamed: bool = False
) -> Callable[[Any, Examples, Any, np.ndarray], tuple[clu_metrics.Collection, tuple[Any, Any]]]:
  """Returns the evaluation step over all devices.

  It takes parameters, the examples, indices (None where they are streamed) and mask (each
  [devices, b], this process's share), and returns the metrics of all unmasked examples, and the
  predictions and labels of all devices of all processes, [all devices, b] int32 each.

  Args:
    model: The network.
    size: Side of the square that images are resized to, in pixels.
    streamed: Whether the examples are those of the step alone.
  """
  collection = metrics.collection(model.num_classes)

  def evaluate(
    params: Any, examples: Examples, indices: Any, mask: jax.Array
  ) -> tuple[clu_metrics.Collection, tuple[jax.Array, jax.Array]]:
    examples = _taken(examples, indices)
    images = device.prepare_eval(examples.images, size)
    outputs = steps.eval_step(params, images, examples.labels, model=model)
    predictions = outputs.pop("prediction")
    parts = collection.gather_from_model_output(axis_name=_AXIS, mask=mask, **outputs)
    return parts, jax.lax.all_gather((predictions, examples.labels), _AXIS)

  in_axes = (None, 0 if streamed else None, 0, 0)
  return jax.pmap(evaluate, _AXIS, in_axes=in_axes, out_axes=(None, None))


def place(images: np.ndarray, labels: np.ndarray) -> Examples:
  """Places a set of examples on every device."""
  return replicate(Examples(images, labels))


def device_memory() -> float:
  """Returns the bytes that a set may take on each device, and on the host, which keeps a copy.

  The CPU devices of a process share the machine's memory with the host.
  """
  host = psutil.virtual_memory().available
  memory = jax.local_devices()[0].memory_stats() or {}  # a CPU tells nothing
  if limit := memory.get("bytes_limit"):
    return float(min(limit, host))
  return host / (jax.local_device_count() + 1)
