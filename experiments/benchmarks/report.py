"""Prints the recorded figures as Markdown tables: the newest of each comparison and machine.

python -m experiments.benchmarks.report [RESULTS.jsonl]
"""

import argparse
import dataclasses
import itertools
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from bit_jax.runtime import errors, exits, paths
from experiments.benchmarks import results

_SAME = ("benchmark", "machine", "configuration", "quantity", "peer")
_FIELDS = [field.name for field in dataclasses.fields(results.Row)]
_TITLES = (
  "| configuration | quantity | ours | peer | peer's | ratio | |\n|---|---|---|---|---|---|---|"
)


def newest(lines: Iterable[str]) -> list[dict[str, Any]]:
  """Returns the last record of each comparison on each machine, by benchmark, then machine.

  A record without the peer's figure doesn't replace one that has it.

  Args:
    lines: Of a results file, in the order in which they were measured.
  """
  last: dict[tuple[str, ...], dict[str, Any]] = {}
  for line in lines:
    record = json.loads(line)
    same = {**record, "peer": record["peer"].removesuffix(" eager").removesuffix(" compiled")}
    key = tuple(same[name] for name in _SAME)
    if record["theirs"] is not None or last.get(key, record)["theirs"] is None:
      last[key] = record
  return sorted(last.values(), key=_benchmark_and_machine)


def render(records: Sequence[Mapping[str, Any]]) -> str:
  """Returns a heading, machine and versions, and a table for each benchmark and machine.

  Args:
    records: As from `newest`.
  """
  parts = []
  for (benchmark, machine), group in itertools.groupby(records, key=_benchmark_and_machine):
    rows = list(group)
    runs = {f"{r['date']}, commit {r['commit']}" for r in rows}
    versions = {k: v for r in rows for k, v in r["versions"].items()}
    listed = ", ".join(f"{k} {v}" for k, v in versions.items())
    parts.append(f"### {benchmark}\n\n{machine}; {listed}; {'; '.join(sorted(runs))}\n\n{_TITLES}")
    for record in rows:
      row = results.Row(**{name: record[name] for name in _FIELDS if name in record})
      parts.append(f"| {' | '.join(row.cells())} |")
    parts.append("")
  return "\n".join(parts)


def main(argv: Sequence[str]) -> None:
  """Prints the tables of a results file."""
  parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
  parser.add_argument("results", nargs="?", type=paths.argument, default=results.PATH)
  path = parser.parse_args(argv[1:]).results
  if not path.is_file():
    raise errors.UserError(f"Results file not found: {path}.")
  print(render(newest(path.read_text().splitlines())))


def _benchmark_and_machine(record: Mapping[str, Any]) -> tuple[str, str]:
  return record["benchmark"], record["machine"]


if __name__ == "__main__":
  sys.exit(exits.run(main, sys.argv))
