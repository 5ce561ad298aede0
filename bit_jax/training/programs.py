"""The compiled programs of training, over all devices of all processes.

A step takes its examples from a resident set, by a small program of its own, or from the host. So
runs on sets of any length share the compiled step.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
from clu import metrics as clu_metrics

from bit_jax.data import augmentation, order
from bit_jax.inference import metrics
from bit_jax.inference.programs import Examples
from bit_jax.models import architectures, resnet_v2
from bit_jax.runtime import parallel
from bit_jax.training import memory, optimizer, steps


class StepArguments(NamedTuple):
  """What varies between steps and runs: as arguments, so that all share one compiled program.

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


# (state, which is donated; examples; their positions in the global batch, [devices, b] int32;
# arguments) -> (the new state, the metrics of the whole batch).
Step = Callable[
  [steps.TrainState, Examples, Any, StepArguments],
  tuple[steps.TrainState, clu_metrics.Collection],
]


def parameter_shapes(model: resnet_v2.ResNetV2) -> Any:
  """Returns the parameter tree of a network as shapes, to compile programs without arrays."""
  flat = architectures.parameter_shapes(model.architecture, model.num_classes)
  return flax.traverse_util.unflatten_dict(
    {name: jax.ShapeDtypeStruct(shape, jnp.float32) for name, shape in flat.items()}, sep="/"
  )


def argument_shapes(
  num_devices: int, batch: int, source: tuple[int, int]
) -> tuple[Examples, jax.ShapeDtypeStruct, StepArguments]:
  """Returns the examples, positions and arguments of a step as shapes.

  Args:
    num_devices: Local devices.
    batch: Examples on each device.
    source: (height, width) of the images in pixels.
  """
  rows = (num_devices, batch)
  labels = positions = jax.ShapeDtypeStruct(rows, jnp.int32)
  examples = Examples(jax.ShapeDtypeStruct((*rows, *source, 3), jnp.uint8), labels)
  number, switch = jax.ShapeDtypeStruct((), jnp.float32), jax.ShapeDtypeStruct((), jnp.bool_)
  key = jax.eval_shape(lambda: jax.random.key(0))
  return examples, positions, StepArguments(key, number, number, switch, switch)


def step_shapes(task: memory.Task, num_devices: int, batch: int) -> tuple[Any, ...]:
  """Returns the arguments of a training step as shapes: the state and `argument_shapes`."""
  params = parameter_shapes(task.model)
  opt_state = jax.eval_shape(optimizer.sgd(task.momentum, task.momentum_dtype).init, params)
  state = steps.TrainState(jax.ShapeDtypeStruct((), jnp.int32), params, opt_state)
  return state, *argument_shapes(num_devices, batch, task.source)


@functools.lru_cache  # another run of the same shapes compiles nothing
def train_function(task: memory.Task, devices: Sequence[jax.Device] | None = None) -> Step:
  """Returns the training step over all devices.

  Args:
    task: The step.
    devices: A tuple of those that it is compiled for; default: all of this run.
  """
  collection = metrics.collection(task.model.num_classes)
  sgd = optimizer.sgd(task.momentum, task.momentum_dtype)

  def train(
    state: steps.TrainState, examples: Examples, positions: jax.Array, arguments: StepArguments
  ) -> tuple[steps.TrainState, clu_metrics.Collection]:
    images = _augmented(task, examples.images, state.step, positions, arguments)
    batch = images, examples.labels, arguments.lam, arguments.learning_rate
    state, outputs = steps.train_step(
      state, *batch, model=task.model, optimizer=sgd, axis_name=parallel.AXIS
    )
    return state, collection.gather_from_model_output(axis_name=parallel.AXIS, **outputs)

  return parallel.over_devices(train, (None, 0, 0, None), (None, None), donate=0, devices=devices)


def _augmented(
  task: memory.Task, images: jax.Array, step: jax.Array, positions: jax.Array, how: StepArguments
) -> jax.Array:
  keys = augmentation.example_keys(how.key, step, positions)
  switches = {"flip": how.flip, "random_crop": how.random_crop}
  return augmentation.augment(images, keys, resize=task.resize, crop=task.crop, **switches)


class Sums(NamedTuple):
  """Sums over the micro-batches of a step, on each device separately.

  Attributes:
    gradients: Sum of the micro-batches' mean gradients of the standardised variables, float32.
    metrics: Metrics of all examples so far.
  """

  gradients: Any
  metrics: clu_metrics.Collection


