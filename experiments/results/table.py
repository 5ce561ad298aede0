"""`results.csv`: a row for each run and figure of it."""

import pathlib
from collections.abc import Iterable, Iterator
from typing import Any

from bit_jax.runs import run_folder
from experiments.results import reading

HEADER = (
  *("run", "sweep", "model", "start", "dataset", "protocol", "regime", "shots", "seed"),
  *("preset", "rule", "reason", "batch_size", "resize", "crop", "test_size", "steps", "base_lr"),
  *("mixup_alpha", "random_crop", "random_flip", "dtype", "num_train", "num_test"),
  *("metric", "value", "wall_seconds", "startup_seconds", "step_seconds", "images_per_second"),
  *("device", "num_devices", "machine", "data", "checkpoint_sha256", "config_hash", "started"),
  "warnings",
)
_OF_CONFIG = (
  *("batch_size", "resize", "crop", "test_size", "base_lr", "mixup_alpha"),
  *("random_crop", "random_flip"),
)


def rows(found: Iterable[reading.Run]) -> Iterator[tuple[Any, ...]]:
  """Yields the header, and a row for each run and metric; what isn't known is empty.

  'top1' and 'top5' are in [0, 1], 'shots' is 'full' where all examples are used.
  """
  yield HEADER
  for run in found:
    for metric, value in run.metrics.items():
      values = {**_values(run), "metric": metric, "value": value}
      yield tuple(values[name] if name in values else getattr(run, name) for name in HEADER)


def _values(run: reading.Run) -> dict[str, Any]:
  """Returns what isn't an attribute of a run as it is."""
  return {
    **{name: run.config[name] for name in _OF_CONFIG},
    "run": run.name,
    "shots": "full" if run.shots is None else run.shots,
    "preset": run.recipe.preset,
    "dtype": run.recipe.dtype,
    "device": reading.THEN.join(run.devices),
    "machine": reading.THEN.join(run.machines),
    "warnings": " | ".join(run.warnings),
  }


def write(path: pathlib.Path, found: Iterable[reading.Run]) -> None:
  """Writes the table."""
  run_folder.write_csv(path, rows(found))
