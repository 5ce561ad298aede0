"""Predictions of the cost model beside what was measured: of benchmarks, and of runs.

Of a run's steps the images a second are predicted, of the whole run the time, and of its folder the
size. The time is that of the operations of its steps and evaluations (`footprint.flops`), at the
FLOP/s of the steps: start-up and pictures come on top.
"""

import csv
import dataclasses
import pathlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence

import ml_collections

from bit_jax import hyperrule, run_config
from bit_jax.data import datasets
from bit_jax.models import architectures
from bit_jax.runtime import errors
from experiments import footprint, throughput
from experiments.benchmarks import inputs
from experiments.results import folders, reading

COMMITTED = pathlib.Path(__file__).parent / "offline_results/results.csv"


@dataclasses.dataclass(frozen=True)
class Case:
  """What a benchmark measured of a case, once or again, and what the others let one expect of it.

  Attributes:
    measured: The measurements, which differ in their rate alone.
    prediction: What the other cases on that device predict; None if there are none.
  """

  measured: tuple[throughput.Measured, ...]
  prediction: throughput.Prediction | None


@dataclasses.dataclass(frozen=True)
class Made:
  """A finished run, and what was expected of it. What isn't known is None.

  Attributes:
    name: Of its folder.
    setting: What it computed, and where.
    steps: How many it took.
    prediction: Of its images a second.
    rate: Images a second of its steps.
    expected_seconds: Of steps and evaluations.
    wall_seconds: From start to end.
    expected_bytes: Of its folder.
    folder_bytes: The same, measured.
  """

  name: str
  setting: throughput.Setting
  steps: int
  prediction: throughput.Prediction | None
  rate: float | None
  expected_seconds: float | None
  wall_seconds: float | None
  expected_bytes: float | None = None
  folder_bytes: int | None = None


def benchmarks(known: Sequence[throughput.Measured]) -> Iterator[Case]:
  """Yields each case beside what those of other networks or sizes on its device predict.

  Args:
    known: From `throughput.measurements`.
  """
  by_case: dict[tuple[str, str, int, int], list[throughput.Measured]] = defaultdict(list)
  for m in known:
    by_case[m.device, m.architecture, m.size, m.batch].append(m)
  for (device, architecture, size, batch), members in sorted(by_case.items()):
    others = [
      m for m in known if (m.device, m.architecture, m.size) != (device, architecture, size)
    ]
    if device == throughput.CPU:
      prediction = throughput.on_cpu(others, architecture, size)
    else:
      prediction = throughput.on_card(others, device, architecture, size, batch)
    yield Case(tuple(members), prediction)


def committed(known: Sequence[throughput.Measured], path: pathlib.Path = COMMITTED) -> list[Made]:
  """Returns the runs of a results table, such as the one that is committed.

  It doesn't say how often a run was evaluated: once is taken.

  Args:
    known: From `throughput.measurements`.
    path: A `results.csv` as `python -m experiments.report` writes it.
  """
  with path.open(newline="", encoding="utf-8") as file:
    rows = [row for row in csv.DictReader(file) if row["metric"] == "top1"]
  return [_of_row(known, row) for row in rows]


def of_folders(
  known: Sequence[throughput.Measured], paths: Iterable[pathlib.Path]
) -> tuple[list[Made], list[tuple[str, str]]]:
  """Returns the finished runs at and below some folders, and (path, reason) of what is left out.

  Args:
    known: From `throughput.measurements`.
    paths: Run folders, or folders that hold such.
  """
  find_spec = reading.spec_finder()
  made: list[Made] = []
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
        made.append(_of_folder(known, folder, find_spec))
      except reading.LeftOutError as e:
        left_out.append((str(folder.path), str(e)))
  return made, left_out


def _of_row(known: Sequence[throughput.Measured], row: dict[str, str]) -> Made:
  setting = throughput.Setting(
    architectures.find(row["model"]).name,
    int(row["crop"]),
    int(row["batch_size"]),
    row["dtype"],
    _places(row["device"]),
    int(row["num_devices"]) if row["num_devices"] else None,
    _places(row["machine"]),
  )
  prediction = throughput.of_run(known, setting)
  operations = footprint.flops_of_images(
    architectures.find(setting.architecture),
    inputs.NUM_CLASSES,  # the table doesn't tell; a head's operations are few
    trained=(int(row["steps"]) * setting.batch, setting.size),
    tested=(int(row["num_test"]), int(row["test_size"])),
  )
  return Made(
    row["run"],
    setting,
    int(row["steps"]),
    prediction,
    _number(row["images_per_second"]),
    _seconds(prediction, setting, operations),
    _number(row["wall_seconds"]),
  )


def _of_folder(
  known: Sequence[throughput.Measured],
  folder: folders.Folder,
  find_spec: Callable[..., datasets.DatasetSpec | None],
) -> Made:
  outcome, text = reading.outcome(folder)
  if outcome != "finished":
    raise reading.LeftOutError(f"{outcome}: {text}")
  run = reading.read(folder, find_spec)
  setting = _setting(run)
  prediction = throughput.of_run(known, setting)
  operations, expected_bytes = _footprint(run, find_spec)
  return Made(
    folder.path.resolve().name,
    setting,
    run.config["total_steps"],
    prediction,
    run.images_per_second,
    None if operations is None else _seconds(prediction, setting, operations),
    run.wall_seconds,
    expected_bytes,
    sum(file.stat().st_size for file in folder.path.rglob("*") if file.is_file()),
  )


def _setting(run: reading.Run) -> throughput.Setting:
  """Returns what a run computed.

  Raises:
    LeftOutError: It can't have been computed, or its network isn't known.
  """
  if run.architecture not in architectures.ARCHITECTURES:
    raise reading.LeftOutError(f"there is no network {run.architecture}")
  for name in ("crop", "test_size", "batch_size", "total_steps"):
    if run.config[name] < 1:
      raise reading.LeftOutError(f"config.json can't be used: {name} is {run.config[name]}")
  return throughput.Setting(
    run.architecture,
    run.config["crop"],
    run.config["batch_size"],
    run.recipe.dtype or "",
    run.devices,
    run.num_devices,
    run.machines,
  )


def _footprint(
  run: reading.Run, find_spec: Callable[..., datasets.DatasetSpec | None]
) -> tuple[float | None, float | None]:
  """Returns the operations and the bytes that a run takes; None where its config can't tell."""
  config = ml_collections.ConfigDict(run.config)
  spec = find_spec(config, val_apart=run_config.chooses(config))
  every = config.get("eval_every")
  if spec is None:
    return None, None
  timed = type(every) is int and every >= 1
  stored = config.get("momentum_dtype") in hyperrule.MOMENTUM_DTYPES
  return (
    footprint.flops(config, spec) if timed else None,
    footprint.disk_bytes(config, spec) if stored else None,
  )


def _seconds(
  prediction: throughput.Prediction | None, setting: throughput.Setting, operations: float
) -> float | None:
  """Returns how long some operations take at the FLOP/s of a prediction."""
  if prediction is None:
    return None
  image = throughput.training_flops(setting.architecture, setting.size)
  return operations / image / prediction.rate


def _places(text: str) -> tuple[str, ...]:
  """Returns the devices or machines that a cell of a results table names."""
  return tuple(text.split(reading.THEN)) if text else ()


def _number(text: str) -> float | None:
  return float(text) if text else None
