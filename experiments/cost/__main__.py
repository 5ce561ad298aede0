"""Cost of runs: operations, device memory and time.

    python -m experiments.cost            # updates and prints cost.md
    python -m experiments.cost --short    # prints one summary table

Times come from measured benchmarks or from a card's data sheet (`throughput`).
"""

import argparse
import pathlib
import sys
from collections.abc import Sequence

from bit_jax.runtime import exits
from experiments.cost import tables, throughput

_TABLE = pathlib.Path(__file__).parents[1] / "cost.md"


def main(argv: Sequence[str]) -> None:
  """Updates and prints `cost.md`, or prints the summary."""
  parser = argparse.ArgumentParser(
    prog="python -m experiments.cost", description="Updates and prints cost.md, the cost of runs."
  )
  parser.add_argument("--short", action="store_true", help="print one summary table instead")
  options = parser.parse_args(argv[1:])
  known = throughput.measurements()
  if options.short:
    print("\n".join(tables.summary(known)))
    return
  text = _TABLE.read_text(encoding="utf-8")
  for name, lines in tables.document(known).items():
    start, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->"
    before, _, rest = text.partition(start)
    text = "".join((before, start, "\n", "\n".join(lines), "\n\n", end, rest.partition(end)[2]))
  _TABLE.write_text(text, encoding="utf-8")
  print(text, end="")


if __name__ == "__main__":
  sys.exit(exits.run(main, sys.argv))
