"""The memory of a training step, by arithmetic: an upper bound."""

import dataclasses

import jax.numpy as jnp

from bit_jax.data import order
from bit_jax.inference import footprint
from bit_jax.inference.footprint import FLOAT32, Activations, Need, gigabytes
from bit_jax.models import architectures, resnet_v2
from bit_jax.run_config import RunConfig


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
    return self.num_parameters * (FLOAT32 + jnp.dtype(self.momentum_dtype).itemsize)

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


def bound(task: Task) -> Need:
  """Returns an upper bound of a step's memory beside the state, as XLA's compilers report it.

  Beside the state there are three float32 copies of the parameters: standardised variables, sums
  and a gradient. For each image, the backward pass needs the input of each norm and the output of
  its ReLU, of the units that it has not passed yet; on TPU these outputs are computed again, and
  with `remat` all but the input of each unit is. The pass through a unit needs its activations and
  their gradients too. Accelerators keep nothing of an image before its crop but what was sent. The
  end of a step on several devices takes `end_bytes`.
  """
  count = footprint.activations(
    task.model.architecture, task.crop, footprint.LANES.get(task.model.platform, 1)
  )
  item = task.model.dtype.itemsize
  image = footprint.image_bytes(task.resize, task.crop, task.source)
  if task.on_cpu:
    alive = 4 * count.normed  # XLA keeps nearly that in micro-batches of 128 and more
    if item < FLOAT32:
      item += FLOAT32  # convolutions of less than float32 copy their input to float32
    passing = 2 * count.largest_unit * FLOAT32
    per_image = (alive + 3 * count.stem) * item + passing + image
  else:
    alive = _most_alive(count, task) + 3 * count.stem + 4 * task.crop**2
    sent = 2 * 3 * task.source[0] * task.source[1]
    per_image = max(alive * item + sent, image + 2 * count.stem * item)
  return Need(3 * FLOAT32 * task.num_parameters, per_image, 0 if task.on_cpu else end_bytes(task))


def end_bytes(task: Task) -> int:
  """Returns an upper bound of the memory of a step's end on several devices, beside the state.

  Beside the sums, XLA holds their means over all devices, and for some parameters all further steps
  of the update.
  """
  return 4 * FLOAT32 * task.num_parameters


def _most_alive(count: Activations, task: Task) -> int:
  """Returns the number of an image's activations and gradients that the backward pass holds."""
  most, kept = 0, 0
  for unit in count.units:
    passing = 2 * unit.size
    if task.model.remat:  # and its norms are computed again
      kept, passing = kept + unit.entering, passing + 2 * unit.normed
    elif task.model.platform == "tpu":
      kept, passing = kept + unit.normed, passing + unit.normed
    else:
      kept += 2 * unit.normed
    most = max(most, kept + passing)
  return max(most, kept + 4 * count.last)


def least(task: Task) -> Need:
  """Returns a lower bound of the memory of the passes over a micro-batch, beside the state.

  It is what has to be kept: standardised variables, and for each image the inputs of units; XLA for
  CPU keeps the inputs of norms and the outputs of their ReLUs. XLA for accelerators computes some
  of these again where a program would otherwise not fit (GPU: over three quarters of the memory).
  """
  count = footprint.activations(task.model.architecture, task.crop)
  item = task.model.dtype.itemsize
  kept = 2 * count.normed if task.on_cpu else count.entering
  return Need(item * task.num_parameters, kept * item)


def waiting_bytes(task: Task, batch: int) -> int:
  """Returns the bytes of whole batches on a device while micro-batches are computed.

  The batch itself and the next one; on CPU also the three that a stream prefetches.

  Args:
    task: The step.
    batch: Images of a step on each device.
  """
  height, width = task.source
  return (5 if task.on_cpu else 2) * batch * height * width * 3


def whole_step_bytes(task: Task, batch: int) -> float:
  """Returns an upper bound of the memory of whole steps, beside the state.

  Args:
    task: The step.
    batch: Images of a step on each device.
  """
  return footprint.programs_at_once(task.model.platform) * bound(task).of(batch)


def estimate(task: Task, batch: int) -> str:
  """Returns a step's memory as one line.

  Args:
    task: The step.
    batch: Images of a step on each device.
  """
  return (
    f"{gigabytes(task.state_bytes)} for weights and momentum, at most "
    f"{gigabytes(whole_step_bytes(task, batch))} for {batch} images at once on each "
    f"{task.model.platform.upper()} device in {task.model.dtype.name} (estimated), and about 1 GB "
    f"for the program; microbatch=auto uses smaller micro-batches if they don't fit. Of other "
    f"devices: python -m bit_jax.memory --help"
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
    f"  {'parameters':<48}{gigabytes(FLOAT32 * count):>10}   {count:,} in float32",
    f"  {'momentum':<48}{gigabytes(task.state_bytes - FLOAT32 * count):>10}   "
    f"{task.momentum_dtype}",
    f"  {'sums, standardised kernels and gradients':<48}{gigabytes(bound(task).fixed):>10}",
  ]
  budget = footprint.MARGIN * memory - task.state_bytes
  sizes = order.micro_batch_sizes(batch, mixup=False)
  for name, form in (("", task), (", recomputed (remat)", task.with_remat())):
    need = bound(form)
    if size := need.largest(sizes, budget):
      fit = f"micro-batches of {size}: {gigabytes(task.state_bytes + need.of(size))} in all"
    else:
      fit = f"not even {sizes[0]} fit"
    rows.append(f"  {f'activations of an image{name}':<48}{gigabytes(need.per_image):>10}   {fit}")
  free = f"  of {gigabytes(memory)}, of which a tenth is left free; a run asks the compiler"
  return "\n".join([*rows, f"{free}, and may choose the next larger micro-batch"])
