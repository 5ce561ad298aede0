"""Tests of bit_jax.determinism."""

import os

import pytest

from bit_jax import determinism, errors


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
  with pytest.raises(errors.UserError, match="needs XLA_FLAGS=--xla_gpu_deterministic_ops=true"):
    determinism.require()
  assert determinism.variables() == {"XLA_FLAGS": after}
  assert os.environ.get("XLA_FLAGS") == before
  monkeypatch.setenv("XLA_FLAGS", after)
  determinism.require()
