"""Training and evaluation steps over all devices of all processes; the one module that calls pmap.

A step takes its own examples, whichever way they came: gathered from a set that lies decoded on
every device, by a small program of its own, or sent from the host. So runs on sets of any length
share the compiled step.
"""

import functools
import platform
import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from clu import metrics as clu_metrics
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from bit_jax.data import augmentation, order
from bit_jax.models import resnet_v2
from bit_jax.runtime import free_memory
from bit_jax.training import metrics, optimizer, steps

_AXIS = "devices"


class Examples(NamedTuple):
  """The examples of a step.

  Attributes:
    images: [devices, b, h, w, 3] uint8.
    labels: [devices, b] int32.
  """

  images: Any
  labels: Any


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


# (state, which it gives up; examples; their places in the global batch, [devices, b] int32;
# arguments) -> (the new state, the metrics of the whole batch).
Step = Callable[
  [steps.TrainState, Examples, Any, StepArguments],
  tuple[steps.TrainState, clu_metrics.Collection],
]


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
  """Places host arrays on every device of this process, sharded as a step returns its state.

  The device's default sharding is another one, for which the step would be compiled a second time.
  """
  # Where the device is the CPU it may go on using the host's array, which XLA then doesn't
  # overwrite: a step that is given it for good takes memory of its own.
  return jax.device_put(tree, _sharding(PartitionSpec()))


def send(tree: Any) -> Any:
  """Sends host arrays [devices, ...] to the devices of this process, a row to each."""
  return jax.device_put(tree, _sharding(PartitionSpec(_AXIS)))


def _sharding(spec: PartitionSpec) -> NamedSharding:
  return NamedSharding(Mesh(np.array(jax.local_devices()), (_AXIS,)), spec)


class ResidentSet:
  """A set of examples that lies on every device."""

  def __init__(self, images: np.ndarray, labels: np.ndarray):
    """Places the set: [N, h, w, 3] uint8 and [N] int32."""
    self._images, self._labels = replicate((images, labels))

  def take(self, indices: np.ndarray) -> Examples:
    """Returns the examples at `indices`: [devices, b] integer."""
    return _take(self._images, self._labels, send(indices.astype(np.int32)))


@functools.partial(jax.pmap, axis_name=_AXIS, in_axes=(None, None, 0))
def _take(images: jax.Array, labels: jax.Array, indices: jax.Array) -> Examples:
  return Examples(images[indices], labels[indices])


@functools.partial(
  jax.pmap, axis_name=_AXIS, in_axes=(None, 0), out_axes=None, static_broadcasted_argnums=2
)
def _standardize(params: Any, _: jax.Array, dtype: Any) -> Any:
  return resnet_v2.standardize_params(params, dtype)


def standardize(params: Any, dtype: Any) -> dict[str, Any]:
  """Returns `models.standardize_params` of replicated parameters, replicated alike."""
  standardized: dict[str, Any] = _standardize(params, np.zeros(jax.local_device_count()), dtype)
  return standardized


@functools.lru_cache  # another run of the same shapes compiles nothing
def train_function(
  model: resnet_v2.ResNetV2,
  momentum: float,
  resize: int,
  crop: int,
  momentum_dtype: str = "float32",
) -> Step:
  """Returns the training step over all devices.

  It takes the state (which it gives up), the examples, their places in the global batch ([devices,
  b] int32) and the arguments, and returns the new state and the metrics of the whole batch.

  Args:
    model: The network.
    momentum: Of SGD.
    resize: Side of the square that images are resized to, in pixels.
    crop: Side of the crop of it, in pixels.
    momentum_dtype: What the velocity is kept in between steps, see `optimizer.sgd`.
  """
  collection = metrics.collection(model.num_classes)
  sgd = optimizer.sgd(momentum, momentum_dtype)

  def train(
    state: steps.TrainState, examples: Examples, positions: jax.Array, arguments: StepArguments
  ) -> tuple[steps.TrainState, clu_metrics.Collection]:
    images = _augmented(examples.images, state.step, positions, arguments, resize, crop)
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

  return jax.pmap(train, _AXIS, in_axes=(None, 0, 0, None), out_axes=(None, None), donate_argnums=0)


