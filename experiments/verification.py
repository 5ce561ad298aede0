"""Measured accuracies beside expected ones: rows, verdicts and VTAB's means."""

import csv
import dataclasses
import pathlib
import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from bit_jax import weights
from bit_jax.data import vtab
from bit_jax.runs import run_folder
from bit_jax.runtime import cache, errors, files
from bit_jax.weights import catalogue, fetch
from experiments import released

# Points, beyond the rounding of the published value. The official frameworks differ among
# themselves by 0.03 on CIFAR-10; the official JAX evaluation leaves out the last incomplete batch
# (16 of its 10,000 images), and decoders of JPEG and number formats move single images.
TOLERANCE = 0.1
_WIDTHS = {
  "checkpoint": 40,
  "data set": 26,
  "test size": 24,
  "images": 8,
  "metric": 7,
  "expected": 10,
  "measured": 10,
  "difference": 12,
}
_SUFFIXES = (".json", ".csv")


@dataclasses.dataclass(frozen=True)
class Row:
  """One figure, or why there is none.

  Attributes:
    checkpoint: Name of the checkpoint or of its file.
    dataset: What it was scored on.
    test_size: How test images were prepared.
    images: How many were scored.
    dtype: What the network computed in; '' where nothing was measured.
    metric: 'top1' or 'top5'; '' where nothing was measured.
    expected: Published value in per cent, None if there is none.
    rounding: Half a unit of its last digit.
    source: Where it was published.
    measured: In per cent, None where nothing was.
    judged: Whether the published value was obtained in the same way.
    remark: Why nothing was measured, or why it isn't judged.
    missing_file: If that is for want of the checkpoint, its path below the cache folder; else ''.
  """

  checkpoint: str
  dataset: str
  test_size: str
  images: int = 0
  dtype: str = ""
  metric: str = ""
  expected: float | None = None
  rounding: float = 0.0
  source: str = ""
  measured: float | None = None
  judged: bool = False
  remark: str = ""
  missing_file: str = ""

  @property
  def difference(self) -> float | None:
    """Measured less expected, in points."""
    if self.measured is None or self.expected is None:
      return None
    return self.measured - self.expected

  @property
  def verdict(self) -> str:
    """'missing', 'measured' (nothing to judge by), 'equal' or 'different'."""
    if self.measured is None:
      return "missing"
    if self.difference is None or not self.judged:
      return "measured"
    within = abs(self.difference) <= TOLERANCE + self.rounding + 1e-9
    return "equal" if within else "different"


def rows(
  check: released.Check,
  means: Mapping[str, float],
  images: int,
  dtype: str,
  warnings: Sequence[str],
) -> list[Row]:
  """Returns a row for each published value of a checkpoint, or one of its top-1 alone.

  Args:
    check: What was evaluated, and how.
    means: 'top1' and so on, in [0, 1].
    images: How many were scored.
    dtype: What the network computed in; only float32 is judged.
    warnings: Why the data aren't what they should be; then nothing is judged.
  """
  if dtype != "float32":
    warnings = (*warnings, f"Computed in {dtype}, which by itself changes it about as much.")
  common = Row(check.name, check.dataset, str(check.view), images, dtype, remark=" ".join(warnings))
  if not check.expected:
    return [dataclasses.replace(common, metric="top1", measured=100 * means["top1"])]
  return [
    dataclasses.replace(
      common,
      metric=e.metric,
      expected=e.value,
      rounding=e.rounding,
      source=e.source,
      measured=100 * means[e.metric],
      judged=e.judged and not warnings,
    )
    for e in check.expected
    if e.metric in means
  ]


def header() -> str:
  """Returns the titles of the columns."""
  return "".join(f"{name:<{width}}" for name, width in _WIDTHS.items()) + "source"


def lines(new: Sequence[Row], found: Sequence[Row]) -> Iterator[str]:
  """Yields the lines of some rows in the table; a file that is missing has one, the first time.

  Args:
    new: The rows of a check.
    found: All rows so far, these last.
  """
  file = new[0].missing_file
  if file:
    if sum(row.missing_file == file for row in found) == 1:
      yield f"{new[0].checkpoint:<{_WIDTHS['checkpoint']}}missing: {file}"
    return
  reasons = _reasons(found)
  yield from (_line(row, reasons) for row in new)


def missing(names: Sequence[str]) -> str:
  """Returns what to do about checkpoints that aren't at hand, '' if all are.

  Args:
    names: Of the catalogue, each once.
  """
  absent = [c for c in map(weights.find, names) if not (c.embedded or fetch.cached(c))]
  if not absent:
    return ""
  size = sum(4 * c.num_parameters for c in absent) / 1e9  # float32
  return (
    f"{len(absent)} of {len(names)} checkpoints are missing; looked for in {cache.directory()} "
    f"(${cache.ENVIRONMENT_VARIABLE}).\n"
    f"--download gets them from {catalogue.BASE_URL} ({size:,.1f} GB),\n"
    "or put them into that folder, each at the path that stands in its line.\n\n"
  )


def _line(row: Row, reasons: Sequence[str]) -> str:
  cells = [row.checkpoint, row.dataset, row.test_size]
  if row.measured is None:
    start = "".join(f"{c:<{w}}" for c, w in zip(cells, _WIDTHS.values(), strict=False))
    return f"{start}not evaluated [{reasons.index(row.remark) + 1}]"
  off = "" if row.difference is None else f"{row.difference:+.2f}"
  marks = {"different": " !", "measured": " *" if off else ""}
  cells += [f"{row.images:,}", row.metric]
  cells += ["none" if row.expected is None else _percent(row.expected), _percent(row.measured)]
  cells += [off + marks.get(row.verdict, "")]
  start = "".join(f"{c:<{w}}" for c, w in zip(cells, _WIDTHS.values(), strict=True))
  return (start + row.source).rstrip()


