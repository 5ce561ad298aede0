"""Settings of JAX don't change the numbers of a run; what may change them is recorded."""

import contextlib
import os
import subprocess

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import running

from bit_jax.data import augmentation
from bit_jax.runtime import errors, numerics
from bit_jax.training import fine_tuning


@contextlib.contextmanager
def seed_offset(value):
  before = jax.config.jax_random_seed_offset
  jax.config.update("jax_random_seed_offset", value)
  yield
  jax.config.update("jax_random_seed_offset", before)


DRAWS = {  # settings that change the random numbers
  "x64": lambda: jax.enable_x64(True),
  "prng_impl": lambda: jax.default_prng_impl("rbg"),
  "partitionable": lambda: jax.threefry_partitionable(False),
  "seed_offset": lambda: seed_offset(3),
}
OTHERS = {
  "precision": lambda: jax.default_matmul_precision("bfloat16"),
  "dtype_promotion": lambda: jax.numpy_dtype_promotion("strict"),
  "rank_promotion": lambda: jax.numpy_rank_promotion("raise"),
  "f16_reductions": lambda: jax.allow_f16_reductions(False),
  "disable_jit": lambda: jax.disable_jit(),
}


def program():
  """Returns what is compiled of a step's random numbers, and of operations on mixed types."""

  def step(positions):
    keys = augmentation.example_keys(jax.random.key(7), jnp.int32(2), positions)
    draws = jax.vmap(augmentation._sample, (0, None))(keys, 5)
    mixed = (np.arange(3) / 2 + jnp.ones((2, 1), jnp.bfloat16)).sum() + positions
    return draws, mixed, positions.astype(jnp.bfloat16).sum(), jnp.ones((2, 3)) @ jnp.ones(3)

  return jax.jit(step).lower(np.arange(8, dtype=np.int32)).as_text()


@pytest.fixture(scope="module")
def undisturbed():
  return program()


@pytest.mark.parametrize("name", [*DRAWS, *OTHERS])
def test_the_same_is_computed_whatever_the_caller_set(name, undisturbed):
  with {**DRAWS, **OTHERS}[name]():
    before = dict(jax.config.values)
    with numerics.fixed():
      assert numerics.ignored() is None
      assert program() == undisturbed
    assert jax.config.values == before  # the caller's
    assert numerics.ignored() is not None
    if name in DRAWS:
      assert program() != undisturbed


@numerics.fixed()
def fails():
  raise KeyError


def test_settings_are_given_back_after_an_error():
  with jax.enable_x64(True), seed_offset(3):
    with pytest.raises(KeyError):
      fails()
    assert (jax.config.jax_enable_x64, jax.config.jax_random_seed_offset) == (True, 3)


def test_a_run_ignores_the_settings_and_says_so_in_one_line(tmp_path, monkeypatch, capsys):
  seen = []
  monkeypatch.setattr(fine_tuning, "_train", lambda *_: seen.append(dict(jax.config.values)) or {})
  monkeypatch.setenv("JAX_ENABLE_X64", "1")  # as JAX read it when it was imported
  with jax.enable_x64(True), seed_offset(3):
    running.train(tmp_path)
    assert (jax.config.jax_enable_x64, jax.config.jax_random_seed_offset) == (True, 3)
  assert [(s["jax_enable_x64"], s["jax_random_seed_offset"]) for s in seen] == [(False, 0)]
  assert capsys.readouterr().out == (
    "warning: these settings of JAX would change results and are ignored: "
    "JAX_ENABLE_X64=True (used: False), jax_random_seed_offset=3 (used: 0).\n"
  )
  running.train(tmp_path)
  assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
  ("environment", "recorded"),
  [
    ({}, {}),
    ({"XLA_FLAGS": " "}, {}),
    ({"XLA_FLAGS": "--xla_dump_to=/x --xla_force_host_platform_device_count=4"}, {}),
    (
      {"XLA_FLAGS": "--xla_b=2 --xla_dump_to=/x --xla_a --xla_b=1"},
      {"XLA_FLAGS": "--xla_a=true --xla_b=1"},
    ),
    ({"LIBTPU_INIT_ARGS": "--xla_c=3"}, {"LIBTPU_INIT_ARGS": "--xla_c=3"}),
    ({"NVIDIA_TF32_OVERRIDE": "0"}, {"NVIDIA_TF32_OVERRIDE": "0"}),
    ({"JAX_OPTIMIZATION_LEVEL": "O1"}, {"JAX_OPTIMIZATION_LEVEL": "O1"}),
    ({"XLA_PYTHON_CLIENT_MEM_FRACTION": ".9", "JAX_PLATFORMS": "cpu", "HOME": "/h"}, {}),
  ],
)
def test_variables_that_may_change_the_rounding_are_recorded(environment, recorded):
  assert numerics.variables(environment) == recorded


def test_flags_in_a_file_are_read(tmp_path):
  file = tmp_path / "flags"
  file.write_text("--xla_a=1\n--xla_dump_to=/x\n")
  assert numerics.variables({"XLA_FLAGS": str(file)}) == {"XLA_FLAGS": "--xla_a=1"}
  assert numerics.variables({"XLA_FLAGS": str(tmp_path / "no")}) != {}


@pytest.mark.parametrize(
  ("before", "after"),
  [
    (None, "--xla_gpu_deterministic_ops=true"),
    ("--xla_other=1", "--xla_other=1 --xla_gpu_deterministic_ops=true"),
  ],
)
def test_the_option_for_determinism_is_added_to_the_flags(before, after, monkeypatch):
  monkeypatch.delenv("XLA_FLAGS", raising=False)
  if before is not None:
    monkeypatch.setenv("XLA_FLAGS", before)
  with pytest.raises(errors.UserError, match="needs XLA_FLAGS=--xla_gpu_deterministic_ops=true"):
    numerics.require_deterministic("gpu")
  assert numerics.deterministic_variables() == {"XLA_FLAGS": after}
  assert os.environ.get("XLA_FLAGS") == before
  monkeypatch.setenv("XLA_FLAGS", after)
  numerics.require_deterministic("gpu")


@pytest.mark.parametrize("platform", ["cpu", "tpu"])
def test_only_gpus_need_the_option(platform, monkeypatch):
  monkeypatch.delenv("XLA_FLAGS", raising=False)
  numerics.require_deterministic(platform)


@pytest.mark.parametrize(
  ("before", "after"),
  [
    ("unset XLA_FLAGS", "--xla_gpu_deterministic_ops=true"),
    ("export XLA_FLAGS='--a=1 --b=2'", "--a=1 --b=2 --xla_gpu_deterministic_ops=true"),
  ],
)
def test_the_shell_command_adds_the_option_to_the_flags(before, after):
  script = f"set -u\n{before}\n{numerics.deterministic_command()}\nprintenv XLA_FLAGS"
  shown = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True).stdout
  assert shown.strip() == after
