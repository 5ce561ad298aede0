"""The pieces of the benchmarks: no test asserts a time."""

import io
import json
import sys

import pytest

from experiments.benchmarks import machine, report, results, workers

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


def start(tmp_path, name, **spec):
  command = [sys.executable, "-c", WORKER]
  return workers.Worker(name, command, {"name": name, "log": str(tmp_path / "log"), **spec})


def test_workers_take_turns(tmp_path):
  with start(tmp_path, "ours", items=3) as ours, start(tmp_path, "theirs", items=5) as theirs:
    assert ours.info == {"device": "fake"}
    assert ours.check() == [1.5, 2.0]
    figures = workers.alternate([ours, theirs], rounds=3)
  log = (tmp_path / "log").read_text().split("\n")
  built, turns = log[:2], log[2:-1]
  assert built == ["ours built", "theirs built"]
  assert turns == ["ours", "theirs", "theirs", "ours", "ours", "theirs"]
  assert {name: len(f.rates) for name, f in figures.items()} == {"ours": 3, "theirs": 3}
  assert figures["ours"].peak_memory == 7


def test_medians_and_peak():
  repetitions = [
    workers.Repetition(seconds=2, items=8, peak_memory=10),
    workers.Repetition(seconds=1, items=8, peak_memory=30),
    workers.Repetition(seconds=8, items=8, peak_memory=20),
  ]
  assert workers.summarize(repetitions) == workers.Figures(4.0, 0.25, 30, (4.0, 8.0, 1.0))


def test_why_a_worker_is_missing(tmp_path):
  with pytest.raises(workers.WorkerError, match="nowhere/python can't be run"):
    workers.Worker("theirs", ["nowhere/python"], {})
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
  assert workers.steps_for(1.0, lambda: None) == 3


def test_rows_are_printed_and_recorded(tmp_path):
  path, out = tmp_path / "results.jsonl", io.StringIO()
  row = results.Row(
    "R50x1", "training", "images/s", 18.04, "PyTorch", 16.4, more={"MFU": 0.4567, "form": "eager"}
  )
  missing = results.Row("R50x1", "training", "images/s", 1234.5, "Flax", None, note="no room")
  for _ in range(2):
    with results.Table("train_step", versions={"torch": "2"}, path=path, out=out) as table:
      table.add(row)
      table.add(missing)
  header, on, _, first, second = out.getvalue().splitlines()[:5]
  assert header.startswith("train_step, 20")
  assert str(machine.describe()) in on
  assert "torch 2" in on
  assert " ".join(first.split()) == (
    "R50x1 training 18 images/s PyTorch 16.4 images/s 1.10 MFU 0.457; form eager"
  )
  assert " ".join(second.split()) == "R50x1 training 1,234 images/s Flax none no room"
  records = [json.loads(line) for line in path.read_text().splitlines()]
  assert len(records) == 4
  assert records[0]["ratio"] == pytest.approx(1.1)
  assert records[1]["ratio"] is None
  assert records[0]["versions"]["torch"] == "2"
  assert set(records[0]["versions"]) >= {"python", "jax", "jaxlib", "flax", "optax"}


def test_a_report_holds_the_newest_of_each(tmp_path):
  path = tmp_path / "results.jsonl"
  for ours in (1.0, 2.0):
    with results.Table("load", path=path, out=io.StringIO()) as table:
      table.add(results.Row("R50x1", "time", "s", ours, "numpy.load", 4.0))
      table.add(results.Row("R50x1", "peak memory", "GB", ours / 10))
  lines = path.read_text().splitlines()
  text = report.render(report.newest(lines))
  assert text.count("### load") == 1
  assert [line for line in text.splitlines() if line.startswith("| R50x1")] == [
    "| R50x1 | time | 2 s | numpy.load | 4 s | 0.50 |  |",
    "| R50x1 | peak memory | 0.2 GB |  | none |  |  |",
  ]


def test_memory_of_a_process():
  block = b"x" * 50_000_000
  assert machine.held_memory() > len(block)
  assert machine.peak_memory() >= machine.held_memory()
