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
import json
import math
import pathlib
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from bit_jax import hyperrule
from bit_jax.runtime import checks, devices, exits, numerics
from experiments.accelerators import cases, figures, targets
from experiments.accelerators.compiler import Compiler, Planned, digest


def record(case: cases.Case, images: int | None, known: Mapping[str, Any]) -> dict[str, Any]:
  """Plans and compiles a case; returns its figures.

  Args:
    case: The program.
    images: On each device, for a whole training step or an evaluation; None: as the planner says.
    known: An earlier record by the same compiler, perhaps empty. Programs in it that are still the
      same aren't compiled again.
  """
  began = time.monotonic()
  compiler = Compiler(case, known.get("tried", {}))
  planned = compiler.plan() if images is None else Planned(images, True, False, math.inf, None)
  lowered = compiler.lower(planned)
  name = digest(lowered)
  found = {
    **dataclasses.asdict(planned),
    "classes": figures.CLASSES,
    "dtype": compiler.model.dtype.name,
    "kind": compiler.description.kind,
    "ideal": figures.ideal_bytes(case, planned.images, whole=planned.whole),
    "lowered": name,
  }
  if known.get("lowered") == name:
    found |= {field: known[field] for field in (*figures.FIELDS, "seconds")}
  else:
    compiled = compiler.compiled.get(name) or lowered.compile()
    found |= figures.figures(compiled, planned.images, compiler.model.platform)
    found["seconds"] = round(time.monotonic() - began)
  if case.program == cases.EVALUATION or images is not None:
    return found | {"used": found["bytes"], "larger_used": None, "tried": {}}
  compiler.tried[name] = found["bytes"]
  found["used"] = compiler.used(planned, planned.images)
  found["larger_used"] = compiler.used(planned, planned.larger) if planned.larger else None
  return found | {"tried": compiler.tried}


def report(case: cases.Case, found: Mapping[str, Any]) -> str:
  """Returns the record of a case as text."""
  moved, ideal, images = found["moved"], found["ideal"], found["images"]
  lines = [
    f"{case.name} ({found['kind']}), {images} images at once, {found['dtype']}: compiled in "
    f"{found['seconds']} s",
    f"arguments    {found['arguments'] / 1e9:8.2f} GB",
    f"temporaries  {found['temporaries'] / 1e9:8.2f} GB",
    f"traffic      {moved / 1e6:8.1f} MB an image: {moved / ideal:.2f} times the ideal "
    f"in bfloat16, {ideal / 1e6:.1f} MB",
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
    prog="python -m experiments.accelerators.compile_program",
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  add = parser.add_argument
  add("target", choices=targets.TARGETS)
  add("--model", default="R50x1", help="architecture; default: R50x1")
  add("--size", type=int, default=128, help="side of the crop in pixels")
  add("--devices", type=int, default=1, help="number of devices")
  add("--program", choices=cases.PROGRAMS, default=cases.TRAINING)
  add("--dtype", choices=("auto", "bfloat16", "float32"), default="auto", help="of convolutions")
  add("--images", type=int, help="images on each device; default: as the planner chooses")
  add("--record", type=pathlib.Path, help="JSON file with the last record; gets the new one")
  options = parser.parse_args(argv[1:])
  checks.in_range("--size", options.size, 1, hyperrule.MAX_SIDE)
  checks.in_range("--devices", options.devices, 1, cases.BATCH)
  if options.images is not None:
    checks.in_range("--images", options.images, 1, hyperrule.MAX_BATCH)
  devices.use_cpu()
  fields = {f.name: getattr(options, f.name) for f in dataclasses.fields(cases.Case)}
  path = options.record
  known = json.loads(path.read_text()) if path and path.exists() else {}
  case = cases.Case(**fields)
  print(f"Compiling {case.name}, which takes minutes.", file=sys.stderr)
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
