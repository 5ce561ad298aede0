"""Fits a run in memory: chooses micro-batches, and advises what to try if memory runs out.

If the upper bound of `memory` says that a whole step fits, nothing else is needed. Otherwise the
compiler reports the memory of the largest micro-batch that should fit, and of the next larger or
smaller ones, until one fits and the next larger one does not. Most are ruled out by arithmetic.
"""

import contextlib
import dataclasses
import hashlib
import json
import math
import os
import pathlib
from collections.abc import Callable, Iterator, Sequence
from importlib import metadata
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils

from bit_jax import hyperrule
from bit_jax.data import augmentation, order
from bit_jax.inference import footprint, metrics
from bit_jax.inference.footprint import gigabytes
from bit_jax.models import ops, resnet_v2
from bit_jax.run_config import RunConfig
from bit_jax.runtime import cache, devices, parallel
from bit_jax.training import memory, optimizer, programs, steps

Targets = tuple[jax.Device, ...] | None  # compile-only devices; None: those of this run
_COMPILERS = ("jaxlib", "jax-cuda12-plugin", "jax-cuda13-plugin", "libtpu")


@dataclasses.dataclass(frozen=True)
class Plan:
  """How a step is computed.

  Attributes:
    microbatch: Images of a forward and backward pass on each device.
    batch: Images of a step on each device.
    remat: Whether the backward pass recomputes activations.
    reason: One line that explains the choice.
    at_once: Whether a step is a single program. Otherwise the programs of micro-batches are used,
      even for a single one if it was their memory that was checked.
  """

  microbatch: int
  batch: int
  remat: bool
  reason: str
  at_once: bool


def require_microbatch(config: RunConfig, batch: int) -> None:
  """Raises a `UserError` if a batch per device can't be split into the config's micro-batches."""
  if isinstance(config.microbatch, int):
    order.micro_batch_size(config.microbatch, batch, config.mixup_alpha > 0)


def plan(
  task: memory.Task,
  batch: int,
  description: devices.Description,
  config: RunConfig,
  budget: float,
  say: Callable[[str], None] = print,
  targets: Targets = None,
) -> Plan:
  """Chooses the micro-batch, and rematerialisation if not even the smallest one fits without.

  Args:
    task: The step.
    batch: Images of a step on each device.
    description: The devices.
    config: Resolved.
    budget: Bytes that a device has beside the state.
    say: Called with a sentence before a long search.
    targets: The described devices, if they are not those of this run.

  Raises:
    UserError: The batch can't be split into micro-batches of the config's size.
  """
  mixup, remat = config.mixup_alpha > 0, task.model.remat
  if config.microbatch != hyperrule.AUTO:
    size = order.micro_batch_size(int(config.microbatch), batch, mixup)
    reason = (
      f"Micro-batches of {size} of {batch} images on each device (microbatch={config.microbatch})."
    )
    return Plan(size, batch, remat, reason, at_once=size == batch)
  most = memory.whole_step_bytes(task, batch)
  if most <= budget:
    room = f"at most {gigabytes(most)} of {gigabytes(budget)} available"
    reason = f"All {batch} images per device fit at once: {room}."
    return Plan(batch, batch, remat, reason, at_once=True)
  if jax.process_count() == 1:
    say("Searching for the largest micro-batch that fits (the result is cached).")
  sizes = order.micro_batch_sizes(batch, mixup)
  budget = max(0.0, budget - memory.waiting_bytes(task, batch))
  search = _Search(task, batch, description, targets)
  found = search.largest(sizes, budget)
  if found is None and config.remat == hyperrule.AUTO and not task.on_cpu:
    search = _Search(task.with_remat(), batch, description, targets)
    found = search.largest(sizes, budget)
  size, used = found or (sizes[0], search.used(sizes[0]))
  task = search.task
  reason = _reason(task, batch, size, used, search.expected(batch), budget)
  return Plan(size, batch, task.model.remat, reason, at_once=size == batch and not task.on_cpu)


