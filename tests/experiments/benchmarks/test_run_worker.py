"""Tests of experiments.benchmarks.run_worker, input and the images they read."""

import contextlib

import numpy as np
import pytest

from bit_jax.data import datasets, images, opening
from experiments.benchmarks import input as input_benchmark
from experiments.benchmarks import inputs, run_worker, workers


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  folder = tmp_path_factory.mktemp("photographs")
  assert inputs.write_photographs(folder, 12, None) == "generated photographs"
  return folder


def spec(folder, task, **changes):
  sizes = {"resize": 20, "crop": 16, "batch": 8, "images": 16}
  return {"task": task, "set": "folder", "path": str(folder), "data_dir": None, **sizes, **changes}


def test_generated_photographs_have_the_spectrum_of_photographs():
  grey = images.decode(inputs.photograph(3)).mean(-1)
  assert grey.shape == (375, 500)
  amplitudes = np.abs(np.fft.fft2(grey - grey.mean()))
  rows, columns = (np.fft.fftfreq(n) for n in grey.shape)
  frequency = np.hypot(rows[:, None], columns)
  inner = (frequency > 0.02) & (frequency < 0.2)
  slope, _ = np.polyfit(np.log(frequency[inner]), np.log(amplitudes[inner]), 1)
  assert slope == pytest.approx(-1, abs=0.15)
  assert 30 < grey.std() < 70


def test_originals_are_copied_in_turn(folder, tmp_path):
  said = inputs.write_photographs(tmp_path / "set", 5, folder / "test")
  assert said == "photographs"
  copied = sorted((tmp_path / "set" / "train").rglob("*.jpg"), key=lambda path: path.name)
  originals = sorted((folder / "test").rglob("*.jpg"))
  expected = [originals[i % 4].read_bytes() for i in range(5)]
  assert [path.read_bytes() for path in copied] == expected


def test_the_photographs_are_a_set(folder):
  opened = opening.open_set(datasets.Request("folder", path=str(folder))).sources()
  assert (len(opened.train), opened.train.class_names) == (12, ("class0", "class1"))


@pytest.mark.parametrize("task", ["streamed", "cached", "resident"])
def test_each_way_goes_through_all_images(folder, task, tmp_path):
  given = spec(folder, task, cache=str(tmp_path))
  assert run_worker.build(given).repeat() == 16


def test_reading_once_goes_through_the_set(folder):
  assert run_worker.build(spec(folder, "gathering", images=100)).repeat() == 12


@pytest.mark.parametrize("task", ["predicting", "evaluating"])
def test_predicting_and_evaluating_go_through_the_set(folder, task):
  assert run_worker.build(spec(folder, task, architecture="R14x0.5")).repeat() == 12


@pytest.mark.slow
def test_the_plain_pipeline_goes_through_all_images(folder):
  assert run_worker.build(spec(folder, "plain")).repeat() == 12


@pytest.mark.slow
def test_training_goes_through_all_images():  # test_costs_along_an_axis covers the other tasks
  given = {"task": "training", "set": "random", "architecture": "R14x0.5", "images": 16, "batch": 8}
  assert run_worker.build({**given, "resize": 16, "crop": 16}).repeat() == 16


def test_rows_compare_each_way_with_the_peer(monkeypatch):
  class Fake(contextlib.nullcontext):
    def __init__(self, given):
      super().__init__(self)
      self.task = given["task"]

    def repeat(self):
      return 50.0 if self.task == "plain" else 100.0, 0

  monkeypatch.setattr(workers, "Worker", Fake)
  tasks = {"streamed": "first epoch", "cached": "later"}
  rows = list(input_benchmark.compare(input_benchmark.Comparison("set", {}, tasks), 3))
  assert [(r.quantity, r.ours, r.theirs, r.ratio) for r in rows] == [
    ("first epoch", 100, 50, 2),
    ("later", 100, 50, 2),
  ]


def test_a_set_that_is_missing_is_reported(monkeypatch):
  def missing(*_, **__):
    raise workers.WorkerError("not prepared")

  monkeypatch.setattr(workers, "Worker", missing)
  (row,) = input_benchmark.compare(input_benchmark.Comparison("set", {}, {"a": "b"}), 3)
  assert row.ours is None
  assert "not prepared" in row.note
