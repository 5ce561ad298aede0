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
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence

from bit_jax.runtime import clock, errors, exits
from experiments.accelerators import cases, results

_ROOT = pathlib.Path(__file__).parents[2]
_NO_TRITON = "--xla_gpu_enable_triton_gemm=false"
_CRASHES = (-signal.SIGABRT, -signal.SIGSEGV)
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
  add(
    "--small",
    action="store_true",
    help="a small network for a GPU and a TPU: five to fifteen minutes",
  )
  add("--again", action="store_true", help="compile what is known already, too")
  add("--list", action="store_true", help="print the names of the programs and stop")
  options = parser.parse_args(argv[1:])
  chosen = cases.small() if options.small else sorted(cases.table(), key=cases.effort)
  words = set(options.only.lower().split())
  chosen = [case for case in chosen if words <= set(case.name.lower().split())]
  if not chosen:
    raise errors.UserError(
      f"No program's name has the words {options.only!r}: see --list. Other programs: `python -m "
      f"experiments.accelerators.compile_program --help`."
    )
  if options.list:
    print("\n".join(case.name for case in chosen))
    return 0
  try:
    return _compile_all(chosen, again=options.again)
  except KeyboardInterrupt as e:
    raise exits.Interrupted("\nStopped. The same command continues.") from e


def _compile_all(chosen: Sequence[cases.Case], *, again: bool) -> int:
  """Compiles cases one after another, with a line for each; returns 1 if one fails."""
  began, failed = time.monotonic(), 0
  for number, case in enumerate(chosen, 1):
    print(f"[{number}/{len(chosen)}] {case.name}: ", end="", flush=True)
    known, made_of = results.load().get(case, {}), results.made_of(case, _flags(case))
    if not again and "error" not in known and made_of.items() <= known.items():
      print(f"{results.summary(known)} (known)", flush=True)
      failed += not results.confirmed(known)
      continue
    same_compiler = all(known.get(name) == made_of[name] for name in made_of if name != "code")
    found = _compile(case, known if same_compiler and not again else {})
    before = f"; before: {results.summary(known)}" if known else ""
    if found.get("lowered", "") == known.get("lowered") and same_compiler:
      before = "; the program is unchanged"
    so_far = clock.format_seconds(time.monotonic() - began)
    print(f"{results.summary(found)} ({so_far} so far{before})", flush=True)
    failed += "error" in found or not results.confirmed(found)
    if not found.pop("passing", False):
      record = {**found, "case": dataclasses.asdict(case), **made_of}  # also of what was known
      results.add(case, record)
  return int(failed > 0)


def _flags(case: cases.Case) -> str:
  """Returns XLA_FLAGS for the compilation of a case."""
  flags = os.environ.get("XLA_FLAGS", "")
  return f"{flags} {_NO_TRITON}".strip() if case.on_gpu and case.size >= _LARGE else flags


def _compile(case: cases.Case, known: results.Record) -> results.Record:
  """Compiles a case in a process of its own; returns its figures, or why there are none.

  Args:
    case: The program.
    known: A record by the same compiler, perhaps empty.

  Returns:
    The figures, or 'error', with 'passing' if it says nothing about the program.
  """
  command = [sys.executable, "-m", "experiments.accelerators.compile_program", case.target]
  for name in ("devices", "model", "size", "program", "dtype"):
    command.append(f"--{name}={getattr(case, name)}")
  environment = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": _flags(case)}
  with tempfile.TemporaryDirectory() as temporary:
    path = pathlib.Path(temporary, "record.json")
    path.write_text(json.dumps(known))
    ran = subprocess.run(
      [*command, f"--record={path}"], env=environment, cwd=_ROOT, capture_output=True, text=True
    )
    if not ran.returncode:
      found: results.Record = json.loads(path.read_text())
      return found
  if ran.returncode in _CRASHES:
    return {"error": f"the compiler crashes (signal {-ran.returncode})"}
  if ran.returncode == -signal.SIGKILL:
    return {"error": "killed: the compiler needs more memory", "passing": True}
  print(ran.stderr, file=sys.stderr)
  return {"error": f"failed with exit status {ran.returncode}", "passing": True}


if __name__ == "__main__":
  sys.exit(exits.run(main, sys.argv))
