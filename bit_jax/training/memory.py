"""The memory of a training step, by arithmetic: an upper bound."""

import collections
import dataclasses
from collections.abc import Sequence

import jax.numpy as jnp

from bit_jax.data import order
from bit_jax.models import architectures, resnet_v2
from bit_jax.run_config import RunConfig

MARGIN = 0.9  # the usable part of an accelerator's memory: free memory may be in several pieces
_FLOAT32 = 4  # bytes


@dataclasses.dataclass(frozen=True)
class Need:
  """The memory of a step on a device beside the state: linear in the images of a micro-batch.

  Attributes:
    fixed: Bytes, whatever the micro-batch.
    per_image: Bytes.
  """

  fixed: float
  per_image: float

  def of(self, images: int) -> float:
    """Returns the bytes for micro-batches of so many images."""
    return self.fixed + images * self.per_image

  def largest(self, sizes: Sequence[int], budget: float) -> int | None:
    """Returns the largest of some sizes that fits into so many bytes, or None."""
    return max((m for m in sizes if self.of(m) <= budget), default=None)


@dataclasses.dataclass(frozen=True)
class Task:
  """A training step: what its programs and their memory depend on.

  Attributes:
    model: The network, with its `remat` and the platform it is computed on.
    resize: Side of the square that images are resized to, in pixels.
    crop: Side of its crop, in pixels.
    source: (height, width) of the images that the devices get, in pixels.
    momentum_dtype: Type of the stored velocity, see `optimizer.sgd`.
    momentum: SGD momentum.
  """

  model: resnet_v2.ResNetV2
  resize: int
  crop: int
  source: tuple[int, int]
  momentum_dtype: str = "float32"
  momentum: float = 0.9

  @property
  def on_cpu(self) -> bool:
    """Whether the step is computed on CPU devices, whose compiler needs more memory."""
    return self.model.platform == "cpu"

  @property
  def num_parameters(self) -> int:
    """Parameters of the network, head included."""
    return architectures.num_parameters(self.model.architecture, self.model.num_classes)

  @property
  def state_bytes(self) -> int:
    """Bytes of parameters and velocity on a device."""
    return self.num_parameters * (_FLOAT32 + jnp.dtype(self.momentum_dtype).itemsize)

  @property
  def programs_at_once(self) -> int:
    """Programs that hold memory: on CPU the next one allocates while one is still running."""
    return 2 if self.on_cpu else 1

  def with_remat(self) -> "Task":
    """Returns the task with rematerialisation."""
    return dataclasses.replace(self, model=self.model.clone(remat=True))


def task(config: RunConfig, model: resnet_v2.ResNetV2, image_size: tuple[int, int]) -> Task:
  """Returns the task of a run's training steps.

  Args:
    config: Resolved.
    model: The network.
    image_size: (height, width) of the training images that the devices get.
  """
  c = config
  found = Task(model, c.resize, c.crop, image_size, c.momentum_dtype, c.momentum)
  return found.with_remat() if c.remat is True else found


@dataclasses.dataclass(frozen=True)
class Activations:
  """Numbers of activations of one image, counted from a network's shapes.

  Attributes:
    stem: Outputs of the first convolution.
    normed: Inputs of group norms.
    entering: Inputs of units.
    largest_unit: Inputs of norms and outputs of convolutions in the largest unit.
  """

  stem: int
  normed: int
  entering: int
  largest_unit: int


