"""Measured figures beside a peer's: printed as a table, and recorded in a results file.

    results.record("load", rows)

prints the machine and versions, then one line for each `Row` as soon as it is measured, and appends
each row as a line of JSON to `results.jsonl`.
"""

import argparse
import dataclasses
import datetime
import itertools
import json
import operator
import pathlib
import platform
import re
import statistics
import types
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from bit_jax.runtime import errors, paths
from experiments.benchmarks import machine, workers

PATH = pathlib.Path(__file__).with_name("results.jsonl")
_PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy")
_TITLES = ("configuration", "quantity", "ours", "peer", "theirs", "ratio", "")
_TABLE = (
  "| configuration | quantity | ours | peer | peer's | ratio | |\n|---|---|---|---|---|---|---|"
)
_benchmark_and_machine = operator.itemgetter("benchmark", "machine")
_compared = operator.itemgetter("benchmark", "machine", "configuration", "quantity")
_LINE = "{:<33} {:<19} {:<13} {:<25} {:<13} {:<6} {}"


@dataclasses.dataclass(frozen=True)
class Row:
  """One comparison.

  Attributes:
    configuration: What was run, such as 'R50x1 128 px batch 16 float32'.
    quantity: What was measured, such as 'training' or 'peak memory'.
    unit: Unit of both figures, such as 'images/s', 's' or 'GB' (1e9 bytes).
    ours: Our figure; None if it could not be measured.
    peer: What it is compared with; '' for nothing.
    theirs: The peer's figure; None if it could not be measured.
    note: Why a figure is missing, or another remark.
    more: Further figures by name: numbers and texts.
    paired: Our figure divided by the peer's, as the median over the rounds in which both took
      turns. It is more reliable than the quotient of the two figures on a machine whose speed
      varies.
  """

  configuration: str
  quantity: str
  unit: str
  ours: float | None
  peer: str = ""
  theirs: float | None = None
  note: str = ""
  more: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  paired: float | None = None

  @property
  def ratio(self) -> float | None:
    """Our figure divided by the peer's: more is better for rates, less for seconds and bytes."""
    if self.ours is None or not self.theirs:
      return None
    return self.ours / self.theirs if self.paired is None else self.paired

  def cells(self) -> list[str]:
    """Returns configuration, quantity, ours, peer, the peer's figure, ratio and remarks as text."""
    remarks = [
      f"{name} {number(value) if isinstance(value, int | float) else value}"
      for name, value in self.more.items()
    ]
    return [
      self.configuration,
      self.quantity,
      _with_unit(self.ours, self.unit),
      self.peer,
      _with_unit(self.theirs, self.unit),
      "" if self.ratio is None else f"{self.ratio:.2f}",
      "; ".join([*remarks, self.note] if self.note else remarks),
    ]


def rates(
  configuration: str,
  quantity: str,
  ours: workers.Figures,
  peer: str,
  theirs: workers.Figures,
  more: Mapping[str, Any] = types.MappingProxyType({}),
) -> Row:
  """Returns the row that compares the images per second of two workers that took turns."""
  speeds = ours.relative_to(theirs)
  more = {"rounds": f"{min(speeds):.2f} to {max(speeds):.2f}", **more}
  figures = ("images/s", ours.rate, peer, theirs.rate, "", more, statistics.median(speeds))
  return Row(configuration, quantity, *figures)


def parser(description: str | None, rounds: int = 5) -> argparse.ArgumentParser:
  """Returns the command line that all benchmarks share.

  Args:
    description: The module's docstring; its first line is shown by `--help`.
    rounds: Default of `--rounds`.
  """
  p = argparse.ArgumentParser(description=(description or "").partition("\n")[0])
  p.add_argument("--rounds", type=int, default=rounds, help="repetitions of each measurement")
  p.add_argument("--out", type=paths.argument, default=PATH, help="file to append the results to")
  return p


def record(
  benchmark: str,
  rows: Iterable[Row],
  path: pathlib.Path = PATH,
  versions: Mapping[str, str] = types.MappingProxyType({}),
) -> None:
  """Prints and records rows, each as soon as it is measured.

  Args:
    benchmark: Its name.
    rows: Rows from a generator that measures.
    path: The file to append to.
    versions: Versions of the peer's packages, in addition to ours.
  """
  run: dict[str, Any] = {
    "benchmark": benchmark,
    "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
    "machine": machine.describe(),
    "versions": {"python": platform.python_version(), **machine.versions(_PACKAGES), **versions},
    "commit": machine.commit(),
  }
  print(f"{benchmark}, {run['date']}, commit {run['commit']}")
  print(f"{about(run['machine'], run['versions'])}\n{_LINE.format(*_TITLES)}".rstrip(), flush=True)
  for row in rows:
    print(_LINE.format(*row.cells()).rstrip(), flush=True)
    with path.open("a") as file:
      file.write(json.dumps({**run, **dataclasses.asdict(row), "ratio": row.ratio}) + "\n")
  print()


def about(machine: str, versions: Mapping[str, str]) -> str:
  """Returns the machine and the versions of a run in one line."""
  return f"{machine}; {', '.join(f'{name} {version}' for name, version in versions.items())}"


def number(value: float) -> str:
  """Returns a number with three significant digits, without an exponent where possible."""
  return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _with_unit(value: float | None, unit: str) -> str:
  return "none" if value is None else f"{number(value)} {unit}"


def newest(lines: Iterable[str]) -> list[dict[str, Any]]:
  """Returns the last record of each comparison on each machine, by benchmark, then machine.

  A record without the peer's figure doesn't replace one that has it.

  Args:
    lines: Lines of a results file, in the order in which they were measured.
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
  heading = "; ".join([about(records[0]["machine"], versions), *runs])
  yield f"### {records[0]['benchmark']}\n\n{heading}\n\n{_TABLE}"
  for record in records:
    row = Row(**{f.name: record[f.name] for f in dataclasses.fields(Row) if f.name in record})
    yield f"| {' | '.join(row.cells())} |"
  yield ""


def report(argv: Sequence[str]) -> None:
  """Prints the tables of the results file that a command line names."""
  parser = argparse.ArgumentParser(description="Prints the newest figures as tables.")
  parser.add_argument("results", nargs="?", type=paths.argument, default=PATH)
  path = parser.parse_args(argv[1:]).results
  if not path.is_file():
    raise errors.UserError(f"Results file not found: {path}.")
  print(render(newest(path.read_text().splitlines())))