@dataclasses.dataclass(frozen=True)
class _Search:
  """A search for the largest micro-batch that fits.

  With several processes only arithmetic decides: each would have to compile the same programs at
  the same time, whatever it has cached.

  Attributes:
    task: The step.
    batch: Images of a step on each device.
    description: The devices.
    targets: The described devices, if they are not those of this run.
    tried: {images of a micro-batch: bytes}.
  """

  task: memory.Task
  batch: int
  description: devices.Description
  targets: Targets
  tried: dict[int, float] = dataclasses.field(default_factory=dict, init=False)

  def largest(self, sizes: Sequence[int], budget: float) -> tuple[int, float] | None:
    """Returns the largest of some rising sizes that fits, and its bytes; None if none does.

    It is exact if a larger micro-batch needs no less memory. A size that fits was compiled.
    """
    best, most, least = None, memory.bound(self.task), memory.least(self.task)
    if jax.process_count() > 1:
      size = most.largest(sizes, budget)
      return (size, most.of(size)) if size else None
    left = [m for m in sizes if least.of(m) <= budget]
    while left:
      likely = [m for m in left if self.expected(m) <= budget]
      size = likely[-1] if likely else left[0]
      used = self.used(size)
      if used <= budget:
        best, left = (size, used), [m for m in left if m > size]
      else:
        left = [m for m in left if m < size]
    return best

  def used(self, size: int) -> float:
    """Returns the memory for a micro-batch beside the state: by the compiler, or the bound."""
    if jax.process_count() > 1:
      return memory.bound(self.task).of(size)
    used = micro_batch_bytes(self.task, size, self.batch, self.description, self.targets)
    self.tried[size] = used
    return used

  def expected(self, size: int) -> float:
    """Returns the bound of a micro-batch, scaled to the bytes of the largest one that was tried."""
    most = memory.bound(self.task)
    if size in self.tried or jax.process_count() > 1:
      return self.tried.get(size, most.of(size))
    largest = max((m for m, used in self.tried.items() if used < math.inf), default=None)
    scale = self.tried[largest] / most.of(largest) if largest else 1
    return max(scale * most.of(size), memory.least(self.task).of(size))


def micro_batch_bytes(
  task: memory.Task,
  size: int,
  batch: int,
  description: devices.Description,
  targets: Targets = None,
) -> float:
  """Returns the memory for a micro-batch beside state and waiting batches, by the compiler.

  It is infinite if the compiler refuses the program. On accelerators a whole batch is a whole step.

  Args:
    task: The step.
    size: Images of the micro-batch.
    batch: Images of a step on each device.
    description: The devices.
    targets: The described devices, if they are not those of this run.
  """
  whole = size == batch and not task.on_cpu
  used = compiled_bytes(task, size, description, targets, whole=whole)
  if whole:  # of the two batches that wait, the step has one among its arguments
    used -= task.state_bytes + memory.waiting_bytes(task, size) / 2
  return used


def compiled_bytes(
  task: memory.Task,
  images: int,
  description: devices.Description,
  targets: Targets = None,
  *,
  whole: bool = False,
) -> float:
  """Returns the memory of a program on a device, by the compiler; infinite if it refuses.

  It is kept in the cache folder for the same code, compiler, devices and flags; a refusal is not.

  Args:
    task: The step.
    images: Images of the micro-batch.
    description: The devices.
    targets: The described devices, if they are not those of this run.
    whole: Whether it is a whole step, with its state; else the passes over a micro-batch.
  """
  found = description.kind, description.local_count, targets is not None
  parts = [repr(task), images, whole, *found, os.environ.get("XLA_FLAGS", ""), *_compilers()]
  modules = (ops, resnet_v2, augmentation, metrics, optimizer, parallel, programs, steps)
  code = [pathlib.Path(m.__file__ or "").read_bytes() for m in modules]
  record = f"{hashlib.sha256(repr((parts, code)).encode()).hexdigest()[:32]}.json"
  with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
    return float(json.loads(cache.recall("memory", record))["bytes"])
  used = _compile(task, images, description.local_count, targets, whole=whole)
  if used < math.inf:
    entry = {"bytes": used, "images": images, "task": repr(task), "whole": whole}
    cache.remember("memory", record, json.dumps(entry).encode())
  return used


def _compilers() -> Iterator[str]:
  for package in _COMPILERS:
    with contextlib.suppress(metadata.PackageNotFoundError):
      yield f"{package} {metadata.version(package)}"


def _compile(
  task: memory.Task, images: int, num_devices: int, targets: Targets, *, whole: bool
) -> float:
  try:
    lower = lower_step if whole else lower_passes
    compiled = lower(task, images, num_devices, targets).compile()
  except jax.errors.JaxRuntimeError as e:
    if not footprint.is_out_of_memory(e):  # TPU's compiler knows the memory; GPUs are tuned on
      raise
    return math.inf
  return program_bytes(compiled)


