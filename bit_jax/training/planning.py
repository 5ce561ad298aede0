"""Chooses the micro-batch of a training step, and with it the memory of the step.

If the upper bound of `memory` says that a whole step fits, nothing else is needed. Otherwise the
compiler reports the memory of two small micro-batches, and the line through them gives the largest
one that should fit. That program is then compiled and checked too: XLA may schedule a larger one
differently and need twice the memory per image.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils

from bit_jax import hyperrule
from bit_jax.data import augmentation, order
from bit_jax.models import ops, resnet_v2
from bit_jax.run_config import RunConfig
from bit_jax.runtime import cache, devices, machine, parallel
from bit_jax.training import memory, metrics, programs, steps

_PROBES = (4, 8)  # images of the two small micro-batches
_HOST_MARGIN = 0.8  # the usable part of the host's free memory, which other processes use as well


@dataclasses.dataclass(frozen=True)
class Plan:
  """How a step is computed.

  Attributes:
    microbatch: Images of a forward and backward pass on each device.
    batch: Images of a step on each device.
    remat: Whether the backward pass recomputes activations.
    reason: One line that explains the choice.
    in_parts: Whether the programs of micro-batches are used even for a single one: they are the
      programs whose memory was checked.
  """

  microbatch: int
  batch: int
  remat: bool
  reason: str
  in_parts: bool = False

  @property
  def at_once(self) -> bool:
    """Whether a step is a single program."""
    return self.microbatch == self.batch and not self.in_parts


def require_microbatch(config: RunConfig, batch: int) -> None:
  """Raises a `UserError` if a batch per device can't be split into the config's micro-batches."""
  if isinstance(config.microbatch, int):
    order.micro_batch_size(config.microbatch, batch, config.mixup_alpha > 0)


def task(config: RunConfig, model: resnet_v2.ResNetV2, image_size: tuple[int, int]) -> memory.Task:
  """Returns the task of a run's training steps.

  Args:
    config: Resolved.
    model: The network.
    image_size: (height, width) of the training images that the devices get.
  """
  if config.remat is True:
    model = model.clone(remat=True)
  c = config
  return memory.Task(model, c.resize, c.crop, image_size, c.momentum_dtype, c.momentum)


def budget(task: memory.Task, description: devices.Description) -> float:
  """Returns the bytes that a step may use on each device.

  CPU devices share the free memory of the host, less a copy of the state for checkpoints.

  Args:
    task: The step.
    description: The devices, with the run's state and data on them.
  """
  if description.bytes is not None:
    return memory.MARGIN * description.bytes
  machine.trim_memory()
  free = devices.host_memory() - task.state_bytes
  return max(0.0, _HOST_MARGIN * free) / description.local_count


def plan(
  task: memory.Task,
  batch: int,
  description: devices.Description,
  *,
  mixup: bool,
  microbatch: int | str,
  may_remat: bool,
  budget: float,
  tell: Callable[[str], None] = print,
) -> Plan:
  """Chooses the micro-batch and rematerialisation.

  Args:
    task: The step, as from `task`.
    batch: Images of a step on each device.
    description: The devices.
    mixup: Whether a micro-batch must hold both of MixUp's partners.
    microbatch: Images of a micro-batch, or 'auto': as many as fit.
    may_remat: Whether to use rematerialisation if not even the smallest micro-batch fits.
    budget: Bytes that a device has beside the state.
    tell: Called with a sentence before a long search.

  Raises:
    UserError: The batch can't be split into micro-batches of that size.
  """
  sizes = order.micro_batch_sizes(batch, mixup)
  if microbatch != hyperrule.AUTO:
    size = order.micro_batch_size(int(microbatch), batch, mixup)
    reason = f"Micro-batches of {size} of {batch} images on each device (microbatch={microbatch})."
    return Plan(size, batch, task.model.remat, reason)
  most = memory.whole_step_bytes(task, batch)
  if most <= budget:
    room = f"at most {memory.gigabytes(most)} of {memory.gigabytes(budget)} available"
    return Plan(
      batch, batch, task.model.remat, f"All {batch} images per device fit at once: {room}."
    )
  if jax.process_count() == 1:
    tell("Searching for the largest micro-batch that fits (the result is cached).")
  budget = max(0.0, budget - memory.waiting_bytes(task, batch))
  best, need = _fitting(task, sizes, budget, description)
  if best is None and may_remat and not task.on_cpu:  # XLA for CPU recomputes nothing
    task = task.with_remat()
    best, need = _fitting(task, sizes, budget, description)
  size = best or sizes[0]
  return Plan(size, batch, task.model.remat, _reason(task, batch, size, need, budget), True)


def _fitting(
  task: memory.Task, sizes: Sequence[int], budget: float, description: devices.Description
) -> tuple[int | None, memory.Need]:
  """Returns the largest of some rising sizes whose program fits, or None; and its memory.

  With several processes only arithmetic decides: each would have to compile the same programs at
  the same time, whatever it has cached.
  """
  if jax.process_count() > 1:
    need = memory.bound(task)
    return need.largest(sizes, budget), need
  need = measured(task, description)
  while size := need.largest(sizes, budget):
    used = compiled_bytes(task, size, description)
    need = memory.Need(need.fixed, (used - need.fixed) / size)
    if used <= budget:
      return size, need
    sizes = [m for m in sizes if m < size]
  return None, need


def measured(task: memory.Task, description: devices.Description) -> memory.Need:
  """Returns the line through the memory of two small micro-batches, by the compiler."""
  small, large = _PROBES
  first, second = (compiled_bytes(task, images, description) for images in _PROBES)
  per_image = max(0.0, (second - first) / (large - small))
  return memory.Need(first - small * per_image, per_image)


def compiled_bytes(task: memory.Task, images: int, description: devices.Description) -> float:
  """Returns the memory of the passes over a micro-batch on a device, by the compiler.

  It is kept in the cache folder for the same code, devices and flags.
  """
  parts = [repr(task), images, description.kind, description.local_count, jax.__version__]
  parts.append(os.environ.get("XLA_FLAGS", ""))
  modules = (ops, resnet_v2, steps, programs, parallel, augmentation)
  code = [pathlib.Path(m.__file__ or "").read_bytes() for m in modules]
  record = f"{hashlib.sha256(repr((parts, code)).encode()).hexdigest()[:32]}.json"
  with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
    return float(json.loads(cache.recall("memory", record))["bytes"])
  used = _compile(task, images, description.local_count)
  entry = {"bytes": used, "images": images, "task": repr(task)}
  cache.remember("memory", record, json.dumps(entry).encode())
  return used


def _compile(task: memory.Task, images: int, num_devices: int) -> float:
  program: Any = programs.micro_batch_functions(task).accumulate
  params = programs.parameter_shapes(task.model)
  variables = jax.eval_shape(lambda p: resnet_v2.standardize_params(p, task.model.dtype), params)
  sums = programs.Sums(
    jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, jnp.float32), variables),
    jax.eval_shape(metrics.collection(task.model.num_classes).empty),
  )
  sums = jax.tree.map(lambda x: jax.ShapeDtypeStruct((num_devices, *x.shape), x.dtype), sums)
  examples, positions, arguments = programs.argument_shapes(num_devices, images, task.source)
  step = jax.ShapeDtypeStruct((), jnp.int32)
  lowered = program.lower(variables, sums, examples, positions, step, arguments)
  used = lowered.compile().memory_analysis()
  return float(
    used.argument_size_in_bytes
    + used.output_size_in_bytes
    - used.alias_size_in_bytes
    + used.temp_size_in_bytes
  )


def _reason(task: memory.Task, batch: int, size: int, need: memory.Need, budget: float) -> str:
  available = f"of {memory.gigabytes(budget)} available"
  if size == batch:
    reason = f"All {batch} images fit at once: {memory.gigabytes(need.of(batch))} {available}."
  else:
    whole = memory.gigabytes(need.of(batch))
    reason = f"Micro-batches of {size} images: {batch} would need {whole} {available}."
  if task.model.remat:
    reason += " The backward pass recomputes activations (remat)."
  if need.of(size) > budget:
    source = "by the compiler's analysis" if jax.process_count() == 1 else "estimated"
    killed = "; the system may kill this process silently" if task.on_cpu else ""
    least = memory.gigabytes(need.of(size))
    reason += f" warning: even {size} would need {least}, {source}{killed}."
  return reason


def evaluation_batch(
  task: memory.Task, wanted: int, num_images: int, budget: float, description: devices.Description
) -> int:
  """Returns the batch of an evaluation over all devices: the wanted one, or what surely fits.

  A small set gets a batch that holds it, a power of two on each device: sets of about the same
  length share the program.

  Args:
    task: With the sizes of test images.
    wanted: Images over all devices.
    num_images: Images in the set; at least 1.
    budget: Bytes that a device has beside the state.
    description: The devices.
  """
  need, count = memory.evaluation_bound(task), description.count
  fits = int((budget - need.fixed) / (task.programs_at_once * need.per_image))
  whole = 1 << (-(-num_images // count) - 1).bit_length()
  return min(wanted, max(1, min(fits, whole)) * count)


def agreed(plan: Plan, eval_batch: int) -> tuple[Plan, int]:
  """Returns a plan, and an evaluation batch, that fit in the memory of every process.

  Processes run the same programs, but may have different memory.
  """
  if jax.process_count() == 1:
    return plan, eval_batch
  ours = np.array([plan.microbatch, not plan.remat, not plan.in_parts, eval_batch])
  all_plans = multihost_utils.process_allgather(ours)
  microbatch, keeps, whole, eval_batch = all_plans.min(axis=0).tolist()
  reason = plan.reason
  if microbatch != plan.microbatch:
    reason = f"Micro-batches of {microbatch} images, which fit on all processes."
  return Plan(microbatch, plan.batch, not keeps, reason, not whole), eval_batch
