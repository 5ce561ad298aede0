"""Prints the recorded figures as Markdown tables: the newest of each comparison and machine.

python -m experiments.benchmarks.report [RESULTS.jsonl]
"""

import argparse
import dataclasses
import itertools
import json
import operator
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from bit_jax.runtime import errors, exits, paths
from experiments.benchmarks import results

_FIELDS = {field.name for field in dataclasses.fields(results.Row)}
_TITLES = (
  "| configuration | quantity | ours | peer | peer's | ratio | |\n|---|---|---|---|---|---|---|"
)
_benchmark_and_machine = operator.itemgetter("benchmark", "machine")
_compared = operator.itemgetter("benchmark", "machine", "configuration", "quantity")


def newest(lines: Iterable[str]) -> list[dict[str, Any]]:
  """Returns the last record of each comparison on each machine, by benchmark, then machine.

  A record without the peer's figure doesn't replace one that has it.

  Args:
    lines: Of a results file, in the order in which they were measured.
  """
  last: dict[tuple[str, ...], dict[str, Any]] = {}
  for record in map(json.loads, lines):
    key = (*_compared(record), re.sub(" (eager|compiled)$", "", record["peer"]))
    if record["theirs"] is not None or last.get(key, record)["theirs"] is None:
      last[key] = record
  return sorted(last.values(), key=_benchmark_and_machine)


def render(records: Sequence[dict[str, Any]]) -> str:
  """Returns a heading, machine and versions, and a table for each benchmark and machine.

  Args:
    records: As from `newest`.
  """
  groups = itertools.groupby(records, key=_benchmark_and_machine)
  return "\n".join(line for _, group in groups for line in _table(list(group)))


def _table(records: Sequence[dict[str, Any]]) -> Iterator[str]:
  runs = sorted({f"{r['date']}, commit {r['commit']}" for r in records})
  versions = {k: v for r in records for k, v in r["versions"].items()}
  about = results.about(records[0]["machine"], versions)
  yield f"### {records[0]['benchmark']}\n\n{'; '.join([about, *runs])}\n\n{_TITLES}"
  for record in records:
    row = results.Row(**{name: record[name] for name in _FIELDS & record.keys()})
    yield f"| {' | '.join(row.cells())} |"
  yield ""


def main(argv: Sequence[str]) -> None:
  """Prints the tables of a results file."""
  parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
  parser.add_argument("results", nargs="?", type=paths.argument, default=results.PATH)
  path = parser.parse_args(argv[1:]).results
  if not path.is_file():
    raise errors.UserError(f"Results file not found: {path}.")
  print(render(newest(path.read_text().splitlines())))


if __name__ == "__main__":
  sys.exit(exits.run(main, sys.argv))