def lower_step(task: memory.Task, images: int, num_devices: int, targets: Targets = None) -> Any:
  """Returns the whole step, ready to be compiled (`jax.stages.Lowered`).

  Args:
    task: The step.
    images: Images of the step on each device.
    num_devices: Local devices.
    targets: A tuple of the devices that it is compiled for; default: all of this run.
  """
  step: Any = programs.train_function(task, targets)
  return step.lower(*programs.step_shapes(task, num_devices, images))


def lower_passes(task: memory.Task, images: int, num_devices: int, targets: Targets = None) -> Any:
  """Returns the passes over a micro-batch, ready to be compiled (`jax.stages.Lowered`).

  Args:
    task: The step.
    images: Images of the micro-batch.
    num_devices: Local devices.
    targets: A tuple of the devices that they are compiled for; default: all of this run.
  """
  functions: Any = programs.micro_batch_functions(task, targets)
  examples, positions, arguments = programs.argument_shapes(num_devices, images, task.source)
  step = jax.ShapeDtypeStruct((), jnp.int32)
  state = steps.TrainState(step, programs.parameter_shapes(task.model), opt_state=None)
  variables, sums = jax.eval_shape(functions.begin, state, np.zeros(num_devices))
  return functions.accumulate.lower(variables, sums, examples, positions, step, arguments)


def program_bytes(compiled: Any) -> float:
  """Returns the memory of a compiled program on a device: arguments, results and temporaries."""
  used = compiled.memory_analysis()
  return float(
    used.argument_size_in_bytes
    + used.output_size_in_bytes
    - used.alias_size_in_bytes
    + used.temp_size_in_bytes
  )


def _reason(
  task: memory.Task, batch: int, size: int, used: float, whole: float, budget: float
) -> str:
  """Explains a choice.

  Args:
    task: The step.
    batch: Images of a step on each device.
    size: Images of a micro-batch.
    used: Its bytes.
    whole: Bytes for the batch at once, perhaps estimated.
    budget: Bytes that there are.
  """
  available = f"of {gigabytes(budget)} available"
  if size == batch:
    reason = f"All {batch} images fit at once: {gigabytes(used)} {available}."
  else:
    reason = f"Micro-batches of {size} images: {batch} {_needs(whole)} {available}."
  if task.model.remat:
    reason += " The backward pass recomputes activations (remat)."
  if used > budget:
    source = "by the compiler's analysis" if jax.process_count() == 1 else "estimated"
    killed = "; the system may kill this process silently" if task.on_cpu else ""
    reason += f" warning: even {size} {_needs(used)}, {source}{killed}."
  return reason


def _needs(amount: float) -> str:
  return f"would need about {gigabytes(amount)}" if amount < math.inf else "would need more"


def agreed(plan: Plan, eval_batch: int) -> tuple[Plan, int]:
  """Returns a plan, and an evaluation batch, that fit in the memory of every process.

  Processes run the same programs, but may have different memory.
  """
  ours = np.array([plan.microbatch, not plan.remat, plan.at_once, eval_batch])
  all_plans = multihost_utils.process_allgather(ours)
  microbatch, keeps, at_once, eval_batch = all_plans.min(axis=0).tolist()
  reason = plan.reason
  if microbatch != plan.microbatch:
    reason = f"Micro-batches of {microbatch} images, which fit on all processes."
  return Plan(microbatch, plan.batch, not keeps, reason, bool(at_once)), eval_batch


def advice(plan: Plan, config: RunConfig, platform: str) -> str:
  """Returns the next setting to try after a step ran out of memory, as a flag."""
  sizes = order.micro_batch_sizes(plan.batch, config.mixup_alpha > 0)
  if smaller := [m for m in sizes if m < plan.microbatch]:
    auto = "" if config.microbatch == hyperrule.AUTO else ", or 'auto' to find one that fits"
    return f"--config.microbatch={smaller[-1]} (now {plan.microbatch} images per device){auto}"
  if not plan.remat and platform != "cpu":
    return "--config.remat=True, which recomputes activations instead of keeping them"
  if config.momentum_dtype == "float32":
    return "--config.momentum_dtype=bfloat16, which halves the memory of momentum"
  if config.resident_share > 0:
    return f"--config.resident_share=0 (now {config.resident_share:g}), which streams the images"
  return f"a smaller --config.resize and --config.crop (now {config.resize} and {config.crop})"
