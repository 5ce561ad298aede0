"""Tests of experiments.sweep as a command: whole sweeps, poisoned, stopped and killed."""

import json
import os
import signal
import sys
import textwrap
import time

import pytest
import running

from bit_jax import commands
from experiments import sweep

HEAD = f"""
import sys
sys.path.append({str(running.ROOT / "tests")!r})
import running
from experiments.sweeping import grid

"""


@pytest.fixture
def file(tmp_path):
  """A function that writes a sweep file and returns its path."""

  def write(body):
    path = tmp_path / "mine.py"
    path.write_text(HEAD + textwrap.dedent(body))
    return str(path)

  return write


def start(tmp_path_factory, path, out, *flags):
  line = [sys.executable, "-m", "experiments.sweep", f"--config={path}", f"--out={out}", *flags]
  return running.start(line, tmp_path_factory)


def records(out, name):
  """Returns {run folder: what its JSON file of that name holds}, where there is one."""
  return {p.parent.name: json.loads(p.read_text()) for p in sorted(out.glob(f"*/{name}"))}


def until(process, condition, seconds=200):
  end = time.monotonic() + seconds
  while not condition():
    assert process.poll() is None, process.communicate()
    assert time.monotonic() < end
    time.sleep(0.05)


@pytest.mark.parametrize(
  ("argv", "facts"),
  [
    (["--config=nowhere.py"], ["no sweep file 'nowhere.py'", "experiments/fewshot.py"]),
    (["--config=experiments/offline.py", "--only=x"], ["no run whose name matches 'x'"]),
    (["--config=experiments/offline.py", "--out=/proc/x"], ["can't be written"]),
  ],
)
def test_mistakes_end_in_a_sentence(argv, facts, capsys, monkeypatch):
  monkeypatch.chdir(running.ROOT)
  assert commands.run(sweep.main, ["sweep", *argv]) == commands.MISTAKE
  error = capsys.readouterr().err
  assert error.count("\n") == 1
  for fact in facts:
    assert fact in error


def test_a_dry_run_lists_the_runs_and_makes_nothing(file, tmp_path, capsys):
  path = file("""
    def get_runs():
      yield grid.Run(running.config())
      yield grid.Run(running.config(dtype="floaty"))
  """)
  out = tmp_path / "out"
  assert commands.run(sweep.main, ["sweep", f"--config={path}", f"--out={out}", "--dry_run"]) == 0
  text = capsys.readouterr().out
  assert "quickstart-R14x0.5-3shot-s0-" in text
  assert "can't be made: dtype='floaty' is not known" in text
  assert "2 runs: 96 images" in text
  assert not out.exists()


@pytest.mark.slow
def test_a_poisoned_run_is_on_record_and_the_others_are_made_once(file, tmp_path, tmp_path_factory):
  path = file("""
    def get_runs():
      first = grid.Run(running.config())
      yield grid.Run(running.config(base_lr=1e30))
      yield first
      yield grid.Run(running.config("shots=2,protocol=select"), "from the first", first)
      yield grid.Run(running.config(dtype="floaty"))
  """)
  out = tmp_path / "out"
  status, text, error = running.finish(start(tmp_path_factory, path, out))
  assert status == commands.MISTAKE
  assert "error: 2 of 4 runs failed, 2 are finished" in error
  assert "The loss is not finite" in error
  assert "[4/4]" in text
  results = records(out, "result.json")
  assert len(results) == 2
  (poisoned,) = (e for e in records(out, "error.json").values() if e["traceback"])
  assert "The loss is not finite" in poisoned["message"]
  first, second = results
  environments = records(out, "environment.json")
  assert environments[first]["weights"].endswith(f"{second}/model.npz")
  assert records(out, "sweep.json")[first]["labels"] == {"start": "from the first"}

  written = {name: (out / name / "result.json").stat().st_mtime_ns for name in results}
  status, text, _ = running.finish(start(tmp_path_factory, path, out))
  assert status == commands.MISTAKE
  assert "4 runs in" in text
  assert "of which 2 are finished" in text
  for name, when in written.items():
    assert (out / name / "result.json").stat().st_mtime_ns == when
    assert len(records(out, "sweep.json")[name]["attempts"]) == 1


@pytest.mark.slow
def test_what_was_stopped_or_killed_goes_on_and_comes_to_the_same(file, tmp_path, tmp_path_factory):
  fields = "total_steps=60, log_every=2, checkpoint_every=10, eval_every=60"
  path = file(f"""
    def get_runs():
      for seed in (0, 1):
        yield grid.Run(running.config("%s,seed=%d" % (running.ARGUMENTS, seed), {fields}))
  """)
  out, whole = tmp_path / "out", tmp_path / "whole"

  def steps():
    return sum(1 for p in out.glob("*/metrics.jsonl") for line in p.open() if "train" in line)

  process = start(tmp_path_factory, path, out)
  until(process, lambda: steps() > 2)
  process.send_signal(signal.SIGINT)
  status, _, error = running.finish(process)
  assert status == commands.INTERRUPTED
  assert "the same command goes on" in error
  stopped = steps()
  process = start(tmp_path_factory, path, out)
  until(process, lambda: steps() > stopped + 2)
  process.send_signal(signal.SIGKILL)  # the worker sees that nobody is there, and saves
  process.communicate()
  process = start(tmp_path_factory, path, out, "--jobs=2")
  until(process, lambda: steps() > stopped + 4)
  (worker,) = {int(p) for p in _workers(process.pid)[:1]}
  os.kill(worker, signal.SIGKILL)  # as the system does where memory is short
  status, text, error = running.finish(process)
  assert status == commands.MISTAKE
  assert "error: 1 of 2 runs failed, 1 are finished" in error
  assert "killed, most likely for want of memory" in error
  status, text, error = running.finish(start(tmp_path_factory, path, out))
  assert (status, error) == (0, "")
  assert "All 2 runs are finished" in text
  assert not records(out, "error.json")

  status, _, _ = running.finish(start(tmp_path_factory, path, whole))
  assert status == 0
  values = [
    {name: (r["top1"], r["loss"]) for name, r in records(folder, "result.json").items()}
    for folder in (out, whole)
  ]
  assert len(values[0]) == 2
  assert values[0] == values[1]


def _workers(pid):
  """Returns the process ids of a sweep's workers."""
  with open(f"/proc/{pid}/task/{pid}/children") as children:
    return children.read().split()
