"""Tests of experiments.benchmarks.workers."""

import contextlib
import json
import os
import subprocess
import sys

import pytest

from experiments.benchmarks import (
  workers,
)

WORKER = """
import sys, time
from experiments.benchmarks import workers

def build(spec):
  if spec.get("mistake"):
    raise ValueError(spec["mistake"])
  print("this goes to the standard error, not to the parent")
  log = open(spec["log"], "a", buffering=1)
  log.write(spec["name"] + " built\\n")

  def repeat():
    log.write(spec["name"] + "\\n")
    if spec.get("fails"):
      raise MemoryError("no room for it")
    return spec["items"]

  return workers.Workload(repeat, {"device": "fake"}, lambda: 7, lambda: [1.5, 2])

workers.serve(build)
"""


@pytest.fixture(autouse=True)
def _worker(tmp_path_factory, monkeypatch):
  folder = tmp_path_factory.mktemp("modules")
  (folder / "fake_worker.py").write_text(WORKER)
  monkeypatch.setenv("PYTHONPATH", str(folder))


def start(tmp_path, name, **spec):
  given = {"name": name, "log": str(tmp_path / "log"), **spec}
  return contextlib.closing(workers.Worker(given, "fake_worker"))


def test_workers_take_turns(tmp_path):
  with start(tmp_path, "ours", items=3) as ours, start(tmp_path, "theirs", items=5) as theirs:
    assert ours.info == {"device": "fake"}
    assert ours.ask("check") == [1.5, 2.0]
    figures = workers.alternate({"ours": ours, "theirs": theirs}, rounds=3)
  log = (tmp_path / "log").read_text().split("\n")
  built, turns = log[:2], log[2:-1]
  assert built == ["ours built", "theirs built"]
  assert turns == ["ours", "theirs", "theirs", "ours", "ours", "theirs"]
  assert {name: len(f.rates) for name, f in figures.items()} == {"ours": 3, "theirs": 3}
  assert figures["ours"].peak_memory == 7


def test_a_worker_ends_with_its_parent(tmp_path):
  source = WORKER.replace("def build(spec):", "def build(spec):\n  time.sleep(60)")
  spec = json.dumps({"name": "slow", "log": "log"})
  pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "cwd": tmp_path}
  environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
  with subprocess.Popen([sys.executable, "-c", source, spec], env=environment, **pipes) as worker:
    worker.stdin.close()
    assert worker.wait(timeout=30) == 1


def test_medians():
  figures = workers.Figures((4.0, 8.0, 1.0), 30)
  assert (figures.rate, figures.seconds) == (4.0, 0.25)


def test_why_a_worker_is_missing(tmp_path):
  with pytest.raises(workers.WorkerError, match="nowhere/python"):
    workers.Worker({}, python="nowhere/python")
  with pytest.raises(workers.WorkerError, match="ValueError: not installed"):
    start(tmp_path, "theirs", mistake="not installed")
  with (
    start(tmp_path, "theirs", fails=True) as worker,
    pytest.raises(workers.WorkerError, match="no room for it"),
  ):
    worker.ask("repeat")


def test_as_many_steps_as_fill_the_time(monkeypatch):
  clock = iter([10.0, 10.4])
  monkeypatch.setattr(workers.time, "perf_counter", lambda: next(clock))
  waited = []
  repeat = workers.repetition(lambda: 7, waited.append, 5, 1.0)
  assert repeat() == 15  # three steps of five items
  assert waited == [7, 7]
