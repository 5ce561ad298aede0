"""Tests of bit_jax.runtime.determinism."""

import os
import subprocess

import jax
import pytest

from bit_jax.runtime import determinism, errors


@pytest.mark.parametrize(
  ("before", "after"),
  [
    (None, "--xla_gpu_deterministic_ops=true"),
    ("--xla_other=1", "--xla_other=1 --xla_gpu_deterministic_ops=true"),
  ],
)
def test_the_option_is_added_to_those_that_are_set(before, after, monkeypatch):
  monkeypatch.delenv("XLA_FLAGS", raising=False)
  if before is not None:
    monkeypatch.setenv("XLA_FLAGS", before)
  monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
  with pytest.raises(errors.UserError, match="needs XLA_FLAGS=--xla_gpu_deterministic_ops=true"):
    determinism.require()
  assert determinism.variables() == {"XLA_FLAGS": after}
  assert os.environ.get("XLA_FLAGS") == before
  monkeypatch.setenv("XLA_FLAGS", after)
  determinism.require()


@pytest.mark.parametrize("platform", ["cpu", "tpu"])
def test_other_devices_need_no_option(platform, monkeypatch):
  monkeypatch.delenv("XLA_FLAGS", raising=False)
  monkeypatch.setattr(jax, "default_backend", lambda: platform)
  determinism.require()


@pytest.mark.parametrize(
  ("before", "after"),
  [
    ("unset XLA_FLAGS", "--xla_gpu_deterministic_ops=true"),
    ("export XLA_FLAGS='--a=1 --b=2'", "--a=1 --b=2 --xla_gpu_deterministic_ops=true"),
  ],
)
def test_a_shell_adds_the_option_to_its_own(before, after):
  script = f"set -u\n{before}\n{determinism.command()}\nprintenv XLA_FLAGS"
  told = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True).stdout
  assert told.strip() == after
