"""The arithmetic of a step's memory, against shapes, arrays and XLA's own analysis."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bit_jax.inference import footprint
from bit_jax.models import architectures, resnet_v2
from bit_jax.runtime import devices
from bit_jax.training import memory, optimizer, planning, steps

TINY = architectures.Architecture("tiny", (1, 1, 0, 0), 0.5)


def task(
  architecture=TINY, dtype="float32", crop=32, platform="cpu", momentum_dtype="float32"
) -> memory.Task:
  model = resnet_v2.ResNetV2(architecture, 10, jnp.dtype(dtype), platform=platform)
  return memory.Task(model, crop + 8, crop, (36, 36), momentum_dtype)


@pytest.mark.parametrize("momentum_dtype", ["float32", "bfloat16"])
def test_the_state_is_as_large_as_its_arrays(momentum_dtype):
  t = task(momentum_dtype=momentum_dtype)
  shapes = jax.eval_shape(t.model.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
  params = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes["params"])
  state = steps.create_state(params, optimizer.sgd(0.9, momentum_dtype))
  held = sum(x.nbytes for x in jax.tree.leaves(state))
  assert t.state_bytes == pytest.approx(held, rel=0.02)


@pytest.mark.slow
def test_xla_s_analysis_of_a_step_is_below_the_bound():
  t, cpu = task(), devices.describe()
  most = memory.bound(t)
  line = planning.measured(t, cpu)
  assert line.of(8) <= most.of(8)
  large = planning.compiled_bytes(t, 128, cpu)  # twice what the line says
  assert line.of(128) <= 1.1 * large <= 1.1 * most.of(128)
  assert most.of(128) < 3 * large


@pytest.mark.slow
def test_xla_s_analysis_of_a_step_in_bfloat16_is_below_the_bound():
  t = task(dtype="bfloat16")
  assert planning.compiled_bytes(t, 16, devices.describe()) <= memory.bound(t).of(16)


def test_rematerialisation_keeps_less_where_the_compiler_recomputes():
  large = task(architectures.find("R152x4"), "bfloat16", 480, "gpu")
  keeps, recomputes = memory.bound(large), memory.bound(large.with_remat())
  assert recomputes.per_image < 0.7 * keeps.per_image
  assert recomputes.fixed == keeps.fixed
  on_cpu = task()
  assert memory.bound(on_cpu.with_remat()) == memory.bound(on_cpu)


def test_whole_batches_wait_while_their_micro_batches_are_computed():
  """16 images of 36 x 36 are 62,208 bytes."""
  assert memory.waiting_bytes(task(platform="gpu"), 16) == 2 * 62_208
  assert memory.waiting_bytes(task(platform="cpu"), 16) == 5 * 62_208


@pytest.mark.parametrize(
  ("budget", "size"), [(260, 16), (259, 8), (180, 8), (179, 4), (120, 2), (119, None), (0, None)]
)
def test_the_largest_that_fits(budget, size):
  assert footprint.Need(100, 10).largest([2, 4, 8, 16], budget) == size
