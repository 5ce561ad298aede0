"""Tests of the input benchmark, of `run_worker` and of `trace`; none asserts a time."""

import numpy as np
import pytest

from bit_jax.data import datasets, images, opening
from experiments.benchmarks import input as input_benchmark
from experiments.benchmarks import inputs, run_worker, trace, workers


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


@pytest.mark.parametrize("task", ["streamed", "caching", "cached", "resident"])
def test_each_way_goes_through_all_images(folder, task, tmp_path):
  given = spec(folder, task, cache=str(tmp_path))
  assert run_worker.build(given).repeat() == 16


def test_reading_once_goes_through_the_set(folder):
  assert run_worker.build(spec(folder, "gathering", images=100)).repeat() == 12


@pytest.mark.slow
def test_the_plain_pipeline_goes_through_all_images(folder):
  assert run_worker.build(spec(folder, "plain")).repeat() == 12


@pytest.mark.slow
@pytest.mark.parametrize("task", ["training", "training on one batch", "evaluation"])
def test_training_and_evaluation_go_through_all_images(task):
  given = {"task": task, "set": "random", "architecture": "R14x0.5", "images": 16, "batch": 8}
  assert run_worker.build({**given, "resize": 16, "crop": 16}).repeat() == 16


def test_rows_compare_each_way_with_the_peer(monkeypatch):
  class Fake:
    def __init__(self, given, **_):
      self.task = given["task"]

    def ask(self, _):
      return [50.0 if self.task == "plain" else 100.0, 0]

    def close(self):
      pass

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


def test_events_of_a_trace_are_recognised_by_their_names():
  labels = {
    "$feeds.py:32 training": "sends the next batch",
    "$loop.py:368 _write_due_log": "writes a log",
    "$api.py:2479 block_until_ready": "waits for the previous step",
    "ThunkExecutor::Execute (wait for completion)": "computes",
    "$other.py:32 training": None,
    "ThunkExecutor::Execute": None,
  }
  for name, label in labels.items():
    kind = trace.kind_of(name)
    assert (kind and kind.label) == label


def test_gaps_are_between_steps(tmp_path):
  (device,) = [kind for kind in trace.KINDS if kind.lane == "device"]
  image = trace.KINDS[-1]
  found = [trace.Span(device, "device", a, b) for a, b in [(0, 5), (11, 11.2), (5.5, 10)]]
  found.append(trace.Span(image, "image thread 7", 1, 4))
  assert trace.gaps(found) == [0.5, 1]
  assert [step.start for step in trace.steps(found)] == [0, 5.5]  # the third is no step
  trace.draw(found, "title", tmp_path / "trace.png")
  height, width, _ = images.decode(tmp_path / "trace.png").shape
  assert width > 2 * height > 400


def test_a_run_without_a_trace_is_an_error(tmp_path):
  with pytest.raises(FileNotFoundError, match="profile=True"):
    trace.spans(tmp_path)
