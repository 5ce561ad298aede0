"""Compiles one of this package's programs for GPUs and TPUs on a machine without them.

    python -m experiments.accelerators.compile_program h100 --model=R50x1 --size=128
    python -m experiments.accelerators.compile_program v5e --model=R50x1 --size=128 --images=128

XLA's compilers for GPUs and TPUs run on any machine. They show that a program compiles, its memory
on a device and its kernels; they show nothing of its time, as nothing runs. The program is that of
`bit_jax.train`: the training step or the passes over a micro-batch, whichever the memory planner
chooses, or the evaluation. The compilers need an environment of their own, as they must not be in
one that trains on the CPU: see `make accelerators`.

Traffic is the bytes of operands and results of all kernels (`traffic`); of a TPU's program, what
the compiler counts as accessed. It is compared with what the program must move in bfloat16
(`experiments.benchmarks.roofline`).

Without a GPU to tune on, XLA may report "Couldn't find output tile sizes" for large products; this
disables their Triton kernels: XLA_FLAGS=--xla_gpu_enable_triton_gemm=false.
"""

import argparse
import dataclasses
import hashlib
import json
import math
import pathlib
import sys
import time
import types
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from bit_jax import hyperrule
from bit_jax.data import order
from bit_jax.inference import footprint
from bit_jax.inference import programs as inference
from bit_jax.models import architectures, resnet_v2
from bit_jax.runtime import devices, exits, numerics
from bit_jax.training import memory, planning, programs
from experiments.accelerators import cases, targets, traffic
from experiments.benchmarks import roofline

CLASSES = 1000
_EVALUATION_BATCH = 256  # images over all devices: the default of a run
_MIXUP = 0.1
_PASSES_BYTES = 2 * 2 + 2 * 4  # that the passes over a micro-batch move for each parameter
_KINDS = 8  # of kernels, in the report: those that move most


@dataclasses.dataclass(frozen=True)
class Planned:
  """A program, and why it was chosen.

  Attributes:
    images: On each device, of one execution.
    whole: Whether it is a whole training step.
    remat: Whether its backward pass recomputes activations.
    budget: Bytes that it may take beside the state and the batches that wait.
    waiting: Bytes of these batches.
    larger: Images of the next larger micro-batch that was allowed; None if this is the largest.
  """

  images: int
  whole: bool
  remat: bool
  budget: float
  waiting: int
  larger: int | None


