"""Into how many micro-batches a training step is cut, and with it what it takes of memory.

Where the arithmetic of `memory`, an upper bound, says that a step fits, nothing else is asked.
Otherwise the compiler says what two small micro-batches take, and the line through them is followed
to the largest that should fit. The program of that one, which is to run, is then compiled and asked
as well: a larger one may be scheduled otherwise and take twice as much an image.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils

from bit_jax import hyperrule
from bit_jax.data import augmentation as device_images
from bit_jax.data import order
from bit_jax.models import architectures, resnet_v2
from bit_jax.runtime import allocator, cache
from bit_jax.training import memory, metrics, parallel, steps

SMALLER_SET = "a smaller --config.resident_share, or a smaller model"  # before a step is planned
_PROBES = (4, 8)  # images of the two micro-batches that are compiled
_HOST_MARGIN = 0.8  # of the host's memory, where others live as well; who takes too much is killed


@dataclasses.dataclass(frozen=True)
class Plan:
  """How a step is computed.

  Attributes:
    microbatch: Images of a pass forward and backward on each device.
    share: Images of a step on each device.
    remat: Whether activations are computed again for the backward pass.
    reason: One line on it.
    in_parts: Whether the programs of micro-batches compute it even where there is but one: it was
      they that were found to fit.
  """

  microbatch: int
  share: int
  remat: bool
  reason: str
  in_parts: bool = False

  @property
  def at_once(self) -> bool:
    """Whether a step is a single program."""
    return self.microbatch == self.share and not self.in_parts


def require_microbatch(config: Any, share: int) -> None:
  """Raises a `UserError` if the micro-batch that was set can't be taken of so many images."""
  if config.microbatch != hyperrule.AUTO:
    order.micro_batch_size(config.microbatch, share, config.mixup_alpha > 0)


def task(config: Any, model: resnet_v2.ResNetV2, image_size: tuple[int, int]) -> memory.Task:
  """Returns the task of a run's training steps.

  Args:
    config: Resolved.
    model: The network.
    image_size: (height, width) of training images as the devices get them.
  """
  if config.remat is True:
    model = model.clone(remat=True)
  return memory.Task(model, config.resize, config.crop, image_size, config.momentum_dtype)


def measured(task: memory.Task) -> memory.Need:
  """Returns the line through what two small micro-batches take, by the compiler."""
  small, large = _PROBES
  first, second = (compiled_bytes(task, images) for images in _PROBES)
  per_image = max(0.0, (second - first) / (large - small))
  return memory.Need(first - small * per_image, per_image)


def compiled_bytes(task: memory.Task, images: int) -> float:
  """Returns the bytes that the passes over a micro-batch take on a device, by the compiler.

  They are remembered in the cache folder, for as long as what computes them is the same.
  """
  record = f"{_digest(task, images)}.json"
  with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
    return float(json.loads(cache.recall("memory", record))["bytes"])
  needed = _analyse(task, images)
  found = {"bytes": needed, "images": images, "task": repr(task)}
  cache.remember("memory", record, json.dumps(found).encode())
  return needed


def _digest(task: memory.Task, images: int) -> str:
  device = jax.local_devices()[0]
  parts = [repr(task), images, device.device_kind, jax.local_device_count(), jax.__version__]
  parts.append(os.environ.get("XLA_FLAGS", ""))
  modules = (resnet_v2, steps, parallel, device_images)
  code = [pathlib.Path(m.__file__ or "").read_bytes() for m in modules]
  return hashlib.sha256(repr((parts, code)).encode()).hexdigest()[:32]


def _analyse(task: memory.Task, images: int) -> float:
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


def _shapes(task: memory.Task, images: int) -> tuple[Any, ...]:
  """Returns the arguments of `MicroBatchFunctions.accumulate`, as shapes."""
  devices = jax.local_device_count()
  flat = architectures.parameter_shapes(task.model.architecture, task.model.num_classes)
  params = flax.traverse_util.unflatten_dict(
    {name: jax.ShapeDtypeStruct(shape, jnp.float32) for name, shape in flat.items()}, sep="/"
  )
  variables = jax.eval_shape(lambda p: resnet_v2.standardize_params(p, task.model.dtype), params)
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


def fitting(
  task: memory.Task, sizes: Sequence[int], budget: float
) -> tuple[int | None, memory.Need]:
  """Returns the largest size whose program fits by the compiler, or None; and what was found.

  Of several processes each would have to compile the same programs at once, whatever it has found
  before: arithmetic alone decides there.

  Args:
    task: What is computed.
    sizes: Rising.
    budget: Bytes.
  """
  if jax.process_count() > 1:
    need = memory.bound(task)
    return memory.largest(need, sizes, budget), need
  need = measured(task)
  while size := memory.largest(need, sizes, budget):
    taken = compiled_bytes(task, size)
    need = memory.Need(need.fixed, (taken - need.fixed) / size)
    if taken <= budget:
      return size, need
    sizes = [m for m in sizes if m < size]
  return None, need


