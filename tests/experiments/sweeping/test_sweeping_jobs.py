"""Tests of experiments.sweeping.jobs."""

import contextlib

import pytest
import running

from bit_jax import run_config
from experiments import ledger
from experiments.sweeping import grid, jobs, progress, queueing


def planned(name):
  config, spec = run_config.resolve(running.config())
  return grid.Planned(name, config, spec, {}, None, None)


@pytest.mark.parametrize(
  ("result", "message"),
  [
    (None, "It left neither a result nor an error."),
    ('{"loss": 1}', "a/result.json holds no result: delete it."),
    ("{", "a/result.json holds no result: delete it."),
  ],
)
def test_a_run_that_says_nothing_has_failed(tmp_path, result, message):
  queue = queueing.Queue([planned("a")], tmp_path)
  queue.take()
  (tmp_path / "a").mkdir()
  ledger.Attempt(tmp_path / "a", "mine", {}).end("finished")
  if result is not None:
    (tmp_path / "a" / "result.json").write_text(result)
  with contextlib.closing(progress.Progress(queue)) as shown:
    jobs.settle(queue, tmp_path, "a", shown)
  assert queue.failed["a"].endswith(message)


@pytest.mark.parametrize("deterministic", [False, True])
def test_a_deterministic_run_has_its_option_from_the_environment(deterministic, monkeypatch):
  monkeypatch.setenv("XLA_FLAGS", "--xla_other=1")
  expected = {"XLA_FLAGS": "--xla_other=1 --xla_gpu_deterministic_ops=true"}
  variables = jobs.variables(running.config(deterministic=deterministic))
  assert variables == (expected if deterministic else {})
  assert len(jobs.setup(running.config(deterministic=deterministic))) == deterministic