def activations(architecture: architectures.Architecture, crop: int) -> Activations:
  """Counts the activations of one image of `crop` x `crop` pixels."""
  stem, *body = architectures.convolutions(architecture, crop)
  last = (-(-stem.side_out // 2)) ** 2 * stem.c_out  # output of the max-pool
  normed = entering = 0
  units: collections.Counter[str] = collections.Counter()
  for convolution in body:
    block, unit, part, scope, *_ = convolution.name.split("/")
    inputs = convolution.side_in**2 * convolution.c_in
    outputs = last = convolution.side_out**2 * convolution.c_out
    units[f"{block}/{unit}"] += outputs
    if scope != "proj":  # a projection shares the input of the unit's first norm
      units[f"{block}/{unit}"] += inputs
      normed += inputs
      entering += inputs if part == "a" else 0
  largest_unit = max(units.values(), default=0)
  return Activations(stem.side_out**2 * stem.c_out, normed + last, entering, largest_unit)


def bound(task: Task) -> Need:
  """Returns an upper bound of a step's memory.

  Beside the state there are three float32 copies of the parameters: during the passes, standardised
  variables, sums and a gradient; at the end of the step, sums, their mean over devices and the
  gradient of the parameters. For each image, the backward pass needs the input of each norm and the
  output of its ReLU; with `remat`, only the input of each unit. The pass through the largest unit
  needs its activations and their gradients too.
  """
  count = activations(task.model.architecture, task.crop)
  item = task.model.dtype.itemsize
  if task.on_cpu and item < _FLOAT32:
    item += _FLOAT32  # convolutions of less than float32 copy their input to float32
  if task.model.remat and not task.on_cpu:  # XLA for CPU recomputes nothing
    kept = count.entering * item
    passing = 2 * count.largest_unit * (_FLOAT32 + item)
  else:
    kept = 2 * count.normed * item
    if task.on_cpu:
      kept *= 2  # XLA keeps nearly that in micro-batches of 128 and more
    passing = 2 * count.largest_unit * _FLOAT32
  per_image = kept + passing + 3 * count.stem * item + _image_bytes(task)
  return Need(3 * _FLOAT32 * task.num_parameters, per_image)


def _image_bytes(task: Task) -> int:
  """Returns the bytes of an image before the network: as sent, resized, cropped and mixed."""
  height, width = task.source
  resized = max(task.resize, task.crop) * (width + task.resize)
  return 3 * (2 * height * width + _FLOAT32 * (height * width + resized + 3 * task.crop**2))


def waiting_bytes(task: Task, batch: int) -> int:
  """Returns the bytes of whole batches on a device while micro-batches are computed.

  The batch itself and the next one; on CPU also the three that a stream prefetches.

  Args:
    task: The step.
    batch: Images of a step on each device.
  """
  height, width = task.source
  return (5 if task.on_cpu else 2) * batch * height * width * 3


def evaluation_bound(task: Task) -> Need:
  """Returns an upper bound of an evaluation's memory beside the parameters.

  Args:
    task: Its image sizes are those of test images.
  """
  count = activations(task.model.architecture, task.crop)
  passing = 2 * count.largest_unit + 3 * count.stem
  return Need(_FLOAT32 * task.num_parameters, _FLOAT32 * passing + _image_bytes(task))


def whole_step_bytes(task: Task, batch: int) -> float:
  """Returns an upper bound of the memory of whole steps, beside the state.

  Args:
    task: The step.
    batch: Images of a step on each device.
  """
  return task.programs_at_once * bound(task).of(batch)


def gigabytes(amount: float) -> str:
  """Returns bytes as a text, such as '1.32 GB'."""
  return f"{amount / 1e9:.3g} GB"


def estimate(task: Task, batch: int) -> str:
  """Returns a step's memory as one line.

  Args:
    task: The step.
    batch: Images of a step on each device.
  """
  return (
    f"{gigabytes(task.state_bytes)} for weights and momentum, at most "
    f"{gigabytes(whole_step_bytes(task, batch))} for {batch} images at once on each device "
    f"(estimated), and about 1 GB for the program; microbatch=auto uses smaller micro-batches if "
    f"they don't fit"
  )


def table(task: Task, batch: int, memory: float) -> str:
  """Returns a step's memory on one device as a table.

  Args:
    task: The step.
    batch: Images of a step on the device.
    memory: Bytes of the device.
  """
  count = task.num_parameters
  rows = [
    f"{task.model.architecture.name}, {task.crop} pixels, {batch} images, {task.model.dtype.name}: "
    f"at most (estimated)",
    f"  {'parameters':<48}{gigabytes(_FLOAT32 * count):>10}   {count:,} in float32",
    f"  {'momentum':<48}{gigabytes(task.state_bytes - _FLOAT32 * count):>10}   "
    f"{task.momentum_dtype}",
    f"  {'sums, standardised kernels and gradients':<48}{gigabytes(bound(task).fixed):>10}",
  ]
  budget, sizes = MARGIN * memory - task.state_bytes, order.micro_batch_sizes(batch, mixup=False)
  for name, form in (("", task), (", recomputed (remat)", task.with_remat())):
    need = bound(form)
    if size := need.largest(sizes, budget):
      fit = f"micro-batches of {size}: {gigabytes(task.state_bytes + need.of(size))} in all"
    else:
      fit = f"not even {sizes[0]} fit"
    rows.append(f"  {f'activations of an image{name}':<48}{gigabytes(need.per_image):>10}   {fit}")
  return "\n".join([*rows, f"  of {gigabytes(memory)}, of which a tenth is left free"])
