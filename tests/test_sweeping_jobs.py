"""Tests of experiments.sweeping.jobs."""

import pytest
import running

from experiments.sweeping import jobs


@pytest.mark.parametrize("deterministic", [False, True])
def test_a_deterministic_run_has_its_option_from_the_environment(deterministic, monkeypatch):
  monkeypatch.setenv("XLA_FLAGS", "--xla_other=1")
  expected = {"XLA_FLAGS": "--xla_other=1 --xla_gpu_deterministic_ops=true"}
  variables = jobs.variables(running.config(deterministic=deterministic))
  assert variables == (expected if deterministic else {})