def _augmented(
  images: jax.Array,
  step: jax.Array,
  positions: jax.Array,
  arguments: StepArguments,
  resize: int,
  crop: int,
) -> jax.Array:
  return augmentation.augment(
    images,
    augmentation.example_keys(arguments.key, step, positions),
    resize=resize,
    crop=crop,
    flip=arguments.flip,
    random_crop=arguments.random_crop,
  )


def train_in_micro_batches(
  functions: "MicroBatchFunctions",
  size: int,
  part_done: Callable[[int, int], object] = lambda done, parts: None,
) -> Step:
  """Returns a training step that is, up to rounding, the one of `train_function`, in less memory.

  Args:
    functions: From `micro_batch_functions`.
    size: Examples of a micro-batch on each device, one of `order.micro_batch_sizes`.
    part_done: Called before each micro-batch but the first with the number of those that were sent
      (on CPU: computed) and of all in the step. What it raises leaves the state as it was.
  """

  def train(
    state: steps.TrainState, examples: Examples, positions: Any, arguments: StepArguments
  ) -> tuple[steps.TrainState, clu_metrics.Collection]:
    num_devices, batch = positions.shape
    # On CPU a program takes its memory when it is sent, not when it runs.
    wait = jax.block_until_ready if jax.default_backend() == "cpu" else lambda _: None
    wait(state)
    variables, sums = functions.begin(state, np.zeros(num_devices))
    parts = order.micro_batches(batch, size).astype(np.int32)
    for done, places in enumerate(parts):
      part = functions.take((examples, positions), places)
      wait(sums)
      if done:
        part_done(done, len(parts))
      sums = functions.accumulate(variables, sums, *part, state.step, arguments)
    del variables, part  # whose memory is wanted
    return functions.finish(state, sums, np.float32(len(parts)), arguments)

  return train


class Sums(NamedTuple):
  """What the micro-batches of a step add up to, on each device by itself.

  Attributes:
    gradients: Of the standardised variables, float32; a micro-batch counts with its mean.
    metrics: Of all examples so far.
  """

  gradients: Any
  metrics: clu_metrics.Collection


class MicroBatchFunctions(NamedTuple):
  """The programs of a step in parts; none depends on how many parts there are.

  Attributes:
    begin: (state, [devices] anything) -> (the standardised variables, sums of nothing).
    take: ((examples, positions), [m] places in a device's share) -> those of each device.
    accumulate: (variables, sums, examples, positions, step, arguments) -> the sums with a
      micro-batch [devices, m] added; they are given up.
    finish: (state, sums, [] float32 number of micro-batches, arguments) -> (the new state, the
      metrics of the whole batch); the state is given up.
  """

  begin: Callable[..., tuple[Any, Sums]]
  take: Callable[..., tuple[Examples, jax.Array]]
  accumulate: Callable[..., Sums]
  finish: Callable[..., tuple[steps.TrainState, clu_metrics.Collection]]


