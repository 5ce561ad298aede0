"""What runs cost: operations, device memory and time.

    python -m experiments.cost                      # the tables, also into cost.md beside this file
    python -m experiments.cost --check RUN_FOLDER ...   # predicted against measured

Times rest on what the benchmarks measured, or on a card's data sheet (`throughput`).
"""

import argparse
import pathlib
import sys
from collections.abc import Sequence

from bit_jax.runtime import errors, exits, paths
from experiments import cost_check_tables, cost_checks, cost_tables, throughput

_TABLE = pathlib.Path(__file__).with_suffix(".md")


def main(argv: Sequence[str]) -> None:
  """Prints and writes the tables, or checks predictions.

  Raises:
    UserError: None of the folders to check holds a finished run.
  """
  parser = argparse.ArgumentParser(
    prog="python -m experiments.cost", description="What runs cost, as Markdown tables."
  )
  what = parser.add_mutually_exclusive_group()
  what.add_argument(
    "--check",
    nargs="+",
    metavar="FOLDER",
    type=paths.argument,
    default=[],
    help="runs, or folders of runs: what was expected of them beside what they took",
  )
  what.add_argument("--short", action="store_true", help="print one table of all, the README's")
  options = parser.parse_args(argv[1:])
  known = throughput.measurements()
  if options.short:
    print("\n".join(cost_tables.summary(known)))
  elif options.check:
    _check(known, options.check)
  else:
    cases, made = list(cost_checks.benchmarks(known)), cost_checks.committed(known)
    checked = cost_check_tables.section(known, cases, made)
    text = "\n".join(cost_tables.document(known, checked))
    _TABLE.write_text(text + "\n", encoding="utf-8")
    print(text)


def _check(known: Sequence[throughput.Measured], paths: Sequence[pathlib.Path]) -> None:
  """Prints what was expected of runs beside what they took, and what holds no finished run."""
  made, left_out = cost_checks.of_folders(known, paths)
  if made:
    print("\n".join((*cost_check_tables.single_runs(made), "", cost_check_tables.in_all(made))))
  for path, reason in left_out:
    print(f"Left out: {path}: {reason}")
  sys.stdout.flush()
  if not made:
    raise errors.UserError("There is no finished run in what --check names.")


if __name__ == "__main__":
  sys.exit(exits.run(main, sys.argv))
