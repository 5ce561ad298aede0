"""Tests of experiments.sweeping.worker."""

import dataclasses
import json
import sys

import pytest
import resolving
import running

from bit_jax.runtime import errors, exits
from bit_jax.training import fine_tuning
from experiments import ledger
from experiments.sweeping import worker


@pytest.fixture(scope="module", autouse=True)
def _shared_cache(tmp_path_factory):
  with running.compilation_cache(tmp_path_factory):
    yield


def job(folder, **changes):
  resolved, _ = resolving.resolve(running.config(**changes))
  return worker.Job(str(folder), resolved.to_dict(), "mine", {"start": "in words"})


def raising(monkeypatch, error):
  def train_and_evaluate(config, workdir, weights_at):
    raise error

  monkeypatch.setattr(fine_tuning, "train_and_evaluate", train_and_evaluate)


def outcomes(folder):
  return [a["outcome"] for a in json.loads((folder / "sweep.json").read_text())["attempts"]]


def test_a_run_is_the_one_that_the_training_command_makes(tmp_path):
  expected = running.train(tmp_path / "direct")
  passed_on = worker.Job(**json.loads(json.dumps(dataclasses.asdict(job(tmp_path / "run")))))
  assert worker.perform(passed_on) == "finished"
  result = json.loads((tmp_path / "run" / "result.json").read_text())
  assert (result["top1"], result["loss"]) == (expected["top1"], expected["loss"])
  direct, swept = (
    json.loads((tmp_path / name / "config.json").read_text()) for name in ("direct", "run")
  )
  assert direct == swept
  assert outcomes(tmp_path / "run") == ["finished"]


def test_a_mistake_is_noted_as_a_sentence(tmp_path, monkeypatch, capsys):
  raising(monkeypatch, errors.UserError("The file isn't there."))
  assert worker.perform(job(tmp_path)) == "failed"
  assert ledger.failure(tmp_path) == "The file isn't there."
  assert outcomes(tmp_path) == ["failed"]
  assert capsys.readouterr().out == "error: The file isn't there.\n"


def test_whatever_goes_wrong_in_a_run_is_noted_with_its_traceback(tmp_path, monkeypatch):
  raising(monkeypatch, ZeroDivisionError("division by zero"))
  assert worker.perform(job(tmp_path)) == "failed"
  noted = json.loads((tmp_path / "error.json").read_text())
  assert noted["message"] == "ZeroDivisionError: division by zero"
  assert "train_and_evaluate" in noted["traceback"]


def test_a_stopped_run_has_no_error(tmp_path, monkeypatch):
  raising(monkeypatch, exits.Interrupted("Stopped after step 3."))
  assert worker.perform(job(tmp_path)) == "interrupted"
  assert ledger.failure(tmp_path) is None
  assert outcomes(tmp_path) == ["interrupted"]


def test_a_process_that_is_left_alone_as_it_starts_makes_no_run(tmp_path, tmp_path_factory):
  line = [sys.executable, "-m", "experiments.sweeping.worker"]
  with running.start(line, tmp_path_factory) as process:
    told = json.dumps(dataclasses.asdict(job(tmp_path / "run"))) + "\n"
    out, err = process.communicate(told, 200)
  # The end of its input may come before the run is begun, or a moment after.
  assert out in ("", "interrupted\n")
  assert process.returncode == 0
  assert "Traceback" not in err
  assert not (tmp_path / "run" / "result.json").exists()


@pytest.mark.slow
def test_the_process_makes_one_run_after_another_and_saves_when_nobody_is_there(
  tmp_path, tmp_path_factory
):
  line = [sys.executable, "-m", "experiments.sweeping.worker"]
  with running.start(line, tmp_path_factory) as process:
    for each in (job(tmp_path / "bad", weights="/nowhere.npz"), job(tmp_path / "good")):
      process.stdin.write(json.dumps(dataclasses.asdict(each)) + "\n")
      process.stdin.flush()
    assert process.stdout.readline() == "failed\n"
    assert process.stdout.readline() == "finished\n"
    long = job(tmp_path / "long", total_steps=100_000, eval_every=100_000, checkpoint_every=100_000)
    process.stdin.write(json.dumps(dataclasses.asdict(long)) + "\n")
    process.stdin.flush()
    while ledger.last_step(tmp_path / "long") < 4:
      assert process.poll() is None
    process.stdin.close()
    assert process.stdout.readline() == "interrupted\n"
    assert process.wait() == 0
    assert (tmp_path / "long" / "checkpoints").is_dir()
    assert "Top-1" not in process.stderr.read()  # runs print into their logs
    assert "step 6: evaluated" in (tmp_path / "good" / "log.txt").read_text()
