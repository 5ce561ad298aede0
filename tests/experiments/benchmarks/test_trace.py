"""Tests of experiments.benchmarks.trace."""

import pathlib

import pytest

import bit_jax
from bit_jax.data import images
from bit_jax.runtime import errors
from experiments.benchmarks import trace


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
  with pytest.raises(errors.UserError, match="profile=True"):
    trace.spans(tmp_path)


def test_the_functions_of_a_trace_exist():
  sources = pathlib.Path(bit_jax.__file__).parent
  for kind in trace.KINDS:
    if kind.event.startswith("$"):
      file, function = kind.event[1:].split()
      (path,) = sources.rglob(file)
      assert f"def {function}(" in path.read_text(encoding="utf-8")
