"""Predicted beside measured cost, of benchmarks and of runs: a section of `cost.md`, and `--check`.

Predicted are the images per second of a run's steps, the time of the whole run and the size of its
folder. The time is that of the operations of its steps and evaluations (`footprint.flops`) at the
FLOP/s of the steps; start-up and figures are not included.
"""

import csv
import pathlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import ml_collections
import pandas as pd

from bit_jax import hyperrule, run_config
from bit_jax.data import datasets
from bit_jax.models import architectures
from bit_jax.runtime import errors
from experiments.benchmarks import inputs, results
from experiments.cost import footprint, tables, throughput
from experiments.results import folders, reading

COMMITTED = pathlib.Path(__file__).parents[1] / "offline_results/results.csv"
_KIND = ["machine", "network, pixels, batch", "steps"]
_TEXTS: dict[str, Callable[[float], str]] = {
  "images/s": results.number,
  "time": tables.duration,
  "MB of disk": lambda number: f"{number:,.1f}",
}

Check = dict[str, Any]  # cells of a run or benchmark by column, as `_check` returns them


def benchmarks(known: Sequence[throughput.Measured]) -> Iterator[Check]:
  """Yields each measurement with a prediction from other networks or sizes on its device.

  Args:
    known: From `throughput.measurements`.
  """
  for m in known:
    case = (m.device, m.architecture, m.size)
    others = [other for other in known if (other.device, other.architecture, other.size) != case]
    setting = throughput.Setting(m.architecture, m.size, m.batch, "", (), None, (m.device,))
    yield _check(setting, throughput.predict(others, *case, m.batch), rate=m.rate)


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
  find_spec = reading.spec_finder()
  finished: list[Check] = []
  left_out: list[tuple[str, str]] = []
  for path in paths:
    try:
      found, closed = folders.find(path)
    except errors.UserError:
      left_out.append((str(path), "is a file" if path.exists() else "doesn't exist"))
      continue
    left_out += [(str(path / name), reason) for name, reason in closed]
    if not found:
      left_out.append((str(path), "holds no run"))
    for folder in found:
      try:
        finished.append(_of_folder(known, folder, find_spec))
      except reading.LeftOutError as e:
        left_out.append((str(folder.path), str(e)))
  return finished, left_out


def _of_row(known: Sequence[throughput.Measured], row: dict[str, str]) -> Check:
  devices, machines = (
    tuple(row[column].split(reading.THEN)) if row[column] else ()
    for column in ("device", "machine")
  )
  steps, size, batch = (int(row[column]) for column in ("steps", "crop", "batch_size"))
  rate, seconds = (
    float(row[column]) if row[column] else None for column in ("images_per_second", "wall_seconds")
  )
  operations = footprint.flops_of_images(
    row["model"],
    inputs.NUM_CLASSES,  # not in the table; a head's operations are few
    trained=(steps * batch, size),
    evaluated=(int(row["num_test"]), int(row["test_size"])),
  )
  count = int(row["num_devices"]) if row["num_devices"] else None
  name = architectures.find(row["model"]).name
  setting = throughput.Setting(name, size, batch, row["dtype"], devices, count, machines)
  prediction = throughput.of_run(known, setting)
  return _check(setting, prediction, row["run"], steps, rate, operations, seconds)


def _of_folder(
  known: Sequence[throughput.Measured],
  folder: folders.Folder,
  find_spec: Callable[..., datasets.DatasetSpec | None],
) -> Check:
  """Returns a finished run.

  Raises:
    LeftOutError: It isn't finished, or its config can't be of a run.
  """
  outcome, text = reading.outcome(folder)
  if outcome != "finished":
    raise reading.LeftOutError(f"{outcome}: {text}")
  run = reading.read(folder, find_spec)
  config = ml_collections.ConfigDict(run.config)
  if run.architecture not in architectures.ARCHITECTURES:
    raise reading.LeftOutError(f"unknown network {run.architecture}")
  for name in ("crop", "test_size", "batch_size", "total_steps"):
    if config[name] < 1:
      raise reading.LeftOutError(f"config.json can't be used: {name} is {config[name]}")
  setting = throughput.Setting(
    run.architecture,
    config.crop,
    config.batch_size,
    run.recipe.dtype or "",
    run.devices,
    run.num_devices,
    run.machines,
  )
  spec = find_spec(config, val_apart=run_config.chooses(config))
  operations = expected_bytes = None
  if spec is not None and type(every := config.get("eval_every")) is int and every >= 1:
    operations = footprint.flops(config, spec)
  if spec is not None and config.get("momentum_dtype") in hyperrule.MOMENTUM_DTYPES:
    expected_bytes = footprint.disk_bytes(config, spec)
  return _check(
    setting,
    throughput.of_run(known, setting),
    folder.path.resolve().name,
    config.total_steps,
    run.images_per_second,
    operations,
    run.wall_seconds,
    expected_bytes,
    sum(file.stat().st_size for file in folder.path.rglob("*") if file.is_file()),
  )


