"""Figures beside their peer's: as a table on the screen, and as lines of a committed file.

    with results.Table("load") as table:
      table.add(results.Row("R50x1", "load", "s", ours=0.21, peer="numpy.load", theirs=0.19))

prints the machine and versions, then a line for each row as it comes, and appends every row with
all of that to `results.jsonl`. Only the standard library.
"""

import dataclasses
import datetime
import json
import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any, TextIO

from experiments.benchmarks import machine

PATH = pathlib.Path(__file__).with_name("results.jsonl")
PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy")
_COLUMNS = {"configuration": 34, "quantity": 20, "ours": 14, "peer": 26, "theirs": 14, "ratio": 7}


@dataclasses.dataclass(frozen=True)
class Row:
  """One comparison.

  Attributes:
    configuration: What was run, such as 'R50x1 128 px batch 16 float32'.
    quantity: What was measured, such as 'training' or 'peak memory'.
    unit: Of both figures, such as 'images/s', 's' or 'GB' (1e9 bytes).
    ours: Our figure; None if it could not be had.
    peer: What it is compared with; '' for nothing.
    theirs: The peer's figure; None if it could not be had.
    note: Why a figure is missing, or what else there is to know.
    more: Further figures by name: numbers and texts.
    paired: Our figure divided by the peer's, where it is known better than from the two: both were
      measured in turns, and a machine that slows down slows down both.
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
    """Our figure divided by the peer's; of rates more is better, of seconds and bytes less."""
    if self.ours is None or not self.theirs:
      return None
    if self.paired is not None:
      return self.paired
    return self.ours / self.theirs


class Table:
  """Rows of one benchmark, printed and recorded as they come; a context manager.

  Attributes:
    rows: Those so far.
  """

  def __init__(
    self,
    benchmark: str,
    *,
    versions: Mapping[str, str] | None = None,
    path: pathlib.Path | None = PATH,
    out: TextIO | None = None,
  ):
    """Prepares the table of a benchmark.

    Args:
      benchmark: Its name.
      versions: Of the peer's packages, beside our own.
      path: The file to append to; None records nothing.
      out: Where to print; the standard output by default.
    """
    self.rows: list[Row] = []
    self._benchmark = benchmark
    self._path = path
    self._out = out or sys.stdout
    self._about: dict[str, Any] = {
      "benchmark": benchmark,
      "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
      "machine": str(machine.describe()),
      "versions": {**machine.versions(PACKAGES), **(versions or {})},
      "commit": machine.commit(),
    }

  def __enter__(self) -> "Table":
    """Prints what the figures are measured on."""
    versions = ", ".join(f"{k} {v}" for k, v in self._about["versions"].items())
    self._print(f"{self._benchmark}, {self._about['date']}, commit {self._about['commit']}")
    self._print(f"{self._about['machine']}; {versions}")
    self._print("".join(f"{name:<{width}}" for name, width in _COLUMNS.items()).rstrip())
    return self

  def __exit__(self, *_: object) -> None:
    """Leaves an empty line."""
    self._print("")

  def add(self, row: Row) -> None:
    """Prints a row and records it."""
    self.rows.append(row)
    self._print(format_row(row))
    if self._path:
      record = {**self._about, **dataclasses.asdict(row), "ratio": row.ratio}
      with self._path.open("a") as file:
        file.write(json.dumps(record) + "\n")

  def _print(self, line: str) -> None:
    print(line, file=self._out, flush=True)


def format_row(row: Row) -> str:
  """Returns a row as one line: our figure, the peer's, their ratio, then what else there is."""
  cells = {
    "configuration": row.configuration,
    "quantity": row.quantity,
    "ours": _with_unit(row.ours, row.unit),
    "peer": row.peer,
    "theirs": _with_unit(row.theirs, row.unit),
    "ratio": "" if row.ratio is None else f"{row.ratio:.2f}",
  }
  line = "".join(f"{cells[name]:<{width - 1}} " for name, width in _COLUMNS.items())
  return (line + "; ".join(filter(None, [*_more(row), row.note]))).rstrip()


def markdown(records: Sequence[Mapping[str, Any]]) -> str:
  """Returns recorded rows of one benchmark as a Markdown table.

  Args:
    records: Lines of the results file.
  """
  lines = [
    "| configuration | quantity | ours | peer | peer's | ratio | |",
    "|---|---|---|---|---|---|---|",
  ]
  names = {field.name for field in dataclasses.fields(Row)}
  for record in records:
    row = Row(**{name: value for name, value in record.items() if name in names})
    ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
    ours, theirs = _with_unit(row.ours, row.unit), _with_unit(row.theirs, row.unit)
    more = "; ".join(filter(None, [*_more(row), row.note]))
    cells = (row.configuration, row.quantity, ours, row.peer, theirs, ratio, more)
    lines.append(f"| {' | '.join(cells)} |")
  return "\n".join(lines)


def number(value: float) -> str:
  """Returns three significant digits, without an exponent where there can be one less."""
  return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _with_unit(value: float | None, unit: str) -> str:
  return "none" if value is None else f"{number(value)} {unit}"


def _more(row: Row) -> list[str]:
  return [
    f"{name} {number(value) if isinstance(value, int | float) else value}"
    for name, value in row.more.items()
  ]
