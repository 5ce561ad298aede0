"""Predicted beside measured cost, of benchmarks and of runs: tables of `cost.md`, and `--check`.

Predicted are the images per second of a run's steps, the time of the whole run and the size of its
folder. The time is that of the operations of its steps and evaluations (`footprint.flops`) at the
FLOP/s of the steps; start-up and figures are not included.
"""

import csv
import math
import pathlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from bit_jax import run_config
from bit_jax.models import architectures
from bit_jax.runtime import errors, phrases
from experiments.benchmarks import inputs, results
from experiments.cost import footprint, tables, throughput
from experiments.results import collect, reading

COMMITTED = pathlib.Path(__file__).parents[1] / "offline_results/results.csv"
_KIND = ["machine", "network, pixels, batch", "steps"]
_TEXTS: dict[str, Callable[[float], str]] = {
  "images/s": results.number,
  "time": tables.duration,
  "MB of disk": lambda number: f"{number:,.1f}",
}

Check = dict[str, Any]  # a benchmark or run: {column: value}, NaN where unknown


def benchmarks(known: Sequence[throughput.Measured]) -> Iterator[Check]:
  """Yields each measurement with a prediction from other networks or sizes on its device.

  Args:
    known: From `throughput.measurements`.
  """
  for m in known:
    case = (m.device, m.architecture, m.size)
    others = [other for other in known if (other.device, other.architecture, other.size) != case]
    prediction = throughput.predict(others, *case, m.batch)
    yield {
      "machine": m.device,
      **_network(m.architecture, m.size, m.batch),
      **_speed(prediction),
      "measured images/s": m.rate,
    }


def committed(known: Sequence[throughput.Measured], path: pathlib.Path = COMMITTED) -> list[Check]:
  """Returns the runs of a results table.

  The table doesn't say how often a run was evaluated: one evaluation is assumed.

  Args:
    known: From `throughput.measurements`.
    path: A `results.csv` as `python -m experiments.report` writes it.
  """
  with path.open(newline="", encoding="utf-8") as file:
    return [_of_row(known, row) for row in csv.DictReader(file) if row["metric"] == "top1"]


def of_folders(
  known: Sequence[throughput.Measured], paths: Iterable[pathlib.Path]
) -> tuple[list[Check], list[tuple[str, str]]]:
  """Returns the finished runs at and below some folders, and (path, reason) of what is left out.

  Args:
    known: From `throughput.measurements`.
    paths: Run folders, or folders that hold such.
  """
  finished: list[Check] = []
  left_out: list[tuple[str, str]] = []
  for path in paths:
    try:
      found = collect.collect(path)
    except errors.UserError:
      left_out.append((str(path), "is a file" if path.exists() else "doesn't exist"))
      continue
    others = (*found.left_out, *found.duplicates, *found.failed, *found.unfinished)
    left_out += [(str(path / name), reason) for name, reason in others]
    if not (found.runs or others):
      left_out.append((str(path), "holds no run"))
    for run in found.runs:
      try:
        finished.append(_of_run(known, run, path / run.name))
      except errors.UserError as e:  # an unknown network
        left_out.append((str(path / run.name), str(e)))
  return finished, left_out


