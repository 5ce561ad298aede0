"""The arithmetic of a step's memory, against shapes, arrays and XLA's own analysis."""

import csv
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bit_jax import hyperrule
from bit_jax.inference import footprint
from bit_jax.models import architectures, resnet_v2
from bit_jax.runtime import devices
from bit_jax.training import memory, optimizer, planning, steps
from experiments.accelerators import cases, results

# Bytes beside the state of programs with 1,000 classes, by XLA's compilers for GPU and TPU (jax
# 0.10.2), on machines without these devices: see experiments/accelerators.
_COMPILED = pathlib.Path(__file__).with_name("compiled_memory.csv")
PASSES = planning.Program.PASSES
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
def test_what_xla_for_cpu_takes_is_within_the_bounds():
  t, cpu = task(), devices.describe()
  least, most = memory.least(t), memory.bound(t)
  for images in (8, 128):  # of many it takes twice as much for each
    assert least.of(images) <= planning.compiled_bytes(t, PASSES, images, cpu) <= most.of(images)
  assert most.of(128) < 3 * planning.compiled_bytes(t, PASSES, 128, cpu)


@pytest.mark.slow
def test_what_xla_for_cpu_takes_in_bfloat16_is_within_the_bounds():
  t = task(dtype="bfloat16")
  used = planning.compiled_bytes(t, PASSES, 16, devices.describe())
  assert memory.least(t).of(16) <= used <= memory.bound(t).of(16)


def _compiled():
  """Yields (target, model, dtype, remat, pixels, images, bytes beside the state) of programs."""
  for row in csv.DictReader(_COMPILED.read_text().splitlines()):
    figures = (int(row[name]) for name in ("size", "images", "bytes"))
    yield row["target"], row["model"], row["dtype"], bool(row["remat"]), *figures
  for case, row in results.load().items():
    if case.program == cases.TRAINING and "error" not in row:
      figures = case.size, row["images"], row["used"]
      yield case.target, case.model, row["dtype"], row["remat"], *figures


@pytest.mark.parametrize(
  "program", list(_compiled()), ids=lambda program: "-".join(map(str, program))
)
def test_what_xla_for_accelerators_takes_is_within_the_bounds(program):
  """Several processes go by the upper bound: it may cost them one micro-batch size of a half."""
  target, name, dtype, remat, size, images, used = program
  platform = "tpu" if target.startswith("v") else "gpu"
  model = resnet_v2.create(name, 1000, dtype, platform)
  resize = hyperrule.resize_for(size)
  t = memory.Task(model.clone(remat=remat), resize, size, (resize, resize))
  most = memory.bound(t).of(images)
  assert memory.least(t).of(images) <= used <= most
  pads = platform == "tpu" and model.architecture.width < 1  # few channels: in some layouts only
  if not pads and used > memory.end_bytes(t):
    assert most <= 2 * used


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
