"""The sentence on a run that is out of memory, and the setting that it advises to try."""

import pathlib
import types

import jax
import pytest

from bit_jax.runtime import errors
from bit_jax.training import out_of_memory, planning


@pytest.mark.parametrize(
  ("error", "expected"),
  [
    (MemoryError(), True),
    (jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 1 byte"), True),
    (jax.errors.JaxRuntimeError("Out of memory allocating 1 byte"), True),
    (jax.errors.JaxRuntimeError("INTERNAL: it broke"), False),
    (ValueError("Out of memory"), False),
  ],
)
def test_which_errors_mean_out_of_memory(error, expected):
  assert out_of_memory.is_out_of_memory(error) == expected


def test_other_errors_pass():
  with (
    pytest.raises(jax.errors.JaxRuntimeError, match="it broke"),
    out_of_memory.explained("at all"),
  ):
    raise jax.errors.JaxRuntimeError("INTERNAL: it broke")


def test_memory_that_runs_out_after_training_loses_nothing():
  end = out_of_memory.after_training(pathlib.Path("runs/a"))
  with (
    pytest.raises(errors.UserError, match=r"^This machine ran out of memory .* runs/a: free"),
    out_of_memory.explained(end),
  ):
    raise MemoryError


@pytest.mark.parametrize("platform", ["cpu", "gpu"])
def test_the_advice_is_the_setting_that_costs_least_and_is_still_left(platform):
  config = types.SimpleNamespace(microbatch=8, mixup_alpha=0.1, resize=160, crop=128)
  vars(config).update(momentum_dtype="float32", resident_share=0.5)
  given = []
  for microbatch, remat, changes in (
    (8, False, {}),
    (2, False, {}),
    (2, True, {}),
    (2, True, {"momentum_dtype": "bfloat16"}),
    (2, True, {"resident_share": 0}),
  ):
    vars(config).update(changes)
    plan = planning.Plan(microbatch, 8, remat, "")
    given.append(out_of_memory.advice(plan, config, platform))
  assert given[0].startswith("--config.microbatch=4 (now 8 images per device), or 'auto'")
  second = "--config.remat=True" if platform == "gpu" else "--config.momentum_dtype=bfloat16"
  assert given[1].startswith(second)
  assert given[2].startswith("--config.momentum_dtype=bfloat16")
  assert given[3].startswith("--config.resident_share=0 (now 0.5)")
  assert "--config.crop (now 160 and 128)" in given[4]