@functools.lru_cache
def micro_batch_functions(
  model: resnet_v2.ResNetV2,
  momentum: float,
  resize: int,
  crop: int,
  momentum_dtype: str = "float32",
) -> MicroBatchFunctions:
  """Returns the programs of a step in micro-batches, over all devices.

  Gradients are taken of the standardised kernels and added up without a word between devices; what
  they say of the parameters is worked out once, at the end. The loop over micro-batches is one of
  Python: within a loop of XLA's, convolutions lose their threads on CPU.

  Args are those of `train_function`.
  """
  collection = metrics.collection(model.num_classes)
  sgd = optimizer.sgd(momentum, momentum_dtype)

  def begin(state: steps.TrainState, _: Any) -> tuple[Any, Sums]:
    variables = resnet_v2.standardize_params(state.params, model.dtype)
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, jnp.float32), variables)
    return variables, Sums(zeros, collection.empty())

  def take(share: tuple[Examples, jax.Array], places: jax.Array) -> tuple[Examples, jax.Array]:
    return jax.tree.map(lambda x: x[places], share)

  def accumulate(
    variables: Any,
    sums: Sums,
    examples: Examples,
    positions: jax.Array,
    step: jax.Array,
    arguments: StepArguments,
  ) -> Sums:
    images = _augmented(examples.images, step, positions, arguments, resize, crop)
    gradients, outputs = steps.micro_batch_gradients(
      variables, images, examples.labels, arguments.lam, model=model
    )
    gradients = jax.tree.map(lambda total, g: total + g, sums.gradients, gradients)
    return Sums(gradients, sums.metrics.merge(collection.single_from_model_output(**outputs)))

  def finish(
    state: steps.TrainState, sums: Sums, count: jax.Array, arguments: StepArguments
  ) -> tuple[steps.TrainState, clu_metrics.Collection]:
    gradients = jax.tree.map(lambda total: total / count, sums.gradients)
    state = steps.update(state, gradients, arguments.learning_rate, optimizer=sgd, axis_name=_AXIS)
    return state, jax.lax.all_gather(sums.metrics, _AXIS).reduce()

  return MicroBatchFunctions(
    jax.pmap(begin, _AXIS, in_axes=(None, 0), out_axes=(None, 0)),
    jax.pmap(take, _AXIS, in_axes=(0, None)),
    jax.pmap(accumulate, _AXIS, in_axes=(None, 0, 0, 0, None, None), donate_argnums=1),
    jax.pmap(finish, _AXIS, in_axes=(None, 0, None, None), out_axes=(None, None), donate_argnums=0),
  )


@functools.lru_cache
def eval_function(
  model: resnet_v2.ResNetV2, size: int
) -> Callable[[Any, Examples, Any], tuple[clu_metrics.Collection, tuple[Any, Any]]]:
  """Returns the evaluation step over all devices.

  It takes variables (from `standardize`), the examples, and their mask ([devices, b]; False where
  they are padding), and returns the metrics of all unmasked examples, and the predictions and
  labels of all devices of all processes, [all devices, b] int32 each.

  Args:
    model: The network.
    size: Side of the square that images are resized to, in pixels.
  """
  collection = metrics.collection(model.num_classes)

  def evaluate(
    variables: Any, examples: Examples, mask: jax.Array
  ) -> tuple[clu_metrics.Collection, tuple[jax.Array, jax.Array]]:
    images = augmentation.prepare_eval(examples.images, size)
    outputs = steps.eval_step(variables, images, examples.labels, model=model)
    predictions = outputs.pop("prediction")
    parts = collection.gather_from_model_output(axis_name=_AXIS, mask=mask, **outputs)
    return parts, jax.lax.all_gather((predictions, examples.labels), _AXIS)

  return jax.pmap(evaluate, _AXIS, in_axes=(None, 0, 0), out_axes=(None, None))


def device_memory() -> float:
  """Returns the bytes that a set may take on each device, and on the host, which keeps a copy.

  The CPU devices of a process share the machine's memory with the host.
  """
  host = host_memory()
  if memory := accelerator_memory():
    return min(memory[0], host)
  return host / (jax.local_device_count() + 1)


def accelerator_memory() -> tuple[int, int] | None:
  """Returns the bytes that there are and those in use on the local device with the least left.

  None on CPU.
  """
  known = [stats for device in jax.local_devices() if (stats := device.memory_stats())]
  sizes = [(s["bytes_limit"], s.get("bytes_in_use", 0)) for s in known if s.get("bytes_limit")]
  return min(sizes, key=lambda size: size[0] - size[1], default=None)


def host_memory() -> float:
  """Returns the bytes of main memory that this process may still take.

  What is free is shared with the run's other processes on this machine; all processes of the run
  must call this together.
  """
  free = free_memory.available()
  if jax.process_count() == 1:
    return free
  host = np.uint32(zlib.crc32(platform.node().encode()))
  return free / int((multihost_utils.process_allgather(host) == host).sum())
