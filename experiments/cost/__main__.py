"""Cost of runs: operations, device memory and time.

    python -m experiments.cost                          # prints the tables and writes cost.md
    python -m experiments.cost --check RUN_FOLDER ...   # compares predictions with finished runs

Times come from measured benchmarks or from a card's data sheet (`throughput`).
"""

import argparse
import pathlib
import sys
from collections.abc import Sequence

from bit_jax.runtime import errors, exits, paths
from experiments.cost import checks, tables, throughput

_TABLE = pathlib.Path(__file__).parents[1] / "cost.md"


def main(argv: Sequence[str]) -> None:
  """Prints and writes the tables, or compares predictions with runs.

  Raises:
    UserError: None of the folders to check holds a finished run.
  """
  parser = argparse.ArgumentParser(
    prog="python -m experiments.cost", description="Prints the cost of runs as Markdown tables."
  )
  what = parser.add_mutually_exclusive_group()
  what.add_argument(
    "--check",
    nargs="+",
    metavar="FOLDER",
    type=paths.argument,
    default=[],
    help="compare predicted and measured cost of finished runs: run folders, or folders of them",
  )
  what.add_argument("--short", action="store_true", help="print one summary table")
  options = parser.parse_args(argv[1:])
  known = throughput.measurements()
  if options.short:
    print("\n".join(tables.summary(known)))
  elif options.check:
    _check(known, options.check)
  else:
    text = "\n".join((*tables.document(known), "", *checks.section(known, checks.committed(known))))
    _TABLE.write_text(text + "\n", encoding="utf-8")
    print(text)


def _check(known: Sequence[throughput.Measured], folders: Sequence[pathlib.Path]) -> None:
  """Prints predicted and measured cost of runs, then the folders without a finished run."""
  found, left_out = checks.of_folders(known, folders)
  if found:
    print("\n".join((*checks.single_runs(found), "", checks.total_time(found))))
  for path, reason in left_out:
    print(f"Left out: {path}: {reason}")
  sys.stdout.flush()
  if not found:
    raise errors.UserError("--check found no finished run in these folders.")


if __name__ == "__main__":
  sys.exit(exits.run(main, sys.argv))
