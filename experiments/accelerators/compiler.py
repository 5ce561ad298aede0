"""Plans and compiles the program of a case, as a run on its devices would."""

import dataclasses
import hashlib
import math
import types
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from bit_jax import hyperrule
from bit_jax.data import order
from bit_jax.inference import footprint
from bit_jax.inference import programs as inference
from bit_jax.models import resnet_v2
from bit_jax.run_config import RunConfig
from bit_jax.runtime import devices, errors
from bit_jax.training import memory, planning, programs
from experiments.accelerators import cases, figures, targets

_MIXUP = 0.1


@dataclasses.dataclass(frozen=True)
class Planned:
  """A program, and why it was chosen.

  Attributes:
    images: On each device, of one execution.
    whole: Whether it is a whole training step.
    remat: Whether its backward pass recomputes activations.
    budget: Bytes that it may take beside the state and the batches that wait.
    larger: Images of the next larger micro-batch that was allowed; None if this is the largest.
  """

  images: int
  whole: bool
  remat: bool
  budget: float
  larger: int | None


class Compiler:
  """Plans and compiles the program of a case.

  Attributes:
    tried: {hash of a program before it is compiled: its bytes on a device, None if refused}.
    compiled: The compiled programs by these hashes.
  """

  def __init__(self, case: cases.Case, tried: Mapping[str, float | None]):
    """Finds the devices of a case.

    Args:
      case: The program.
      tried: Of earlier compilations by the same compiler.

    Raises:
      UserError: The model is unknown, the batch can't be distributed over the devices, or the
        target's compiler is not installed.
    """
    self.case, self.tried = case, dict(tried)
    self.compiled: dict[str, jax.stages.Compiled] = {}
    if cases.BATCH % case.devices:
      raise errors.UserError(f"A batch of {cases.BATCH} can't be distributed over {case.devices}.")
    self.devices = targets.devices(case.target, case.devices)
    found = devices.describe(self.devices)
    dtype = devices.compute_dtype(case.dtype, found)
    self.model = resnet_v2.create(case.model, figures.CLASSES, dtype, found.platform)
    resize = hyperrule.resize_for(case.size)
    self.task = memory.Task(self.model, resize, case.size, (resize, resize))
    free = targets.TARGETS[case.target].memory - self.task.state_bytes
    self.description = dataclasses.replace(found, bytes=free)

  def plan(self) -> Planned:
    """Returns what a run would choose; compiles programs, if the planner wants to know."""
    budget = footprint.budget(self.description)
    if self.case.program == cases.EVALUATION:
      size, count, wanted = self.case.size, self.case.devices, RunConfig.eval_batch_size
      batch = footprint.batch(
        self.model,
        size,
        (size, size),
        wanted=wanted,
        num_images=wanted,
        budget=budget,
        count=count,
      )
      return Planned(batch // count, False, False, budget, None)
    config: Any = types.SimpleNamespace(
      microbatch=RunConfig.microbatch, remat=RunConfig.remat, mixup_alpha=_MIXUP
    )
    share = cases.BATCH // self.case.devices
    plan = planning.plan(
      self.task, share, self.description, config, budget, lambda _: None, self._program_bytes
    )
    larger = [m for m in order.micro_batch_sizes(share) if m > plan.microbatch]
    waiting = memory.waiting_bytes(self.task, share)
    return Planned(
      plan.microbatch, plan.at_once, plan.remat, budget - waiting, min(larger, default=None)
    )

  def lower(self, planned: Planned) -> jax.stages.Lowered:
    """Returns a program that is ready to be compiled."""
    if self.case.program == cases.EVALUATION:
      return self._lower_evaluation(planned.images)
    program = planning.Program.STEP if planned.whole else planning.Program.PASSES
    return self._lower(self._task(planned), program, planned.images)

  def used(self, planned: Planned, images: int) -> float | None:
    """Returns the memory for micro-batches of a size, without state and waiting batches.

    Args:
      planned: What was chosen.
      images: Images of a micro-batch, perhaps others.

    Returns:
      Bytes on a device, None if the compiler refuses the program.
    """
    task, several = self._task(planned), self.case.devices > 1
    program = planning.program_of(task, images, cases.BATCH // self.case.devices)
    used = planning.bytes_beside_state(task, program, images, several, self._program_bytes)
    return used if used < math.inf else None

  def _program_bytes(self, task: memory.Task, program: planning.Program, images: int) -> float:
    lowered = self._lower(task, program, images)
    name = digest(lowered)
    if name not in self.tried:
      self.tried[name] = None
      if compiled := planning.compile_if_it_fits(lowered):
        self.compiled[name] = compiled
        self.tried[name] = planning.program_bytes(compiled)
    known = self.tried[name]
    return math.inf if known is None else known

  def _task(self, planned: Planned) -> memory.Task:
    return self.task.with_remat() if planned.remat else self.task

  def _lower(self, task: memory.Task, program: planning.Program, images: int) -> jax.stages.Lowered:
    return planning.lower(task, program, images, self.case.devices, self.devices)

  def _lower_evaluation(self, images: int) -> jax.stages.Lowered:
    size, count = self.case.size, len(self.devices)
    variables = jax.eval_shape(
      lambda params: resnet_v2.standardize_params(params, self.model.dtype),
      programs.parameter_shapes(self.model),
    )
    examples, *_ = programs.argument_shapes(count, images, (size, size))
    mask = jax.ShapeDtypeStruct((count, images), np.bool_)
    step: Any = inference.eval_function(self.model, size, self.devices)
    lowered: jax.stages.Lowered = step.lower(variables, examples, mask)
    return lowered


def digest(lowered: jax.stages.Lowered) -> str:
  """Returns a hash of a program that is not compiled yet."""
  return hashlib.sha256(lowered.as_text().encode()).hexdigest()
