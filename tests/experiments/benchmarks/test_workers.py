"""Tests of experiments.benchmarks.workers."""

import os
import subprocess
import sys

import psutil
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

  return workers.Workload(repeat, {"numbers": [1.5, 2]}, lambda: 7)

workers.serve(build)
"""


@pytest.fixture(autouse=True)
def _worker(tmp_path_factory, monkeypatch):
  folder = tmp_path_factory.mktemp("modules")
  (folder / "fake_worker.py").write_text(WORKER)
  monkeypatch.setenv("PYTHONPATH", str(folder))


def start(tmp_path, name, **spec):
  given = {"module": "fake_worker", "name": name, "log": str(tmp_path / "log"), **spec}
  return workers.Worker(given)


def test_workers_take_turns(tmp_path):
  with start(tmp_path, "ours", items=3) as ours, start(tmp_path, "theirs", items=5) as theirs:
    assert ours.info == {"numbers": [1.5, 2.0]}
    figures = workers.alternate({"ours": ours, "theirs": theirs}, rounds=3)
  log = (tmp_path / "log").read_text().split("\n")
  built, turns = log[:2], log[2:-1]
  assert built == ["ours built", "theirs built"]
  assert turns == ["ours", "theirs", "theirs", "ours", "ours", "theirs"]
  assert {name: len(f.rates) for name, f in figures.items()} == {"ours": 3, "theirs": 3}
  assert figures["ours"].peak_memory == 7


@pytest.mark.skipif(sys.platform != "linux", reason="at once on Linux only")
def test_a_worker_ends_with_its_parent(tmp_path):
  building = "def build(spec):\n  print('building', flush=True)\n  time.sleep(60)"
  (tmp_path / "slow_worker.py").write_text(WORKER.replace("def build(spec):", building))
  parent = """
import subprocess, sys
worker = subprocess.Popen(
  [sys.executable, "-m", "slow_worker", "{}"], stdin=subprocess.PIPE, stderr=subprocess.PIPE
)
print(worker.stderr.readline(), worker.pid, flush=True)
input()
"""
  pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "cwd": tmp_path, "text": True}
  environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
  with subprocess.Popen([sys.executable, "-c", parent], env=environment, **pipes) as process:
    worker = psutil.Process(int(process.stdout.readline().split()[-1]))
    process.kill()
  assert psutil.wait_procs([worker], timeout=30)[1] == []


def test_medians():
  figures = workers.Figures((4.0, 8.0, 1.0), 30)
  assert figures.rate == 4.0


def test_why_a_worker_is_missing(tmp_path):
  with pytest.raises(workers.WorkerError, match="nowhere/python"):
    workers.Worker({"python": "nowhere/python"})
  with pytest.raises(workers.WorkerError, match="ValueError: not installed"):
    start(tmp_path, "theirs", mistake="not installed")
  with (
    start(tmp_path, "theirs", fails=True) as worker,
    pytest.raises(workers.WorkerError, match="no room for it"),
  ):
    worker.repeat()


def test_as_many_steps_as_fill_the_time(monkeypatch):
  clock = iter([10.0, 10.4])
  monkeypatch.setattr(workers.time, "perf_counter", lambda: next(clock))
  waited = []
  repeat = workers.repetition(lambda: 7, waited.append, 5, 1.0)
  assert repeat() == 15  # three steps of five items
  assert waited == [7, 7]