def notes(found: Sequence[Row]) -> Iterator[str]:
  """Yields what there is to know of a table."""
  for number, reason in enumerate(_reasons(found), 1):
    yield f"[{number}] {reason}"
  views = " ".join(row.test_size for row in found if row.measured is not None)
  if "square" in views:
    yield (
      "square: the whole image is resized to a square as BiT does it (bilinear, not antialiased)."
    )
  if " of " in views:
    yield (
      "A of B: the shorter side is resized to B pixels, antialiased, and the centre of A x A is "
      "taken, as timm does it; BiT's own evaluation resizes to a square."
    )
  if any(row.difference is not None for row in found):
    yield (
      f"A difference of more than {TOLERANCE:g} points and the rounding of the published value is "
      "marked !: official frameworks differ by 0.03, and the official JAX code leaves out the last "
      "incomplete batch, up to 16 of 10,000 images."
    )
  if any(row.difference is not None and not row.judged for row in found):
    yield "A difference marked * isn't judged: the setting of the published value is not the same."
  yield from sorted({row.remark for row in found if row.remark and row.measured is not None})


def vtab_lines(found: Sequence[Row]) -> Iterator[str]:
  """Yields the mean accuracy over the tasks of each released VTAB run, at each size.

  It is compared with the published score where all 19 tasks are there, but not judged: the source
  doesn't say at which size, and over which runs, its mean was taken.
  """
  measured = {(r.checkpoint, r.test_size): r.measured for r in found if r.measured is not None}
  runs_found = sorted({run[:2] for name, _ in measured if (run := released.vtab_run(name))})
  whole: dict[tuple[str, str], list[float]] = {}
  for architecture, number in runs_found:
    for rule in ("paper", "code"):
      values = _of_run(measured, architecture, number, rule)
      name = f"BiT-M-{architecture} run {number}, sizes of {rule}"
      if values:
        yield _mean_line(name, values, architecture)
      if len(values) == len(vtab.TASKS):
        whole.setdefault((architecture, rule), []).append(statistics.mean(values))
  for (architecture, rule), means in whole.items():
    if len(means) == released.NUM_RUNS:
      name = f"BiT-M-{architecture} mean of {len(means)} runs, sizes of {rule}"
      yield _compared(
        f"{name}: {statistics.mean(means):.2f} %", statistics.mean(means), architecture
      )


def require(found: Sequence[Row]) -> None:
  """Raises a `UserError` if nothing could be evaluated, or a difference is too large."""
  verdicts = [row.verdict for row in found]
  if not any(verdict != "missing" for verdict in verdicts):
    raise errors.UserError(
      "Nothing could be evaluated: above it says what is missing, and what to do about it."
    )
  different = sorted({row.checkpoint for row in found if row.verdict == "different"})
  if different:
    raise errors.UserError(
      f"{verdicts.count('different')} figures are off by more than {TOLERANCE:g} points and their "
      f"rounding: {', '.join(different)}."
    )


def write(path: pathlib.Path, found: Sequence[Row]) -> None:
  """Writes the rows as JSON or CSV, by the file's suffix, in one step."""
  records = [record(row) for row in found]
  if path.suffix == ".json":
    run_folder.write_json(path, records)
    return
  with (
    files.replacing(path) as temporary,
    temporary.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file,
  ):
    writer = csv.DictWriter(file, records[0])
    writer.writeheader()
    writer.writerows(records)


def require_suffix(path: pathlib.Path) -> None:
  """Raises a `UserError` unless a file can be written there, in a known format."""
  if path.suffix not in _SUFFIXES:
    raise errors.UserError(f"--out={path} must end in {' or '.join(_SUFFIXES)}.")
  if not path.absolute().parent.is_dir():
    raise errors.UserError(f"--out={path}: there is no folder {path.absolute().parent}.")


def record(row: Row) -> dict[str, Any]:
  """Returns a row as it is written."""
  return {**dataclasses.asdict(row), "difference": row.difference, "verdict": row.verdict}


def _reasons(found: Sequence[Row]) -> list[str]:
  """Returns why checkpoints that are there weren't evaluated, each reason once."""
  rows = (row for row in found if row.measured is None and not row.missing_file)
  return list(dict.fromkeys(row.remark for row in rows))


def _of_run(
  measured: Mapping[tuple[str, str], float | None], architecture: str, run: int, rule: str
) -> list[float]:
  """Returns what was measured of a run's tasks at the sizes of 'paper' or 'code'."""
  values = []
  for task in vtab.TASKS:
    name, size = f"BiT-M-{architecture}-run{run}-{task}", released.vtab_sizes(task)[rule]
    value = measured.get((name, f"{size} square"))
    if value is not None:
      values.append(value)
  return values


def _mean_line(name: str, values: Sequence[float], architecture: str) -> str:
  mean = statistics.mean(values)
  text = f"{name}: {mean:.2f} % over {len(values)} of {len(vtab.TASKS)} tasks"
  return _compared(text, mean, architecture) if len(values) == len(vtab.TASKS) else text


def _compared(text: str, mean: float, architecture: str) -> str:
  published = released.vtab_score(architecture)
  if published is None:
    return text
  return (
    f"{text}; expected {published.value:.2f} % ({published.source}), {mean - published.value:+.2f}"
  )


def _percent(value: float) -> str:
  return f"{value:.2f} %"
