"""Compiles this package's programs for accelerators and writes the table: `make accelerators`.

    python -m experiments.accelerators [--only "h100 R50x1 480"] [--small] [--again] [--list]

The table is hours of work for two cores. It may be stopped at any time: a program is compiled
again only if it or the compiler has changed, which is looked at where any source of programs or
planner has changed. Each is compiled in a process of its own. Records go to
experiments/accelerators/results.jsonl, the table to results.md beside it.
"""

import argparse
import dataclasses
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence

from bit_jax.runtime import clock, errors, exits
from experiments.accelerators import cases, results

_ROOT = pathlib.Path(__file__).parents[2]
_NO_TRITON = "--xla_gpu_enable_triton_gemm=false"
_LARGE = 480  # pixels from which XLA for GPU can't choose Triton's products without a GPU


def main(argv: Sequence[str]) -> int:
  """Compiles the programs of a command line; returns 1 if one doesn't compile or doesn't fit."""
  parser = argparse.ArgumentParser(
    prog="python -m experiments.accelerators",
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  add = parser.add_argument
  add("--only", default="", metavar="WORDS", help="programs whose name has all these words")
  add("--small", action="store_true", help="a small network for a GPU and a TPU: five minutes")
  add("--again", action="store_true", help="compile what is known already, too")
  add("--list", action="store_true", help="print the names of the programs and stop")
  options = parser.parse_args(argv[1:])
  chosen = cases.small() if options.small else sorted(cases.table(), key=cases.effort)
  chosen = [case for case in chosen if set(options.only.split()) <= set(case.name.split())]
  if not chosen:
    raise errors.UserError(f"No program's name has the words {options.only!r}: see --list.")
  if options.list:
    print("\n".join(case.name for case in chosen))
    return 0
  return _compile_all(chosen, keep=not options.small, again=options.again)


def _compile_all(chosen: Sequence[cases.Case], *, keep: bool, again: bool) -> int:
  """Compiles cases one after another, with a line for each; returns 1 if one fails."""
  began, failed = time.monotonic(), 0
  for number, case in enumerate(chosen, 1):
    print(f"[{number}/{len(chosen)}] {case.name}: ", end="", flush=True)
    made_of = {"versions": results.versions(case.target), "code": results.code()}
    known = {} if again else results.load().get(case, {})
    if is_known := made_of.items() <= known.items():
      remark = "known"
    else:
      same_compiler = known.get("versions") == made_of["versions"]
      known = _compile(case, known if same_compiler else {}, made_of)
      remark = f"{clock.format_seconds(time.monotonic() - began)} so far"
    print(f"{results.summary(known)} ({remark})", flush=True)
    if keep and not is_known:
      results.save(results.load() | {case: known})  # another process may have added to it
    failed += "error" in known or not results.fits(known)
  return int(failed > 0)


def _compile(case: cases.Case, known: results.Record, made_of: results.Record) -> results.Record:
  """Compiles a case in a process of its own.

  Args:
    case: The program.
    known: A record by the same compiler, perhaps empty.
    made_of: Versions and hashes for the record.

  Raises:
    UserError: The process was killed.
  """
  command = [sys.executable, "-m", "experiments.accelerators.compile_program", case.target]
  for name in ("devices", "model", "size", "program", "dtype"):
    command.append(f"--{name}={getattr(case, name)}")
  environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
  if case.on_gpu and case.size >= _LARGE:
    environment["XLA_FLAGS"] = f"{environment.get('XLA_FLAGS', '')} {_NO_TRITON}".strip()
  with tempfile.TemporaryDirectory() as temporary:
    path = pathlib.Path(temporary, "record.json")
    path.write_text(json.dumps(known))
    ran = subprocess.run(
      [*command, f"--record={path}"], env=environment, cwd=_ROOT, capture_output=True, text=True
    )
    if ran.returncode < 0:
      raise errors.UserError(f"The compiler of {case.name} was killed; does it have the memory?")
    found = json.loads(path.read_text())
  if ran.returncode:
    lines = ran.stderr.strip().splitlines() or ["no message"]
    found = {"error": f"does not compile: {lines[-1][:200]}"}
  return {"case": dataclasses.asdict(case), **made_of, **found}


if __name__ == "__main__":
  sys.exit(exits.run(main, sys.argv))