def plan(
  task: memory.Task,
  share: int,
  *,
  mixup: bool,
  microbatch: int | str,
  may_remat: bool,
  budget: float,
  tell: Callable[[str], None] = print,
) -> Plan:
  """Decides on the micro-batch, and on rematerialisation.

  Args:
    task: What is computed, as from `task`.
    share: Images of a step on each device.
    mixup: Whether a micro-batch must hold both of MixUp's partners.
    microbatch: Images of a micro-batch, or 'auto': as many as fit.
    may_remat: Whether to turn to rematerialisation where not even the smallest micro-batch fits.
    budget: Bytes that a device has beside the state.
    tell: Called with a sentence before anything takes long.

  Raises:
    UserError: The share can't be cut into micro-batches of that size.
  """
  sizes = order.micro_batch_sizes(share, mixup)
  if microbatch != hyperrule.AUTO:
    wanted = order.micro_batch_size(int(microbatch), share, mixup)
    told = f"Micro-batches of {wanted} images on each device, as set."
    if wanted == share:
      told = f"All {share} images of a device's batch at once, as set (microbatch={microbatch})."
    return Plan(wanted, share, task.model.remat, told)
  most = memory.whole_step_bytes(task, share)
  if most <= budget:
    room = f"at most {memory.gigabytes(most)} of {memory.gigabytes(budget)} available"
    told = f"All {share} images of a device's batch fit at once: {room}."
    return Plan(share, share, task.model.remat, told)
  if jax.process_count() == 1:
    tell("Looking for the micro-batch that fits: the compiler is asked (once: it is remembered).")
  budget = max(0.0, budget - memory.waiting_bytes(task, share))
  best, need = fitting(task, sizes, budget)
  # XLA for CPU computes nothing again: it merges what is meant to be computed twice.
  if best is None and may_remat and task.platform != "cpu":
    task = task.with_remat()
    best, need = fitting(task, sizes, budget)
  return _explained(task, share, best, sizes[0], need, budget)


def budget(task: memory.Task) -> float:
  """Returns the bytes that a step may take on each device beside what is there already.

  CPU devices share what the machine has left, less a copy of the state for checkpoints.
  """
  if there := parallel.accelerator_memory():
    limit, in_use = there
    return memory.MARGIN * (limit - in_use)
  allocator.trim()
  free = parallel.host_memory() - task.state_bytes
  return max(0.0, _HOST_MARGIN * free) / jax.local_device_count()


def evaluation_batch(task: memory.Task, wanted: int, num_images: int, budget: float) -> int:
  """Returns the batch of an evaluation over all devices: the wanted one, or what surely fits.

  A small set gets a batch that holds it, a power of two on each device: sets of about the same
  length share the program.

  Args:
    task: Whose sizes are those of test images.
    wanted: Images over all devices.
    num_images: Images in the set; at least 1.
    budget: Bytes that a device has beside the state.
  """
  need, devices = memory.evaluation_bound(task), jax.device_count()
  fits = int((budget - need.fixed) / (task.programs_at_once * need.per_image))
  whole = 1 << (-(-num_images // devices) - 1).bit_length()
  return min(wanted, max(1, min(fits, whole)) * devices)


def agreed(plan: Plan, eval_batch: int) -> tuple[Plan, int]:
  """Returns a plan, and a batch of an evaluation, that all processes can do.

  They run the same programs, but may have unequal memory.
  """
  if jax.process_count() == 1:
    return plan, eval_batch
  ours = np.array([plan.microbatch, not plan.remat, not plan.in_parts, eval_batch])
  all_plans = multihost_utils.process_allgather(ours)
  microbatch, keeps, whole, eval_batch = all_plans.min(axis=0).tolist()
  reason = plan.reason
  if microbatch != plan.microbatch:
    reason = f"Micro-batches of {microbatch} images, which is what all processes can do."
  return Plan(microbatch, plan.share, not keeps, reason, not whole), eval_batch


def advice(plan: Plan, config: Any) -> str:
  """Returns the next setting to try after a step ran out of memory, as a flag.

  Args:
    plan: What was tried.
    config: Resolved.
  """
  sizes = order.micro_batch_sizes(plan.share, config.mixup_alpha > 0)
  smaller = [m for m in sizes if m < plan.microbatch]
  if smaller:
    found = "" if config.microbatch == hyperrule.AUTO else ", or 'auto', which finds what fits"
    now = f"(now {plan.microbatch} images on each device){found}"
    return f"--config.microbatch={smaller[-1]} {now}"
  if not plan.remat and jax.default_backend() != "cpu":
    return "--config.remat=True, which computes activations again instead of keeping them"
  if config.momentum_dtype == "float32":
    return "--config.momentum_dtype=bfloat16, which halves the memory of momentum"
  if config.resident_share > 0:
    return f"--config.resident_share=0 (now {config.resident_share:g}), which streams the images"
  return f"a smaller --config.resize and --config.crop (now {config.resize} and {config.crop})"


def while_computing(config: Any, share: int, advice: str) -> str:
  """Returns the end of the sentence for `memory.explained` in training or an evaluation.

  Args:
    config: Resolved.
    share: Images of a step on each device.
    advice: What to try.
  """
  return f"with {config.model}, crop {config.crop} and {share} images of each batch: try {advice}."


def after_training(folder: pathlib.Path) -> str:
  """Returns the end of the sentence for `memory.explained` where only the result is to be written.

  Args:
    folder: The run folder.
  """
  return (
    f"when the result was written. Training is complete and saved in {folder}: free some memory, "
    f"and the same command evaluates again and writes the result."
  )


def _explained(
  task: memory.Task, share: int, size: int | None, smallest: int, need: memory.Need, budget: float
) -> Plan:
  available = f"of the {memory.gigabytes(budget)} available"
  if size == share:
    reason = f"All {share} images fit at once: {memory.gigabytes(need.of(share))} {available}."
  else:
    known = smallest if size is None else size
    whole = memory.gigabytes(need.of(share))
    reason = f"Micro-batches of {known} images: {share} would need {whole} {available}."
  if task.model.remat:
    reason += " Activations are computed again in the backward pass (remat)."
  if size is None:
    reason += f" warning: even {smallest} would need {memory.gigabytes(need.of(smallest))}"
    how = "the compiler's analysis" if jax.process_count() == 1 else "arithmetic"
    killed = "; the system may end this process without a word" if task.platform == "cpu" else ""
    reason += f", by {how}{killed}."
  return Plan(size or smallest, share, task.model.remat, reason, in_parts=True)