def _of_run(known: Sequence[throughput.Measured], run: reading.Run, folder: pathlib.Path) -> Check:
  """Returns a finished run with the size of its folder."""
  row: Any = collect.table([run]).iloc[0].to_dict()
  steps = run.config["total_steps"]
  every = run.config.get("eval_every") or steps
  check = _of_row(known, row, evaluations=-(-steps // every))
  expected = math.nan
  momentum = run.config.get("momentum_dtype")
  if run.num_classes is not None and momentum in run_config.choices("momentum_dtype"):
    expected = footprint.disk_bytes(run.model, run.num_classes, momentum)
  size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
  return check | {
    "run": folder.resolve().name,
    "predicted MB of disk": expected / 1e6,
    "measured MB of disk": size / 1e6,
  }


def _of_row(
  known: Sequence[throughput.Measured], row: Mapping[str, Any], evaluations: int = 1
) -> Check:
  """Returns a run of a results table, whose empty cells are unknown."""
  steps, size, batch, count, num_test, test_size = (
    int(row[column] or 0)
    for column in ("steps", "crop", "batch_size", "num_devices", "num_test", "test_size")
  )
  devices, machines = (
    tuple(row[column].split(reading.THEN)) if row[column] else ()
    for column in ("device", "machine")
  )
  name = architectures.find(row["model"]).name
  prediction = throughput.of_run(
    known,
    throughput.Setting(name, size, batch, row["dtype"], devices, count or None, machines),
  )
  operations = footprint.flops_of_images(
    name,
    inputs.NUM_CLASSES,  # not in the table; a head's operations are few
    trained=(steps * batch, size),
    evaluated=(evaluations * num_test, test_size),
  )
  speed = _speed(prediction)
  images = operations / throughput.training_flops(name, size)
  return {
    "run": row["run"],
    "machine": row["machine"] if devices == ("cpu",) else f"{count} x {row['device']}",
    **_network(name, size, batch),
    "steps": steps,
    **speed,
    "measured images/s": float(row["images_per_second"] or math.nan),
    "predicted time": images / speed["predicted images/s"],
    "measured time": float(row["wall_seconds"] or math.nan),
  }


def _network(architecture: str, size: int, batch: int) -> Check:
  return {"network, pixels, batch": f"{architecture} {size} px batch {batch}"}


def _speed(prediction: throughput.Prediction | None) -> Check:
  if prediction is None:
    return {"basis": "no prediction for this device", "predicted images/s": math.nan}
  return {"basis": prediction.basis, "predicted images/s": prediction.rate}


def document(
  known: Sequence[throughput.Measured], runs: Sequence[Check]
) -> dict[str, Iterable[str]]:
  """Returns the lines of each table of `cost.md`: benchmarks and runs.

  Args:
    known: From `throughput.measurements`.
    runs: The committed ones.
  """
  return {
    "benchmarks": _table(benchmarks(known), _KIND[:2], ["images/s"]),
    "runs": [*_table(runs, _KIND, ["images/s", "time"]), "", total_time(runs)],
  }


def single_runs(found: Sequence[Check]) -> Iterator[str]:
  """Yields the lines of a table of runs: speed, time and disk, predicted and measured."""
  return _table(found, ["run", *_KIND], list(_TEXTS))


def total_time(found: Sequence[Check]) -> str:
  """Returns a sentence on the total time of all runs with a predicted and a measured time."""
  both = pd.DataFrame(found)[["predicted time", "measured time"]].dropna()
  if both.empty:
    return "No run has both a predicted and a measured time."
  expected, measured = both.sum()
  times = f"{tables.duration(expected)} predicted, {tables.duration(measured)} measured"
  return f"Total of {phrases.counted(len(both), 'run')}: {times} (ratio {expected / measured:.2f})."


def _table(found: Iterable[Check], by: list[str], quantities: Sequence[str]) -> Iterator[str]:
  """Yields the lines of a table of groups with equal labels, by medians.

  Args:
    found: The runs or benchmarks.
    by: Columns of labels.
    quantities: Names of the compared quantities, of `_TEXTS`.
  """
  rows = []
  for (*labels, basis), group in pd.DataFrame(found).groupby([*by, "basis"]):
    cells: dict[str, str] = {
      title: f"{label:,}" if title == "steps" else str(label)
      for title, label in zip(by, labels, strict=True)
    }
    if "run" not in by:
      cells["count"] = str(len(group))
    for name in quantities:
      cells |= _compared(group, name)
    rows.append({**cells, "basis": str(basis)})
  return tables.markdown(rows)


def _compared(group: pd.DataFrame, name: str) -> dict[str, str]:
  """Returns predicted and measured values of a quantity (medians) and their ratio, by title."""
  text = _TEXTS[name]
  predicted, measured = group[f"predicted {name}"].median(), group[f"measured {name}"].median()
  cells = ["none" if pd.isna(value) else text(value) for value in (predicted, measured)]
  values = group[f"measured {name}"].dropna()
  if len(values) > 1 and name == "images/s":
    cells[1] += f" ({text(values.min())} to {text(values.max())})"
  ratio = predicted / measured if measured else float("nan")
  return {
    f"predicted {name}": cells[0],
    f"measured {name}": cells[1],
    f"{name}: predicted/measured": "" if pd.isna(ratio) else f"{ratio:.2f}",
  }
