"""Cost of runs: operations, device memory and time.

    python -m experiments.cost                          # updates and prints cost.md
    python -m experiments.cost --check RUN_FOLDER ...   # compares predictions with finished runs

Times come from measured benchmarks or from a card's data sheet (`throughput`).
"""

import argparse
import pathlib
import sys
from collections.abc import Sequence

from bit_jax.runtime import errors, exits, imports, paths
from experiments.cost import tables, throughput

_TABLE = pathlib.Path(__file__).parents[1] / "cost.md"


def main(argv: Sequence[str]) -> None:
  """Updates and prints `cost.md`, or compares predictions with runs.

  Raises:
    UserError: None of the folders to check holds a finished run, or pandas is not installed.
  """
  parser = argparse.ArgumentParser(
    prog="python -m experiments.cost", description="Updates and prints cost.md, the cost of runs."
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
    return
  with imports.extra("experiments"):
    from experiments.cost import checks
  if options.check:
    found, left_out = checks.of_folders(known, options.check)
    if found:
      print("\n".join((*checks.single_runs(found), "", checks.total_time(found))))
    for path, reason in left_out:
      print(f"Left out: {path}: {reason}")
    sys.stdout.flush()
    if not found:
      raise errors.UserError("--check found no finished run in these folders.")
  else:
    text = _TABLE.read_text(encoding="utf-8")
    sections = {**tables.document(known), **checks.document(known, checks.committed(known))}
    for name, lines in sections.items():
      start, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->"
      before, _, rest = text.partition(start)
      text = "".join((before, start, "\n", "\n".join(lines), "\n\n", end, rest.partition(end)[2]))
    _TABLE.write_text(text, encoding="utf-8")
    print(text, end="")


if __name__ == "__main__":
  sys.exit(exits.run(main, sys.argv))