def _check(
  setting: throughput.Setting,
  prediction: throughput.Prediction | None,
  name: str = "",
  steps: int = 0,
  rate: float | None = None,
  operations: float | None = None,
  wall_seconds: float | None = None,
  expected_bytes: float | None = None,
  folder_bytes: float | None = None,
) -> Check:
  """Returns the cells of a run or benchmark; unknown numbers are NaN."""
  place = reading.THEN.join(setting.machines)
  if setting.devices and setting.devices != ("cpu",):
    place = f"{setting.num_devices} x {reading.THEN.join(setting.devices)}"
  expected_seconds = None
  if prediction is not None and operations is not None:
    image = throughput.training_flops(setting.architecture, setting.size)
    expected_seconds = operations / image / prediction.rate
  numbers = {
    "predicted images/s": None if prediction is None else prediction.rate,
    "measured images/s": rate,
    "predicted time": expected_seconds,
    "measured time": wall_seconds,
    "predicted MB of disk": None if expected_bytes is None else expected_bytes / 1e6,
    "measured MB of disk": None if folder_bytes is None else folder_bytes / 1e6,
  }
  return {
    "run": name,
    "machine": place,
    "network, pixels, batch": f"{setting.architecture} {setting.size} px batch {setting.batch}",
    "steps": steps,
    "basis": "no prediction for this device" if prediction is None else prediction.basis,
    **{column: float("nan") if number is None else number for column, number in numbers.items()},
  }


def section(known: Sequence[throughput.Measured], runs: Sequence[Check]) -> Iterator[str]:
  """Yields the lines of the section of `cost.md`: benchmarks, then runs.

  Args:
    known: From `throughput.measurements`.
    runs: The committed ones.
  """
  places = " and on ".join([throughput.CPU, *throughput.measured_cards(known)])
  yield "## Predicted and measured"
  yield ""
  yield (
    f"Each case measured on {places} (`experiments/benchmarks/results.jsonl`), predicted from the "
    "other cases alone. Medians; in brackets the smallest and the largest. For run folders: "
    "`python -m experiments.cost --check RUN_FOLDER ...`."
  )
  yield ""
  yield from _table(benchmarks(known), _KIND[:2], ["images/s"])
  rates = pd.DataFrame(runs).groupby(_KIND)["measured images/s"]
  yield ""
  yield (
    "The runs of `experiments/offline_results/results.csv`, predicted from the benchmarks. The "
    "predicted time covers the steps and one evaluation, not start-up. The speed of one core is "
    "predicted too low: it counts as half of two cores, the least it can be, but so small a "
    "network uses a second core only in part. The speed of two cores is predicted roughly: the "
    "benchmark's steps have 8 images and run without the memory that training keeps "
    "(`bit_jax/runtime/machine.py`). Runs of one line differ by a factor of up to "
    f"{(rates.max() / rates.min()).max():.1f}."
  )
  yield ""
  yield from _table(runs, _KIND, ["images/s", "time"])
  yield ""
  yield total_time(runs)


def single_runs(found: Sequence[Check]) -> Iterator[str]:
  """Yields the lines of a table of runs: speed, time and disk, predicted and measured."""
  return _table(found, ["run", *_KIND], list(_TEXTS))


def total_time(found: Sequence[Check]) -> str:
  """Returns a sentence on the total time of all runs with a predicted and a measured time."""
  both = pd.DataFrame(found)[["predicted time", "measured time"]].dropna()
  if both.empty:
    return "No run has both a predicted and a measured time."
  expected, measured = both.sum()
  times = f"{tables.duration(expected)} expected, {tables.duration(measured)} measured"
  of = "run" if len(both) == 1 else f"{len(both)} runs"
  return f"The {of} of which both times are known, in all: {times} ({expected / measured:.2f})."


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
