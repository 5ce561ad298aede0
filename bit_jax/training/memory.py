"""How much memory a training step takes, by arithmetic: an upper bound."""

import collections
import contextlib
import dataclasses
from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp

from bit_jax.data import order
from bit_jax.models import architectures, resnet_v2
from bit_jax.runtime import errors

MARGIN = 0.9  # of an accelerator's memory; what is free need not lie in one piece
_FLOAT32 = 4  # bytes
_OUT_OF_MEMORY = ("RESOURCE_EXHAUSTED", "Out of memory")  # on an accelerator, on CPU


@dataclasses.dataclass(frozen=True)
class Need:
  """What a step takes on a device beside the state: a line over the images of a micro-batch.

  Attributes:
    fixed: Bytes, whatever the micro-batch.
    per_image: Bytes.
  """

  fixed: float
  per_image: float

  def of(self, images: int) -> float:
    """Returns the bytes that micro-batches of so many images take."""
    return self.fixed + images * self.per_image


@dataclasses.dataclass(frozen=True)
class Task:
  """What the memory of a step depends on.

  Attributes:
    model: The network; `remat` as it is to be.
    resize: Side of the square that images are resized to, in pixels.
    crop: Side of the crop of it, in pixels.
    source: (height, width) of the images as they come, in pixels.
    momentum_dtype: What the velocity is kept in.
    platform: Of the devices: 'cpu', 'gpu' or 'tpu'.
  """

  model: resnet_v2.ResNetV2
  resize: int
  crop: int
  source: tuple[int, int]
  momentum_dtype: str = "float32"
  platform: str = dataclasses.field(default_factory=lambda: jax.default_backend())

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
    """Programs that hold memory: on CPU the next one takes its own while one is still running."""
    return 2 if self.platform == "cpu" else 1

  def with_remat(self) -> "Task":
    """Returns the task with rematerialisation."""
    return dataclasses.replace(self, model=self.model.clone(remat=True))


@dataclasses.dataclass(frozen=True)
class _Size:
  """Numbers that one image gives rise to in a network, counted from its shapes.

  Attributes:
    stem: Leave the first convolution.
    normed: Enter group norms.
    entering: Enter units.
    largest_unit: Enter norms and leave convolutions in the largest unit.
  """

  stem: int
  normed: int
  entering: int
  largest_unit: int