class MicroBatchFunctions(NamedTuple):
  """The programs of a step with gradient accumulation; none depends on the number of micro-batches.

  Attributes:
    begin: (state, [devices] anything) -> (the standardised variables, zero sums).
    take: ((examples, positions), [m] places in a device's batch) -> those of each device.
    accumulate: (variables, sums, examples, positions, step, arguments) -> the sums with a
      micro-batch [devices, m] added; the old sums are donated.
    finish: (state, sums, [] float32 number of micro-batches, arguments) -> (the new state, the
      metrics of the whole batch); the old state is donated.
  """

  begin: Callable[..., tuple[Any, Sums]]
  take: Callable[..., tuple[Examples, jax.Array]]
  accumulate: Callable[..., Sums]
  finish: Callable[..., tuple[steps.TrainState, clu_metrics.Collection]]


@functools.lru_cache
def micro_batch_functions(
  task: memory.Task, devices: Sequence[jax.Device] | None = None
) -> MicroBatchFunctions:
  """Returns the programs of a step with gradient accumulation, over all devices.

  Gradients of the standardised kernels are summed on each device without communication; the end of
  the step averages them over devices and computes the gradients of the parameters. The loop over
  micro-batches is in Python: in a loop of XLA's, convolutions lose their threads on CPU.

  Args:
    task: The step.
    devices: A tuple of those that they are compiled for; default: all of this run.
  """
  model, collection = task.model, metrics.collection(task.model.num_classes)
  sgd = optimizer.sgd(task.momentum, task.momentum_dtype)

  def begin(state: steps.TrainState, _: Any) -> tuple[Any, Sums]:
    variables = resnet_v2.standardize_params(state.params, model.dtype)
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, jnp.float32), variables)
    return variables, Sums(zeros, collection.empty())

  def take(batch: Any, places: jax.Array) -> Any:
    return jax.tree.map(lambda x: x[places], batch)

  def accumulate(
    variables: Any,
    sums: Sums,
    examples: Examples,
    positions: jax.Array,
    step: jax.Array,
    arguments: StepArguments,
  ) -> Sums:
    images = _augmented(task, examples.images, step, positions, arguments)
    gradients, outputs = steps.micro_batch_gradients(
      variables, images, examples.labels, arguments.lam, model=model
    )
    gradients = jax.tree.map(lambda total, g: total + g, sums.gradients, gradients)
    return Sums(gradients, sums.metrics.merge(collection.single_from_model_output(**outputs)))

  def finish(
    state: steps.TrainState, sums: Sums, count: jax.Array, arguments: StepArguments
  ) -> tuple[steps.TrainState, clu_metrics.Collection]:
    gradients = jax.tree.map(lambda total: total / count, sums.gradients)
    state = steps.update(
      state, gradients, arguments.learning_rate, optimizer=sgd, axis_name=parallel.AXIS
    )
    return state, jax.lax.all_gather(sums.metrics, parallel.AXIS).reduce()

  compiled = functools.partial(parallel.over_devices, devices=devices)
  return MicroBatchFunctions(
    compiled(begin, (None, 0), (None, 0)),
    compiled(take, (0, None)),
    compiled(accumulate, (None, 0, 0, 0, None, None), donate=1),
    compiled(finish, (None, 0, None, None), (None, None), donate=0),
  )


def train_in_micro_batches(
  task: memory.Task,
  size: int,
  part_done: Callable[[int, int], object] = lambda done, parts: None,
) -> Step:
  """Returns a training step that equals `train_function`'s, up to rounding, in less memory.

  Args:
    task: The step.
    size: Examples of a micro-batch on each device, one of `order.micro_batch_sizes`.
    part_done: Called before each micro-batch but the first, with the number of micro-batches that
      were sent (on CPU: computed) and their number in the step. If it raises, the state is intact.
  """
  functions = micro_batch_functions(task)
  # On CPU a program allocates its memory when it is sent, not when it runs.
  wait = jax.block_until_ready if task.on_cpu else lambda _: None

  def train(
    state: steps.TrainState, examples: Examples, positions: Any, arguments: StepArguments
  ) -> tuple[steps.TrainState, clu_metrics.Collection]:
    num_devices, batch = positions.shape
    wait(state)
    variables, sums = functions.begin(state, np.zeros(num_devices))
    parts = order.micro_batches(batch, size).astype(np.int32)
    for done, places in enumerate(parts):
      part = functions.take((examples, positions), places)
      wait(sums)
      if done:
        part_done(done, len(parts))
      sums = functions.accumulate(variables, sums, *part, state.step, arguments)
    del variables, part  # frees their memory
    return functions.finish(state, sums, np.float32(len(parts)), arguments)

  return train