class Compiler:
  """Plans and compiles the program of a case."""

  def __init__(self, case: cases.Case):
    """Finds the devices of a case.

    Raises:
      UserError: The model is unknown, or the target's compiler is not installed.
    """
    self.case = case
    self.devices = targets.devices(case.target, case.devices)
    found = devices.describe(self.devices)
    dtype = devices.compute_dtype(case.dtype, found)
    self.model = resnet_v2.create(case.model, CLASSES, dtype, found.platform)
    resize = hyperrule.resize_for(case.size)
    self.task = memory.Task(self.model, resize, case.size, (resize, resize))
    free = targets.TARGETS[case.target].memory - self.task.state_bytes
    self.description = dataclasses.replace(
      found, bytes=free, count=case.devices, local_count=case.devices
    )

  def plan(self) -> Planned:
    """Returns what a run would choose; compiles small programs, if the planner wants to know."""
    budget = footprint.budget(self.description)
    if self.case.program == cases.EVALUATION:
      size, count = self.case.size, self.case.devices
      batch = footprint.batch(
        self.model,
        size,
        (size, size),
        wanted=_EVALUATION_BATCH,
        num_images=_EVALUATION_BATCH,
        budget=budget,
        count=count,
      )
      return Planned(batch // count, False, False, budget, 0, None)
    config: Any = types.SimpleNamespace(
      microbatch=hyperrule.AUTO, remat=hyperrule.AUTO, mixup_alpha=_MIXUP
    )
    share = cases.BATCH // self.case.devices
    plan = planning.plan(
      self.task, share, self.description, config, budget, targets=self.devices, say=lambda _: None
    )
    larger = [m for m in order.micro_batch_sizes(share) if m > plan.microbatch]
    waiting = memory.waiting_bytes(self.task, share)
    return Planned(
      plan.microbatch,
      plan.at_once,
      plan.remat,
      budget - waiting,
      waiting,
      min(larger, default=None),
    )

  def lower(self, planned: Planned) -> Any:
    """Returns the program, ready to be compiled (`jax.stages.Lowered`)."""
    if self.case.program == cases.EVALUATION:
      return self._lower_evaluation(planned.images)
    lower = planning.lower_step if planned.whole else planning.lower_passes
    return lower(self._task(planned), planned.images, self.case.devices, self.devices)

  def larger_bytes(self, planned: Planned) -> float | None:
    """Returns the memory of the next larger micro-batch; None if the compiler refuses it."""
    if planned.larger is None:
      return None
    batch = cases.BATCH // self.case.devices
    used = planning.micro_batch_bytes(
      self._task(planned), planned.larger, batch, self.description, self.devices
    )
    return used if used < math.inf else None

  def _task(self, planned: Planned) -> memory.Task:
    return self.task.with_remat() if planned.remat else self.task

  def _lower_evaluation(self, images: int) -> Any:
    size, count = self.case.size, len(self.devices)
    variables = jax.eval_shape(
      lambda params: resnet_v2.standardize_params(params, self.model.dtype),
      programs.parameter_shapes(self.model),
    )
    examples, *_ = programs.argument_shapes(count, images, (size, size))
    mask = jax.ShapeDtypeStruct((count, images), np.bool_)
    step: Any = inference.eval_function(self.model, size, self.devices)
    return step.lower(variables, examples, mask)


def figures(compiled: Any, images: int, platform: str) -> dict[str, Any]:
  """Returns a compiled program's memory, traffic, kernels and, if XLA counts them, operations.

  Args:
    compiled: The program.
    images: Images on each device.
    platform: That it is for.
  """
  used, costs = compiled.memory_analysis(), compiled.cost_analysis() or {}
  kernels = list(traffic.kernels(compiled.as_text()))
  in_kernels = sum(kernel.bytes for kernel in kernels)
  # TPU's layouts are padded and its kernels read from several memories: its compiler knows.
  moved = in_kernels if platform == "gpu" else costs["bytes accessed"]
  return {
    "arguments": used.argument_size_in_bytes,
    "temporaries": used.temp_size_in_bytes,
    "bytes": planning.program_bytes(compiled),
    "moved": moved / images,
    "kernels": len(kernels),
    "flops": costs.get("flops"),
    "by_kind": traffic.by_kind(kernels)[:_KINDS],
  }


def ideal_bytes(case: cases.Case, images: int, *, whole: bool) -> float:
  """Returns the bytes that the program must move for each image, in bfloat16.

  Args:
    case: The program.
    images: Images on each device.
    whole: Whether it is a whole training step. The passes over a micro-batch read bfloat16 kernels
      twice, and add gradients to float32 sums, in place of the update.
  """
  architecture, training = architectures.find(case.model), case.program == cases.TRAINING
  operations = roofline.operations(architecture, case.size, images, training=training)
  total = {operation.name: operation.bytes for operation in operations}
  if training and not whole:
    parameters = architectures.num_parameters(architecture, CLASSES)
    total["parameters"] = _PASSES_BYTES * parameters / images
  return sum(total.values())


def record(case: cases.Case, images: int | None, known: Mapping[str, Any]) -> dict[str, Any]:
  """Plans and compiles a case; returns its figures.

  Args:
    case: The program.
    images: On each device, for a whole training step or an evaluation; None: as the planner says.
    known: An earlier record by the same compiler, perhaps empty. If the program is the same, it
      isn't compiled again.
  """
  began, compiler = time.monotonic(), Compiler(case)
  planned = compiler.plan() if images is None else Planned(images, True, False, 0, 0, None)
  found = {
    **dataclasses.asdict(planned),
    "classes": CLASSES,
    "dtype": compiler.model.dtype.name,
    "kind": compiler.description.kind,
    "state": compiler.task.state_bytes,
    "ideal": ideal_bytes(case, planned.images, whole=planned.whole),
  }
  lowered = compiler.lower(planned)
  found["lowered"] = hashlib.sha256(lowered.as_text().encode()).hexdigest()
  if all(known.get(name) == found[name] for name in ("lowered", "larger")):
    return {**known, **found}
  found |= figures(lowered.compile(), planned.images, compiler.model.platform)
  found["larger_bytes"] = compiler.larger_bytes(planned)
  return found | {"seconds": round(time.monotonic() - began)}


def report(case: cases.Case, found: Mapping[str, Any]) -> str:
  """Returns the record of a case as text."""
  moved, ideal, images = found["moved"], found["ideal"], found["images"]
  lines = [
    f"{case.name} ({found['kind']}), {images} images at once, {found['dtype']}: compiled in "
    f"{found['seconds']} s",
    f"arguments    {found['arguments'] / 1e9:8.2f} GB",
    f"temporaries  {found['temporaries'] / 1e9:8.2f} GB",
    f"traffic      {moved / 1e6:8.1f} MB an image: {moved / ideal:.2f} times {ideal / 1e6:.1f} MB",
    f"kernels      {found['kernels']:8,}",
  ]
  for kind, count, total in found["by_kind"]:
    lines.append(f"             {total / images / 1e6:8.1f} MB an image by {count:,} {kind}")
  if found["flops"]:
    lines.append(f"operations   {found['flops'] / 1e12:8.2f} TFLOP")
  return "\n".join(lines)


def main(argv: Sequence[str]) -> None:
  """Compiles the program of a command line, and prints what the compiler reports.

  Raises:
    UserError: The model is unknown, or the target's compiler is not installed.
  """
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  add = parser.add_argument
  add("target", choices=targets.TARGETS)
  add("--model", default="R50x1")
  add("--size", type=int, default=128, help="side of the crop in pixels")
  add("--devices", type=int, default=1, help="number of devices")
  add("--program", choices=cases.PROGRAMS, default=cases.TRAINING)
  add("--dtype", choices=("auto", "bfloat16", "float32"), default="auto", help="of convolutions")
  add("--images", type=int, help="images on each device; default: as the planner chooses")
  add("--record", type=pathlib.Path, help="JSON file with the last record; gets the new one")
  options = parser.parse_args(argv[1:])
  devices.use_cpu()
  fields = {f.name: getattr(options, f.name) for f in dataclasses.fields(cases.Case)}
  path = options.record
  known = json.loads(path.read_text()) if path and path.exists() else {}
  case = cases.Case(**fields)
  try:
    with numerics.fixed():
      found = record(case, options.images, known)
  except jax.errors.JaxRuntimeError as e:
    if not path:
      raise
    found = {"error": f"does not compile: {str(e).splitlines()[0][:200]}"}
  if path:
    path.write_text(json.dumps(found))
  else:
    print(report(case, found))


if __name__ == "__main__":
  sys.exit(exits.run(main, sys.argv))