def count(architecture: architectures.Architecture, crop: int) -> _Size:
  """Counts the activations of one image of `crop` x `crop` pixels."""
  stem, *body = architectures.convolutions(architecture, crop)
  last = (-(-stem.side_out // 2)) ** 2 * stem.c_out  # leaves the max-pool
  normed = entering = 0
  units: collections.Counter[str] = collections.Counter()
  for convolution in body:
    block, unit, part, then, *_ = convolution.name.split("/")
    enters = convolution.side_in**2 * convolution.c_in
    leaves = last = convolution.side_out**2 * convolution.c_out
    units[f"{block}/{unit}"] += leaves
    if then != "proj":  # which takes what the unit's first norm gave
      units[f"{block}/{unit}"] += enters
      normed += enters
      entering += enters if part == "a" else 0
  largest_unit = max(units.values(), default=0)
  return _Size(stem.side_out**2 * stem.c_out, normed + last, entering, largest_unit)


def bound(task: Task) -> Need:
  """Returns by arithmetic alone what a step takes at most.

  Beside the state there are three times the parameters in float32: the standardised variables,
  sums and a gradient in the passes; sums, their mean over devices and what they say of the
  parameters at the end. Of an image, the backward pass wants what enters each norm and what leaves
  its ReLU; with `remat`, only what enters each unit. While the largest unit is gone through, its
  numbers and their gradients come to that.
  """
  size = count(task.model.architecture, task.crop)
  item = jnp.dtype(task.model.dtype).itemsize
  if task.platform == "cpu" and item < _FLOAT32:
    item += _FLOAT32  # convolutions of less than float32 take a copy in float32
  if task.model.remat and task.platform != "cpu":  # whose compiler computes nothing again
    kept = size.entering * item
    passing = 2 * size.largest_unit * (_FLOAT32 + item)
  else:
    kept = 2 * size.normed * item
    if task.platform == "cpu":
      kept *= 2  # in micro-batches of 128 and more XLA keeps nearly that
    passing = 2 * size.largest_unit * _FLOAT32
  per_image = kept + passing + 3 * size.stem * item + _image_bytes(task)
  return Need(3 * _FLOAT32 * task.num_parameters, per_image)


def _image_bytes(task: Task) -> int:
  """Returns what an image takes on its way to the network: as it came, resized, cropped, mixed."""
  height, width = task.source
  resized = max(task.resize, task.crop) * (width + task.resize)
  return 3 * (2 * height * width + _FLOAT32 * (height * width + resized + 3 * task.crop**2))


def waiting_bytes(task: Task, share: int) -> int:
  """Returns what the images of whole batches take on a device while micro-batches are computed.

  The batch itself and the next one; on CPU also the three that a stream has ready.

  Args:
    task: What is computed.
    share: Images of a step on each device.
  """
  height, width = task.source
  return (5 if task.platform == "cpu" else 2) * share * height * width * 3


def evaluation_bound(task: Task) -> Need:
  """Returns by arithmetic alone what an evaluation takes at most beside the parameters.

  Args:
    task: Whose sizes are those of test images.
  """
  size = count(task.model.architecture, task.crop)
  passing = 2 * size.largest_unit + 3 * size.stem
  return Need(_FLOAT32 * task.num_parameters, _FLOAT32 * passing + _image_bytes(task))


def largest(need: Need, sizes: Sequence[int], budget: float) -> int | None:
  """Returns the largest of some rising sizes that fits into so many bytes, or None."""
  return max((m for m in sizes if need.of(m) <= budget), default=None)


def ran_out(error: BaseException) -> bool:
  """Returns whether an error is what JAX or numpy raises where memory is short."""
  if isinstance(error, jax.errors.JaxRuntimeError):
    return any(text in str(error) for text in _OUT_OF_MEMORY)
  return isinstance(error, MemoryError)


@contextlib.contextmanager
def explained(explanation: str) -> Iterator[None]:
  """Turns what JAX and numpy raise where memory is short into a sentence that ends like this.

  Raises:
    UserError: The block ran out of memory.
  """
  try:
    yield
  except (jax.errors.JaxRuntimeError, MemoryError) as e:
    if not ran_out(e):
      raise
    where = "This machine" if isinstance(e, MemoryError) else "A device"
    raise errors.UserError(f"{where} ran out of memory {explanation}") from e


def gigabytes(amount: float) -> str:
  """Returns bytes as a text, such as '1.32 GB'."""
  return f"{amount / 1e9:.3g} GB"


def whole_step_bytes(task: Task, share: int) -> float:
  """Returns by arithmetic what whole steps take at most, beside the state.

  Args:
    task: What is computed.
    share: Images of a step on each device.
  """
  return task.programs_at_once * bound(task).of(share)


def estimate(task: Task, share: int) -> str:
  """Returns the arithmetic for a step as one line.

  Args:
    task: What is computed.
    share: Images of a step on each device.
  """
  return (
    f"{gigabytes(task.state_bytes)} for weights and momentum, at most "
    f"{gigabytes(whole_step_bytes(task, share))} for {share} images at once on each device, by "
    f"arithmetic, besides some 1 GB for the program; microbatch=auto takes fewer if they don't fit"
  )


def table(task: Task, share: int, memory: float) -> str:
  """Returns the arithmetic for a step on one device, as a text.

  Args:
    task: What is computed.
    share: Images of a step on the device.
    memory: Bytes that the device has.
  """
  count, dtype = task.num_parameters, jnp.dtype(task.model.dtype).name
  rows = [
    f"{task.model.architecture.name}, {task.crop} pixels, {share} images, {dtype}: by arithmetic, "
    f"at most",
    f"  {'parameters':<48}{gigabytes(_FLOAT32 * count):>10}   {count:,} in float32",
    f"  {'momentum':<48}{gigabytes(task.state_bytes - _FLOAT32 * count):>10}   "
    f"{task.momentum_dtype}",
    f"  {'sums, standardised kernels and gradients':<48}{gigabytes(bound(task).fixed):>10}",
  ]
  room, sizes = MARGIN * memory - task.state_bytes, order.micro_batch_sizes(share, mixup=False)
  for how in (task, task.with_remat()):
    need = bound(how)
    size = largest(need, sizes, room)
    told = f"micro-batches of {size}: {gigabytes(task.state_bytes + need.of(size or 0))} in all"
    name = f"activations of an image{', computed again (remat)' if how.model.remat else ''}"
    fit = told if size else f"not even {sizes[0]} fit"
    rows.append(f"  {name:<48}{gigabytes(need.per_image):>10}   {fit}")
  return "\n".join([*rows, f"  of {gigabytes(memory)}, of which a tenth is left free"])
