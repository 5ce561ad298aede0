"""Fits a run in memory: chooses micro-batches, and advises what to try if memory runs out.

If the upper bound of `memory` says that a whole step fits, nothing else is needed. Otherwise the
compiler reports the memory of the largest micro-batch that should fit, and of the next larger or
smaller ones, until one fits and the next larger one does not. Most are ruled out by arithmetic.
"""

import contextlib
import dataclasses
import enum
import functools
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

# The bound of a program in units of what compilers report: the median of those in
# experiments/accelerators/results.jsonl that were chosen.
_BOUND_OF_USED = {"gpu": 1.14, "tpu": 1.47}
_COMPILERS = ("jaxlib", "jax-cuda12-plugin", "jax-cuda13-plugin", "libtpu")


class Program(enum.StrEnum):
  """A program whose memory decides: a whole step, or those of a step in micro-batches."""

  STEP = "step"
  PASSES = "passes"  # over a micro-batch
  END = "end"  # averages the gradients over devices, and updates the parameters


# (the step, its program, images on each device) -> the bytes of the program on a device by the
# compiler, arguments included; infinite if it refuses.
Compiler = Callable[[memory.Task, Program, int], float]


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
  compiler: Compiler | None = None,
) -> Plan:
  """Chooses the micro-batch, and rematerialisation if not even the smallest one fits without.

  Args:
    task: The step.
    batch: Images of a step on each device.
    description: The devices.
    config: Resolved.
    budget: Bytes that a device has beside the state.
    say: Called with a sentence before a long search.
    compiler: Compiles for the described devices; default: for those of this run.

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
  if not _several_processes(description):
    say("Searching for the largest micro-batch that fits (the result is cached).")
  sizes = order.micro_batch_sizes(batch, mixup)
  budget = max(0.0, budget - memory.waiting_bytes(task, batch))
  compiler = compiler or functools.partial(compiled_bytes, description=description)
  search = _Search(task, batch, description, compiler)
  found = search.largest(sizes, budget)
  if found is None and config.remat == hyperrule.AUTO and not task.on_cpu:
    search = _Search(task.with_remat(), batch, description, compiler)
    found = search.largest(sizes, budget)
  size, used = found or (sizes[0], search.used(sizes[0]))
  reason = _reason(search, size, used, budget)
  return Plan(size, batch, search.task.model.remat, reason, search.program(size) == Program.STEP)


def _several_processes(description: devices.Description) -> bool:
  return description.count > description.local_count


@dataclasses.dataclass(frozen=True)
class _Search:
  """A search for the largest micro-batch that fits.

  With several processes only arithmetic decides: each would have to compile the same programs at
  the same time, whatever it has cached.

  Attributes:
    task: The step.
    batch: Images of a step on each device.
    description: The devices.
    compiler: Compiles for them.
    tried: {images of a micro-batch: bytes}.
  """

  task: memory.Task
  batch: int
  description: devices.Description
  compiler: Compiler
  tried: dict[int, float] = dataclasses.field(default_factory=dict, init=False)

  def largest(self, sizes: Sequence[int], budget: float) -> tuple[int, float] | None:
    """Returns the largest of some rising sizes that fits, and its bytes; None if none does.

    It is exact if a larger micro-batch needs no less memory. A size that fits was compiled.
    """
    best, most, least = None, memory.bound(self.task), memory.least(self.task)
    if _several_processes(self.description):
      size = most.largest(sizes, budget)
      return (size, most.of(size)) if size else None
    left = [m for m in sizes if least.of(m) <= budget]
    while left:
      likely = [m for m in left if self.expected(m) <= budget]
      size = likely[-1] if likely else left[(len(left) - 1) // 2]
      used = self.used(size)
      if used <= budget:
        best, left = (size, used), [m for m in left if m > size]
      else:
        left = [m for m in left if m < size]
    return best

  def used(self, size: int) -> float:
    """Returns the memory for a micro-batch beside the state: by the compiler, or the bound."""
    if _several_processes(self.description):
      return memory.bound(self.task).of(size)
    if size not in self.tried:
      program, several = self.program(size), self.description.local_count > 1
      self.tried[size] = bytes_beside_state(self.task, program, size, several, self.compiler)
    return self.tried[size]

  def program(self, size: int) -> Program:
    """Returns which program computes a micro-batch."""
    return program_of(self.task, size, self.batch)

  def expected(self, size: int) -> float:
    """Returns what a micro-batch should need, by the sizes nearest to it that were tried.

    Without any it is the bound over what that usually is; of two, it is their line. From one it
    differs by what the bounds do: what a program takes whatever its size is a large share of small
    ones, so that a ratio would mislead.
    """
    most = memory.bound(self.task)
    if size in self.tried or _several_processes(self.description):
      return self.tried.get(size, most.of(size))
    known = [m for m, used in self.tried.items() if used < math.inf]
    nearest = sorted(known, key=lambda m: abs(m - size))[:2]
    guess = most.of(size) / _BOUND_OF_USED.get(self.task.model.platform, 1)
    if nearest:
      first = nearest[0]
      each = most.per_image
      if len(nearest) > 1:
        each = (self.tried[first] - self.tried[nearest[1]]) / (first - nearest[1])
      guess = self.tried[first] + (size - first) * each
    return max(guess, memory.least(self.task).of(size))


def program_of(task: memory.Task, size: int, batch: int) -> Program:
  """Returns which program computes micro-batches of a size, or the whole batch as one.

  Args:
    task: The step.
    size: Images of a micro-batch.
    batch: Images of a step on each device.
  """
  return Program.STEP if size == batch and not task.on_cpu else Program.PASSES


def bytes_beside_state(
  task: memory.Task, program: Program, images: int, several: bool, compiler: Compiler
) -> float:
  """Returns the memory of a step on a device beside the state and the batches that wait.

  Args:
    task: The step.
    program: The whole step, or the passes; then its end is counted, too.
    images: On each device, of the program.
    several: Whether there are several devices. On one, a step's end needs less than its passes.
    compiler: Returns the bytes of a program.
  """
  used = compiler(task, program, images)
  if program == Program.STEP:  # of the two batches that wait, it has one among its arguments
    return used - task.state_bytes - memory.waiting_bytes(task, images) / 2
  if not several or task.on_cpu or used >= memory.end_bytes(task):
    return used
  return max(used, compiler(task, Program.END, images) - task.state_bytes)


def compiled_bytes(
  task: memory.Task, program: Program, images: int, description: devices.Description
) -> float:
  """Returns the memory of a program on a device of this run, as a `Compiler`.

  It is kept in the cache folder for the same code, compiler, devices and flags. A refusal is kept
  for TPUs, whose compiler knows their memory; GPUs are tuned on, and may be full for the moment.

  Args:
    task: The step.
    program: Which of its programs.
    images: On each device, of the program; those of a step's end are not looked at.
    description: The devices.
  """
  images = 1 if program == Program.END else images
  parts = [repr(task), program, images, description.kind, description.local_count]
  parts += [os.environ.get("XLA_FLAGS", ""), *_compilers()]
  modules = (ops, resnet_v2, augmentation, metrics, optimizer, parallel, programs, steps)
  code = [pathlib.Path(m.__file__ or "").read_bytes() for m in modules]
  record = f"{hashlib.sha256(repr((parts, code)).encode()).hexdigest()[:32]}.json"
  with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
    return float(json.loads(cache.recall("memory", record))["bytes"])
  used = _compile(task, program, images, description.local_count)
  if used < math.inf or task.model.platform == "tpu":
    entry = {"bytes": used, "images": images, "task": repr(task), "program": program}
    cache.remember("memory", record, json.dumps(entry).encode())
  return used


def _compilers() -> Iterator[str]:
  for package in _COMPILERS:
    with contextlib.suppress(metadata.PackageNotFoundError):
      yield f"{package} {metadata.version(package)}"


def _compile(task: memory.Task, program: Program, images: int, num_devices: int) -> float:
  compiled = compile_if_it_fits(lower(task, program, images, num_devices))
  return math.inf if compiled is None else program_bytes(compiled)


def lower(
  task: memory.Task,
  program: Program,
  images: int,
  num_devices: int,
  targets: tuple[jax.Device, ...] | None = None,
) -> jax.stages.Lowered:
  """Returns a program that is ready to be compiled.

  Args:
    task: The step.
    program: Which of its programs.
    images: On each device, of the program.
    num_devices: Local devices.
    targets: Those that it is compiled for; default: all of this run.
  """
  lowered: jax.stages.Lowered
  step: Any = programs.train_function(task, targets)
  functions: Any = programs.micro_batch_functions(task, targets)
  state, examples, positions, arguments = programs.step_shapes(task, num_devices, images)
  if program == Program.STEP:
    lowered = step.lower(state, examples, positions, arguments)
    return lowered
  variables, sums = jax.eval_shape(functions.begin, state, np.zeros(num_devices))
  if program == Program.END:
    count = jax.ShapeDtypeStruct((), jnp.float32)
    lowered = functions.finish.lower(state, sums, count, arguments)
  else:
    lowered = functions.accumulate.lower(
      variables, sums, examples, positions, state.step, arguments
    )
  return lowered


def compile_if_it_fits(lowered: jax.stages.Lowered) -> jax.stages.Compiled | None:
  """Compiles a program; returns None if the compiler refuses it for want of memory.

  Raises:
    jax.errors.JaxRuntimeError: It doesn't compile for another reason.
  """
  try:
    return lowered.compile()
  except jax.errors.JaxRuntimeError as e:
    if not footprint.is_out_of_memory(e):
      raise
    return None


def program_bytes(compiled: Any) -> float:
  """Returns the memory of a compiled program on a device: arguments, results and temporaries."""
  used = compiled.memory_analysis()
  return float(
    used.argument_size_in_bytes
    + used.output_size_in_bytes
    - used.alias_size_in_bytes
    + used.temp_size_in_bytes
  )


def _reason(search: _Search, size: int, used: float, budget: float) -> str:
  """Explains a choice.

  Args:
    search: That led to it.
    size: Images of a micro-batch.
    used: Its bytes.
    budget: Bytes that there are.
  """
  batch, on_cpu = search.batch, search.task.on_cpu
  if size < batch:
    whole = search.expected(batch)
    reason = f"Micro-batches of {size} images: {batch} {_needs(whole, budget)}."
  elif used <= budget:
    room = f"{gigabytes(used)} of {gigabytes(budget)} available"
    reason = f"All {batch} images fit at once: {room}."
  else:
    reason = f"All {batch} images at once, which can't be split."
  if search.task.model.remat:
    reason += " The backward pass recomputes activations (remat)."
  if used > budget:
    estimated = _several_processes(search.description)
    source = "estimated" if estimated else "by the compiler's analysis"
    killed = "; the system may kill this process silently" if on_cpu else ""
    reason += f" warning: even {size} {_needs(used, budget)}, {source}{killed}."
  return reason


def _needs(amount: float, budget: float) -> str:
  if amount < math.inf:
    return f"would need about {gigabytes(amount)} of {gigabytes(budget)} available"
  return f"would need more than the {gigabytes(budget)} available"


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
