"""The tables of predictions beside what was measured: a section of `cost.md`, and `--check`'s."""

import math
import statistics
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence

from experiments import cost_checks, cost_tables, throughput
from experiments.benchmarks import results
from experiments.results import reading


def section(
  known: Sequence[throughput.Measured],
  cases: Sequence[cost_checks.Case],
  made: Sequence[cost_checks.Made],
) -> Iterator[str]:
  """Yields the lines of the section of `cost.md`.

  Args:
    known: What was measured.
    cases: The same, each beside what the others predict.
    made: The committed runs beside what was expected of them.
  """
  yield "## Predicted and measured"
  yield ""
  yield _about_cases(known)
  yield ""
  yield from _benchmarks(cases)
  yield ""
  yield _about_runs(made)
  yield ""
  yield from _kinds_of_runs(made)
  yield ""
  yield in_all(made)


def single_runs(made: Sequence[cost_checks.Made]) -> Iterator[str]:
  """Yields the lines of the table of single runs: speed, time and disk, expected and measured."""
  titles = ["run", "network, pixels, batch", "steps"]
  titles += ["predicted images/s", "measured images/s", "predicted/measured"]
  titles += ["expected time", "from start to end", "expected/measured"]
  titles += ["expected MB", "folder's MB", "expected/measured", "basis"]
  rows = []
  for run in made:
    cells = [run.name, _setting(run.setting), f"{run.steps:,}"]
    cells += _rates(run.prediction, _known([run.rate]))
    cells += _compared(run.expected_seconds, run.wall_seconds, cost_tables.duration)
    cells += _compared(run.expected_bytes, run.folder_bytes, _megabytes)
    rows.append((*cells, _basis(run.prediction)))
  return cost_tables.markdown(titles, rows)


def in_all(made: Sequence[cost_checks.Made]) -> str:
  """Returns a sentence on the time of all runs of which both times are known."""
  both = [(r.expected_seconds, r.wall_seconds) for r in made]
  pairs = [(e, w) for e, w in both if e is not None and w is not None]
  if not pairs:
    return "Of none of these runs both the expected and the measured time are known."
  expected, measured = (math.fsum(column) for column in zip(*pairs, strict=True))
  times = f"{cost_tables.duration(expected)} expected, {cost_tables.duration(measured)} measured"
  of = "run" if len(pairs) == 1 else f"{len(pairs)} runs"
  return f"The {of} of which both times are known, in all: {times} ({expected / measured:.2f})."


def _benchmarks(cases: Sequence[cost_checks.Case]) -> Iterator[str]:
  """Yields the lines of the table of benchmarks, each beside what the others predict."""
  rows = []
  for case in cases:
    m = case.measured[0]
    place = "" if m.device == throughput.CPU else f" on {m.device}"
    name = f"benchmark{place}: {m.architecture} {m.size} px batch {m.batch}"
    rates = _rates(case.prediction, [m.rate for m in case.measured])
    rows.append((name, str(len(case.measured)), *rates, _basis(case.prediction)))
  titles = ("case", "times measured", "predicted images/s", "measured, median (least to most)")
  return cost_tables.markdown((*titles, "predicted/measured", "basis"), rows)


def _kinds_of_runs(made: Sequence[cost_checks.Made]) -> Iterator[str]:
  """Yields the table of runs that compute the same in the same place, by their medians."""
  titles = ["network, pixels, batch", "machine", "steps", "runs", "predicted images/s"]
  titles += ["measured, median (least to most)", "predicted/measured"]
  titles += ["expected time, median", "from start to end, median", "expected/measured"]
  titles += ["basis"]
  rows = []
  for (setting, steps), runs in _alike(made):
    prediction = runs[0].prediction
    cells = [_setting(setting), _place(setting), f"{steps:,}", str(len(runs))]
    cells += _rates(prediction, _known([run.rate for run in runs]))
    times = [[run.expected_seconds for run in runs], [run.wall_seconds for run in runs]]
    expected, measured = (_median(_known(column)) for column in times)
    cells += _compared(expected, measured, cost_tables.duration)
    rows.append((*cells, _basis(prediction)))
  return cost_tables.markdown(titles, rows)


def _alike(
  made: Sequence[cost_checks.Made],
) -> list[tuple[tuple[throughput.Setting, int], list[cost_checks.Made]]]:
  found: dict[tuple[throughput.Setting, int], list[cost_checks.Made]] = defaultdict(list)
  for run in made:
    found[run.setting, run.steps].append(run)
  return sorted(found.items(), key=lambda item: (_place(item[0][0]), str(item[0][0]), item[0][1]))


def _about_cases(known: Sequence[throughput.Measured]) -> str:
  places = " and on ".join([throughput.CPU, *throughput.measured_cards(known)])
  return (
    f"Each case measured on {places} (`experiments/benchmarks/results.jsonl`), predicted "
    "from the others alone; of run folders: `python -m experiments.cost --check RUN_FOLDER ...`."
  )


def _about_runs(made: Sequence[cost_checks.Made]) -> str:
  rates = [_known([run.rate for run in runs]) for _, runs in _alike(made)]
  spread = max((max(found) / min(found) for found in rates if found), default=1.0)
  return (
    "And the runs of `experiments/offline_results/results.csv`, predicted from the benchmarks. The "
    "expected time is that of the steps and one evaluation, without start-up. One core's speed is "
    "predicted too low: it is taken for half of two cores', the least it can be, and so small a "
    "network keeps two busy only in part. Two cores' speed isn't met closely either: the "
    "benchmark's steps are of 8 images, and without the memory that training keeps "
    "(`bit_jax/runtime/allocator.py`); and runs of one line differ among themselves by a factor of "
    "up to "
    f"{spread:.1f}."
  )


def _rates(prediction: throughput.Prediction | None, measured: Sequence[float]) -> list[str]:
  """Returns predicted and measured images a second (of several the median), and their ratio."""
  predicted = None if prediction is None else prediction.rate
  cells = _compared(predicted, _median(measured), results.number)
  if len(measured) > 1:
    cells[1] += f" ({results.number(min(measured))} to {results.number(max(measured))})"
  return cells


def _compared(
  expected: float | None, measured: float | None, text: Callable[[float], str]
) -> list[str]:
  """Returns both, and their ratio."""
  cells = ["none" if value is None else text(value) for value in (expected, measured)]
  if expected is None or not measured:
    return [*cells, ""]
  return [*cells, f"{expected / measured:.2f}"]


def _basis(prediction: throughput.Prediction | None) -> str:
  return "no prediction for such a place" if prediction is None else prediction.basis


def _setting(setting: throughput.Setting) -> str:
  return f"{setting.architecture} {setting.size} px batch {setting.batch}"


def _place(setting: throughput.Setting) -> str:
  if setting.devices == ("cpu",):
    return reading.THEN.join(setting.machines)
  return f"{setting.num_devices} x {reading.THEN.join(setting.devices)}"


def _known(values: Sequence[float | None]) -> list[float]:
  return [value for value in values if value is not None]


def _median(values: Sequence[float]) -> float | None:
  return statistics.median(values) if values else None


def _megabytes(number: float) -> str:
  return f"{number / 1e6:,.1f}"
