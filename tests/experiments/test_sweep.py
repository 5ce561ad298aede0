"""Tests of experiments.sweep as a command: whole sweeps, poisoned, stopped and killed."""

import errno
import fcntl
import hashlib
import json
import os
import pathlib
import shlex
import signal
import sys
import textwrap
import time

import ml_collections
import pytest
import running

from bit_jax import run_config
from bit_jax.runtime import exits
from experiments import ledger, sweep
from experiments.sweeping import queueing

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
    time.sleep(0.2)


@pytest.mark.parametrize(
  ("argv", "facts"),
  [
    (["--config=nowhere.py"], ["no sweep file 'nowhere.py'", "experiments/fewshot.py"]),
    (
      ["--config=experiments/offline.py", "--only=5shot"],
      ["no run with a name that matches '5shot'", "try '*5shot*'"],
    ),
    (["--config=experiments/offline.py", "--only=*7shot*"], ["name that matches '*7shot*'."]),
    (["--config=experiments/offline.py", "--jobs=two"], ["--jobs", "at least 1", "two"]),
    (["--config=experiments/offline.py", "--jobs=0"], ["--jobs", "at least 1", "0"]),
    (["--config=experiments/offline.py", "--out=README.md"], ["README.md is a file"]),
    (
      ["--config=experiments/offline.py", "--out=README.md", "--dry_run"],
      ["README.md is a file"],
    ),
    (["--config=experiments/offline.py", "--out=/proc/x"], ["can't be written"]),
    (
      ["--config=experiments/offline.py", "--dry_run", "--slurm=partition=gpu"],
      ["--slurm needs --executor=slurm"],
    ),
    (
      ["--config=experiments/offline.py", "--dry_run", "--executor=slurm", "--slurm=foo"],
      ["foo"],
    ),
  ],
)
def test_mistakes_end_in_a_sentence(argv, facts, capsys, monkeypatch):
  monkeypatch.chdir(running.ROOT)
  assert exits.run(sweep.main, ["sweep", *argv]) == exits.USER_ERROR
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
  assert exits.run(sweep.main, ["sweep", f"--config={path}", f"--out={out}", "--dry_run"]) == 0
  text = capsys.readouterr().out
  assert "quickstart-R14x0.5-3shot-s0-" in text
  assert "can't be run: dtype='floaty' is not known" in text
  assert "2 runs: 96 images" in text
  assert not out.exists()


def test_a_sweep_begins_on_a_file_system_without_locks(file, tmp_path, monkeypatch, capsys):
  def flock(*_):
    raise OSError(errno.ENOSYS, "Function not implemented")

  monkeypatch.setattr(fcntl, "flock", flock)
  path = file("""
    def get_runs():
      yield grid.Run(running.config(dtype="floaty"))
  """)
  out = tmp_path / "out"
  assert exits.run(sweep.main, ["sweep", f"--config={path}", f"--out={out}"]) == 2
  error = capsys.readouterr().err
  assert f"The file system of {out} has no file locks (Function not implemented)" in error
  assert "1 of 1 runs failed" in error


def test_the_next_command_can_be_pasted_into_a_shell(tmp_path, capsys):
  folder = tmp_path / "$a_b$ c"
  sweep._report(queueing.Queue([], folder, "mine"), folder)
  next_command = capsys.readouterr().out.split("Next: ")[1]
  assert shlex.split(next_command)[-2:] == ["experiments.report", str(folder)]


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
  assert status == exits.USER_ERROR
  assert "error: 2 of 4 runs failed, 2 finished" in error
  assert "The loss is not finite" in error
  assert "[4/4]" in text
  results = records(out, "result.json")
  assert len(results) == 2
  (poisoned,) = (e for e in records(out, "error.json").values() if e["traceback"])
  assert "The loss is not finite" in poisoned["message"]
  first, second = results
  environments = records(out, "environment.json")
  assert environments[first]["weights"] == f"{second}/model.npz"
  digest = hashlib.sha256((out / second / "model.npz").read_bytes()).hexdigest()
  assert environments[first]["weights_sha256"] == digest
  assert records(out, "sweep.json")[first]["labels"] == {"start": "from the first"}

  written = {name: (out / name / "result.json").stat().st_mtime_ns for name in results}
  status, text, _ = running.finish(start(tmp_path_factory, path, out))
  assert status == exits.USER_ERROR
  assert "4 runs in" in text
  assert ", 2 finished." in text
  for name, when in written.items():
    assert (out / name / "result.json").stat().st_mtime_ns == when
    assert len(records(out, "sweep.json")[name]["attempts"]) == 1


@pytest.mark.slow
def test_what_was_stopped_killed_or_moved_goes_on_and_comes_to_the_same(
  file, tmp_path, tmp_path_factory
):
  arguments = "shots=2,protocol=select"
  fields = {"total_steps": 120, "log_every": 2, "checkpoint_every": 10, "eval_every": 120}
  path = file(f"""
    def get_runs():
      first = grid.Run(running.config())
      yield first
      yield grid.Run(running.config("{arguments}", **{fields}), "the first", first)
  """)
  out, elsewhere = tmp_path / "out", tmp_path / "elsewhere" / "out"

  def step():
    return max(map(ledger.last_step, out.glob("*-2shot-*")), default=0)

  def attempts():
    return [
      a for n, r in records(out, "sweep.json").items() if "-2shot-" in n for a in r["attempts"]
    ]

  def begun(attempt):
    process = start(tmp_path_factory, path, out)
    until(process, lambda: len(attempts()) == attempt)  # what is left of an earlier one is over
    before = step()
    until(process, lambda: step() > before + 2)
    return process

  process = begun(1)
  process.send_signal(signal.SIGINT)
  status, _, error = running.finish(process)
  assert status == exits.INTERRUPTED
  assert "Stopped: 1 of 2 runs left. Run the same command again to resume." in error
  elsewhere.parent.mkdir()
  out = out.rename(elsewhere)
  process = begun(2)
  process.send_signal(signal.SIGKILL)  # the worker sees that nobody is there, and saves
  process.communicate()
  process = begun(3)
  os.kill(worker_of(process), signal.SIGKILL)  # as the system does where memory is short
  status, _, error = running.finish(process)
  assert status == exits.USER_ERROR
  assert "error: 1 of 2 runs failed, 1 finished" in error
  assert "was killed, most likely because memory ran out" in error
  status, text, error = running.finish(start(tmp_path_factory, path, out))
  assert (status, error) == (0, "")
  assert "2 runs finished, none failed." in text
  assert not records(out, "error.json")
  outcomes = [attempt["outcome"] for attempt in attempts()]
  assert outcomes == ["interrupted", "interrupted", "killed", "finished"]

  second, first = records(out, "result.json")
  assert (out / second / "log.txt").read_text().count("Resuming after step") == 3
  config = json.loads((out / second / "config.json").read_text())
  config = ml_collections.ConfigDict({**config, "decay_steps": tuple(config["decay_steps"])})
  assert second.endswith(f"-{run_config.config_hash(config)}")
  weights = out / first / "model.npz"
  with running.compilation_cache(tmp_path_factory):
    expected = running.train(tmp_path / "whole", f"{arguments},weights={weights}", **fields)
  result = records(out, "result.json")[second]
  assert (result["top1"], result["loss"]) == (expected["top1"], expected["loss"])


def worker_of(process):
  """Returns the process id of a sweep's worker."""
  children = pathlib.Path(f"/proc/{process.pid}/task/{process.pid}/children")
  (worker,) = children.read_text().split()
  return int(worker)
