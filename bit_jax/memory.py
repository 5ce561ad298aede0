"""How much memory a training step takes, and into how many micro-batches that cuts it.

The arithmetic of this module is an upper bound; where even that fits, nothing else is asked.
Otherwise the compiler says what two small micro-batches take, and the line through them is followed
to the largest that should fit. The program of that one, which is to run, is then compiled and asked
as well: a larger one may be scheduled otherwise and take twice as much an image. As a command,

    python -m bit_jax.memory BiT-M-R152x4 480 512 80e9

prints the arithmetic for a network, crop, batch and bytes that one device has.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
import pathlib
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import flax.traverse_util
import jax
import jax.numpy as jnp

from bit_jax import (
  allocator,
  architectures,
  commands,
  errors,
  free_memory,
  hyperrule,
  metrics,
  models,
  parallel,
  steps,
)
from bit_jax.data import device as device_images
from bit_jax.data import order
from bit_jax.weights import cache

_PROBES = (4, 8)  # images of the two micro-batches that are compiled
_FLOAT32 = 4  # bytes
_MARGIN = 0.9  # of an accelerator's memory; what is free need not lie in one piece
_HOST_MARGIN = 0.8  # of the host's, where others live as well, and who takes too much is killed


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

  model: models.ResNetV2
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

  def with_remat(self) -> "Task":
    """Returns the task with rematerialisation."""
    return dataclasses.replace(self, model=self.model.clone(remat=True))


@dataclasses.dataclass(frozen=True)
class Plan:
  """How a step is computed.

  Attributes:
    microbatch: Images of a pass forward and backward on each device.
    share: Images of a step on each device.
    remat: Whether activations are computed again for the backward pass.
    reason: One line on it.
    compiled: Whether the compiler was asked about the program of a micro-batch, which is then to
      run even where there is but one.
  """

  microbatch: int
  share: int
  remat: bool
  reason: str
  compiled: bool = False

  @property
  def at_once(self) -> bool:
    """Whether a step is a single program."""
    return self.microbatch == self.share and not self.compiled


@dataclasses.dataclass(frozen=True)
class _Size:
  """Numbers that one image gives rise to in a network, counted from its shapes.

  Attributes:
    stem: Leave the first convolution.
    normed: Enter group norms.
    convolved: Leave all other convolutions.
    entering: Enter units.
    largest_unit: Enter norms and leave convolutions in the largest unit.
  """

  stem: int
  normed: int
  convolved: int
  entering: int
  largest_unit: int


def count(architecture: architectures.Architecture, crop: int) -> _Size:
  """Counts the activations of one image of `crop` x `crop` pixels."""
  side = -(-crop // 2)
  stem = side * side * architecture.stem_channels
  side = -(-side // 2)
  normed = convolved = entering = largest = 0
  last = side * side * architecture.stem_channels  # enter the last norm
  for inside, outside, channels, mid, project in _units(architecture, side):
    norms = inside * (channels + mid) + outside * mid
    convolutions = inside * mid + outside * (5 + 4 * project) * mid
    normed, convolved = normed + norms, convolved + convolutions
    entering += inside * channels
    largest = max(largest, norms + convolutions)
    last = outside * 4 * mid
  return _Size(stem, normed + last, convolved, entering, largest)


def _units(
  architecture: architectures.Architecture, side: int
) -> Iterator[tuple[int, int, int, int, bool]]:
  """Yields, of each unit, the pixels that enter and leave, its channels, and if it projects."""
  channels = architecture.stem_channels
  for b, depth in enumerate(architecture.depths):
    mid = architecture.stem_channels * 2**b
    for u in range(depth):
      after = -(-side // 2) if u == 0 and b else side
      yield side * side, after * after, channels, mid, u == 0
      channels, side = 4 * mid, after


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
  if task.model.remat:
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


def evaluation_bound(task: Task) -> Need:
  """Returns by arithmetic alone what an evaluation takes at most beside the parameters."""
  size = count(task.model.architecture, task.crop)
  passing = 2 * size.largest_unit + 3 * size.stem
  return Need(_FLOAT32 * task.num_parameters, _FLOAT32 * passing + _image_bytes(task))


def measured(task: Task) -> Need:
  """Returns the line through what two small micro-batches take, by the compiler."""
  small, large = _PROBES
  first, second = (compiled_bytes(task, images) for images in _PROBES)
  per_image = max(0.0, (second - first) / (large - small))
  return Need(first - small * per_image, per_image)


def compiled_bytes(task: Task, images: int) -> float:
  """Returns the bytes that the passes over a micro-batch take on a device, by the compiler.

  They are remembered in the cache folder, for as long as what computes them is the same.
  """
  path = cache.directory() / "memory" / f"{_digest(task, images)}.json"
  with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
    return float(json.loads(path.read_text())["bytes"])
  needed = _analyse(task, images)
  temporary = path.with_suffix(f".{os.getpid()}")
  with contextlib.suppress(OSError):  # it then costs time again, and nothing else
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary.write_text(json.dumps({"bytes": needed, "images": images, "task": repr(task)}))
    temporary.replace(path)
  return needed


def _digest(task: Task, images: int) -> str:
  device = jax.local_devices()[0]
  parts = [repr(task), images, device.device_kind, jax.local_device_count(), jax.__version__]
  parts.append(os.environ.get("XLA_FLAGS", ""))
  modules = (models, steps, parallel, device_images)
  code = [pathlib.Path(m.__file__ or "").read_bytes() for m in modules]
  return hashlib.sha256(repr((parts, code)).encode()).hexdigest()[:32]


def _analyse(task: Task, images: int) -> float:
  functions = parallel.micro_batch_functions(
    task.model, 0.0, task.resize, task.crop, task.momentum_dtype
  )
  program: Any = functions.accumulate
  analysis = program.lower(*_shapes(task, images)).compile().memory_analysis()
  return float(
    analysis.argument_size_in_bytes
    + analysis.output_size_in_bytes
    - analysis.alias_size_in_bytes
    + analysis.temp_size_in_bytes
  )


def _shapes(task: Task, images: int) -> tuple[Any, ...]:
  """Returns the arguments of `MicroBatchFunctions.accumulate`, as shapes."""
  devices = jax.local_device_count()
  flat = architectures.parameter_shapes(task.model.architecture, task.model.num_classes)
  params = flax.traverse_util.unflatten_dict(
    {name: jax.ShapeDtypeStruct(shape, jnp.float32) for name, shape in flat.items()}, sep="/"
  )
  variables = jax.eval_shape(lambda p: models.standardize_params(p, task.model.dtype), params)
  gradients = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, jnp.float32), variables)
  totals = jax.eval_shape(metrics.collection(task.model.num_classes).empty)
  examples = parallel.Examples(
    jax.ShapeDtypeStruct((images, *task.source, 3), jnp.uint8),
    jax.ShapeDtypeStruct((images,), jnp.int32),
  )
  number = jax.ShapeDtypeStruct((), jnp.float32)
  switch = jax.ShapeDtypeStruct((), jnp.bool_)
  key = jax.eval_shape(lambda: jax.random.key(0))
  split = (parallel.Sums(gradients, totals), examples, jax.ShapeDtypeStruct((images,), jnp.int32))
  return (
    variables,
    *jax.tree.map(lambda x: jax.ShapeDtypeStruct((devices, *x.shape), x.dtype), split),
    jax.ShapeDtypeStruct((), jnp.int32),
    parallel.StepArguments(key, number, number, switch, switch),
  )


def largest(need: Need, sizes: Sequence[int], budget: float) -> int | None:
  """Returns the largest of some rising sizes that fits into so many bytes, or None."""
  return max((m for m in sizes if need.of(m) <= budget), default=None)


def fitting(task: Task, sizes: Sequence[int], budget: float) -> tuple[int | None, Need]:
  """Returns the largest size whose program fits by the compiler, or None, and the line that it met.

  Of several processes each would have to compile the same programs at once, whatever it has found
  before: arithmetic alone decides there.

  Args:
    task: What is computed.
    sizes: Rising.
    budget: Bytes.
  """
  if jax.process_count() > 1:
    need = bound(task)
    return largest(need, sizes, budget), need
  need = measured(task)
  while size := largest(need, sizes, budget):
    taken = compiled_bytes(task, size)
    if taken <= budget:
      return size, need
    sizes = [m for m in sizes if m < size]
    need = Need(need.fixed, (taken - need.fixed) / size)
  return None, need


def plan(
  task: Task, share: int, *, mixup: bool, microbatch: int | str, remat: bool | str, budget: float
) -> Plan:
  """Decides on the micro-batch, and on rematerialisation.

  Args:
    task: What is computed; its model's `remat` is of no consequence.
    share: Images of a step on each device.
    mixup: Whether a micro-batch must hold both of MixUp's partners.
    microbatch: Images of a micro-batch, or 'auto': as many as fit.
    remat: Whether to, or 'auto': where not even the smallest micro-batch fits without.
    budget: Bytes that a device has beside the state.

  Raises:
    UserError: The share can't be cut into micro-batches of that size.
  """
  sizes = order.micro_batch_sizes(share, mixup)
  if remat is True:
    task = task.with_remat()
  if microbatch != hyperrule.AUTO:
    wanted = order.micro_batch_size(int(microbatch), share, mixup)
    told = f"Micro-batches of {wanted} images on each device, as set."
    return Plan(wanted, share, task.model.remat, told)
  # On CPU the next step takes its memory while one is still running.
  most = bound(task).of(share) * (2 if task.platform == "cpu" else 1)
  if most <= budget:
    told = f"All {share} images of a device's batch fit at once: at most {_gigabytes(most)} of"
    return Plan(share, share, task.model.remat, f"{told} {_gigabytes(budget)} available.")
  best, need = fitting(task, sizes, budget)
  # XLA for CPU computes nothing again: it merges what is meant to be computed twice.
  if best is None and remat == hyperrule.AUTO and task.platform != "cpu":
    task = task.with_remat()
    best, need = fitting(task, sizes, budget)
  return _explained(task, share, best, sizes[0], need, budget)


def budget(task: Task) -> float:
  """Returns the bytes that a step may take on each device beside what is there already.

  CPU devices share what the machine has left, less a copy of the state for checkpoints.
  """
  memory = jax.local_devices()[0].memory_stats() or {}  # a CPU tells nothing
  if limit := memory.get("bytes_limit"):
    return _MARGIN * (limit - memory.get("bytes_in_use", 0))
  allocator.trim()
  free = free_memory.available() - task.state_bytes
  return max(0.0, _HOST_MARGIN * free) / jax.local_device_count()


def evaluation_batch(task: Task, wanted: int, budget: float) -> int:
  """Returns the batch of an evaluation over all devices: the wanted one, or what surely fits.

  Args:
    task: Whose `crop` is the size that test images are resized to.
    wanted: Images over all devices.
    budget: Bytes that a device has beside the state.
  """
  need, devices = evaluation_bound(task), jax.device_count()
  fitting = int((budget - need.fixed) / need.per_image)
  return min(wanted, max(1, fitting) * devices)


def advice(plan: Plan, config: Any) -> str:
  """Returns the next setting to try after a step ran out of memory, as a flag.

  Args:
    plan: What was tried.
    config: Resolved.
  """
  sizes = order.micro_batch_sizes(plan.share, config.mixup_alpha > 0)
  smaller = [m for m in sizes if m < plan.microbatch]
  if smaller:
    return f"--config.microbatch={smaller[-1]} (now {plan.microbatch} images on each device)"
  if not plan.remat and jax.default_backend() != "cpu":
    return "--config.remat=True, which computes activations again instead of keeping them"
  if config.momentum_dtype == "float32":
    return "--config.momentum_dtype=bfloat16, which halves the memory of momentum"
  if config.resident_share > 0:
    return f"--config.resident_share=0 (now {config.resident_share:g}), which streams the images"
  return f"a smaller --config.resize and --config.crop (now {config.resize} and {config.crop})"


def _explained(
  task: Task, share: int, size: int | None, smallest: int, need: Need, budget: float
) -> Plan:
  available = f"of the {_gigabytes(budget)} available"
  if size == share:
    reason = f"All {share} images fit at once: {_gigabytes(need.of(share))} {available}."
  else:
    known = smallest if size is None else size
    whole = _gigabytes(need.of(share))
    reason = f"Micro-batches of {known} images: {share} would need {whole} {available}."
  if task.model.remat:
    reason += " Activations are computed again in the backward pass (remat)."
  if size is None:
    reason += (
      f" warning: even {smallest} would need {_gigabytes(need.of(smallest))}, by the compiler's "
      f"analysis; the system may end this process without a word."
    )
  return Plan(size or smallest, share, task.model.remat, reason, compiled=True)


def _gigabytes(amount: float) -> str:
  return f"{amount / 1e9:.3g} GB"


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
    f"  {'parameters':<48}{_gigabytes(_FLOAT32 * count):>10}   {count:,} in float32",
    f"  {'momentum':<48}{_gigabytes(task.state_bytes - _FLOAT32 * count):>10}   "
    f"{task.momentum_dtype}",
    f"  {'sums, standardised kernels and gradients':<48}{_gigabytes(bound(task).fixed):>10}",
  ]
  room = _MARGIN * memory - task.state_bytes
  for how in (task, task.with_remat()):
    need = bound(how)
    size = largest(need, order.micro_batch_sizes(share), room)
    told = f"micro-batches of {size}: {_gigabytes(task.state_bytes + need.of(size or 0))} in all"
    name = f"activations of an image{', computed again (remat)' if how.model.remat else ''}"
    fit = told if size else f"not even {min(2, share)} fit"
    rows.append(f"  {name:<48}{_gigabytes(need.per_image):>10}   {fit}")
  return "\n".join([*rows, f"  of {_gigabytes(memory)}, of which a tenth is left free"])


_HELP = """Prints how much memory a training step takes on a GPU or TPU, by arithmetic.

  python -m bit_jax.memory MODEL CROP IMAGES BYTES [float32]

  MODEL    such as BiT-M-R152x4, with 1,000 classes
  CROP     side of a training image, in pixels
  IMAGES   of a step on one device
  BYTES    that the device has, such as 80e9
  float32  instead of bfloat16"""


def main(argv: Sequence[str]) -> None:
  """Prints the table of a command line: model, crop, images, bytes and, optionally, the dtype.

  Raises:
    UserError: The command line is of another form.
  """
  dtype = "bfloat16"
  try:
    _, name, crop, share, memory, *rest = argv
    sizes = int(crop), int(share), float(memory)
    if rest:
      (dtype,) = rest
  except ValueError as e:
    raise errors.UserError(_HELP) from e
  hyperrule.one_of("dtype", dtype, ("bfloat16", "float32"))
  model = models.create(name, 1000, jnp.dtype(dtype))
  resize = sizes[0] * 16 // 15  # as the rule has it for large images
  task = Task(model, resize, sizes[0], (resize, resize), platform="gpu")
  print(table(task, *sizes[1:]))


if __name__ == "__main__":
  commands.leave(commands.run(main, sys.argv))
