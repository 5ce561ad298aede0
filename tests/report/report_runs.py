"""A run folder with everything in it, made without training."""

import dataclasses
import json

import numpy as np
import pytest
import run_folders

from bit_jax.data import pipeline
from bit_jax.data.sources import arrays
from bit_jax.runs import mistakes, per_class, results

NAMES = ("cat", '<script>alert("1")</script>', "naïve & 猫\udcff", "d" * 300)
PATHS = [f"test/{i}/a'{i}\".png" for i in range(40)]


@dataclasses.dataclass(frozen=True)
class Made:
  """A run folder, and what it was made of."""

  folder: object
  labels: np.ndarray
  predictions: np.ndarray
  confidence: np.ndarray
  train: pipeline.Part
  rows: list


def part(labels, names):
  """Returns images of one grey level each, which is six times their index."""
  images = np.full(
    (len(labels), 8, 8, 3), 6 * np.arange(len(labels))[:, None, None, None], np.uint8
  )
  examples = arrays.Examples(images, labels, names)
  return pipeline.Part(examples, None, names, examples, labels)


def metric_rows():
  """Returns rows of a run of 100 steps, logged every 5 and evaluated every 20."""
  rows = []
  for step in range(5, 101, 5):
    speeds = {"images_per_second": 100.0 + step, "input_wait_share": step / 1000}
    fields = {"loss": 2 / step, "top1": step / 200, "learning_rate": 0.003 * 0.1 ** (step // 40)}
    rows.append({"step": step, "kind": "train", **fields, **speeds})
    if step % 20 == 0:
      rows.append({"step": step, "kind": "eval", "loss": 3 / step, "top1": step / 125})
  return rows


def make(folder):
  """Writes a finished run of four classes with names of all kinds, one without test images."""
  random = np.random.default_rng(0)
  labels = random.integers(0, 3, 40).astype(np.int32)
  predictions = np.where(random.random(40) < 0.6, labels, random.integers(0, 4, 40)).astype(
    np.int32
  )
  confidence = random.random(40).astype(np.float32)
  config = run_folders.reduced("model=R14x0.5,shots=5", mixup_alpha=0.1)
  top1 = float((labels == predictions).mean())
  result = {
    **per_class.means(labels, predictions),
    "num_train": 20,
    "num_test": 40,
    "steps": 100,
    "left_out": {"small <images>": 3},
    "warnings": ["The data are <b>old</b>."],
  }
  run_folders.write(folder, config, top1, result=result)
  rows = metric_rows()
  lines = "".join(f"{json.dumps(row)}\n" for row in rows)
  (folder / "metrics.jsonl").write_text(lines)
  train = part(np.arange(20, dtype=np.int32) % 4, NAMES)
  test = part(labels, NAMES)
  per_class.write(folder, NAMES, labels, predictions, train.labels, pytest.fail)
  results.draw_augmented(folder, dataclasses.replace(config, crop=6, resize=8), train, pytest.fail)
  results.draw(folder, config, test, top1, predictions, labels, pytest.fail)
  mistakes.write(folder, NAMES, labels, predictions, confidence, PATHS, pytest.fail)
  mistakes.draw(folder, test, labels, predictions, confidence, "Run", pytest.fail)
  return Made(folder, labels, predictions, confidence, train, rows)
