"""Training and evaluation steps over all devices of all processes; the one module that calls pmap.

The sets lie on every device, decoded, at their native size; a step sends indices into them.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from clu import metrics as clu_metrics

from bit_jax import errors, metrics, models, optimizer, steps
from bit_jax.data import device, order

_AXIS = "devices"
_RESIDENT_SHARE = 0.4  # of a device's memory that a set may take


class Resident(NamedTuple):
  """A set of examples on the devices.

  Attributes:
    images: [N, h, w, 3] uint8.
    labels: [N] int32.
  """

  images: Any
  labels: Any


class Share(NamedTuple):
  """Which examples of a step each device of this process takes.

  Attributes:
    indices: [devices, b] int32 into the set.
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


@functools.lru_cache  # another run of the same shapes compiles nothing
def train_function(
  model: models.ResNetV2, momentum: float, resize: int, crop: int
) -> Callable[
  [steps.TrainState, Resident, Share, StepArguments],
  tuple[steps.TrainState, clu_metrics.Collection],
]:
  """Returns the training step over all devices.

  It takes the state (which it gives up), the training set, the shares and the arguments, and
  returns the new state and the metrics of the whole batch.

  Args:
    model: The network.
    momentum: Of SGD.
    resize: Side of the square that images are resized to, in pixels.
    crop: Side of the crop of it, in pixels.
  """
  collection = metrics.collection(model.num_classes)
  sgd = optimizer.sgd(momentum)

  def train(
    state: steps.TrainState, examples: Resident, share: Share, arguments: StepArguments
  ) -> tuple[steps.TrainState, clu_metrics.Collection]:
    images = device.augment(
      examples.images[share.indices],
      device.example_keys(arguments.key, state.step, share.positions),
      resize=resize,
      crop=crop,
      flip=arguments.flip,
      random_crop=arguments.random_crop,
    )
    state, outputs = steps.train_step(
      state,
      images,
      examples.labels[share.indices],
      arguments.lam,
      arguments.learning_rate,
      model=model,
      optimizer=sgd,
      axis_name=_AXIS,
    )
    return state, collection.gather_from_model_output(axis_name=_AXIS, **outputs)

  in_axes = (None, None, 0, None)
  return jax.pmap(train, _AXIS, in_axes=in_axes, out_axes=(None, None), donate_argnums=0)


@functools.lru_cache
def eval_function(
  model: models.ResNetV2, size: int
) -> Callable[[Any, Resident, np.ndarray, np.ndarray], tuple[clu_metrics.Collection, jax.Array]]:
  """Returns the evaluation step over all devices.

  It takes parameters, the set, indices and mask (each [devices, b], this process's share), and
  returns the metrics of all unmasked examples and the predictions of all devices of all processes,
  [all devices, b] int32.

  Args:
    model: The network.
    size: Side of the square that images are resized to, in pixels.
  """
  collection = metrics.collection(model.num_classes)

  def evaluate(
    params: Any, examples: Resident, indices: jax.Array, mask: jax.Array
  ) -> tuple[clu_metrics.Collection, jax.Array]:
    images = device.prepare_eval(examples.images[indices], size)
    outputs = steps.eval_step(params, images, examples.labels[indices], model=model)
    predictions = outputs.pop("prediction")
    parts = collection.gather_from_model_output(axis_name=_AXIS, mask=mask, **outputs)
    return parts, jax.lax.all_gather(predictions, _AXIS)

  return jax.pmap(evaluate, _AXIS, in_axes=(None, None, 0, 0), out_axes=(None, None))


def evaluate(
  model: models.ResNetV2, size: int, params: Any, examples: Resident, batch_size: int
) -> tuple[dict[str, float], np.ndarray]:
  """Evaluates every example once.

  Args:
    model: The network.
    size: Side of the square that images are resized to, in pixels.
    params: Parameter tree, replicated.
    examples: Replicated.
    batch_size: Images in a step over all devices; of no consequence for the result.

  Returns:
    The means of the metrics, and [N] int32 predictions.
  """
  step = eval_function(model, size)
  predictions = np.zeros(len(examples.labels), np.int32)
  parts, pending = [], []
  for indices, mask in order.eval_batches(len(predictions), batch_size, jax.device_count()):
    part, predicted = step(params, examples, local_rows(indices).astype(np.int32), local_rows(mask))
    parts.append(part)
    pending.append((indices[mask], mask, predicted))
  for rows, mask, predicted in pending:
    predictions[rows] = np.asarray(predicted)[mask]
  return metrics.merge(parts), predictions


def place(images: np.ndarray, labels: np.ndarray) -> Resident:
  """Places a set of examples on every device.

  Raises:
    UserError: It would take most of a device's memory.
  """
  memory = jax.local_devices()[0].memory_stats() or {}  # a CPU tells nothing
  limit = memory.get("bytes_limit")
  if limit and images.nbytes > _RESIDENT_SHARE * limit:
    raise errors.UserError(
      f"The set's images take {images.nbytes / 1e9:.1f} GB, too much for a device of "
      f"{limit / 1e9:.1f} GB that must hold them besides the network: use fewer images (shots) or "
      f"smaller ones."
    )
  return replicate(Resident(images, labels))
