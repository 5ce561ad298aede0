"""What the runs of several experiments have in common: images of noise, and equal metrics."""

import json
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

_TIMES = ("seconds", "startup_seconds", "images_per_second", "input_wait_share")


def write_noise(path: pathlib.Path, counts: Mapping[str, int], side: int, classes: int) -> None:
  """Writes images of noise with labels, as `configs/npz.py` reads them.

  Args:
    path: The npz file.
    counts: {'train' or 'test': number of images}.
    side: Of the images, in pixels.
    classes: Number of classes; labels go through them in turn.
  """
  random, arrays = np.random.default_rng(0), dict[str, Any]()
  for part, count in counts.items():
    arrays[f"{part}_images"] = random.integers(0, 256, (count, side, side, 3), dtype=np.uint8)
    arrays[f"{part}_labels"] = np.arange(count) % classes
  np.savez(path, **arrays)


def rows(folder: pathlib.Path) -> list[dict[str, Any]]:
  """Returns the rows of a run's metrics, without times."""
  lines = (folder / "metrics.jsonl").read_text().splitlines()
  return [without_times(json.loads(line)) for line in lines]


def without_times(values: Mapping[str, Any]) -> dict[str, Any]:
  """Returns values that a run which was interrupted has in common with one that wasn't."""
  return {k: v for k, v in values.items() if k not in _TIMES}
