"""The memory of a forward pass, against shapes and XLA's own analysis, and batches that fit."""

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

from bit_jax.inference import footprint, programs
from bit_jax.models import architectures, resnet_v2
from bit_jax.runtime import devices, errors, machine

TINY = architectures.Architecture("tiny", (1, 1, 0, 0), 0.5)
ON_CPU = resnet_v2.ResNetV2(TINY, 10)
ON_GPU = ON_CPU.clone(platform="gpu")
SOURCE = (36, 36)
CPU = devices.Description("cpu", "cpu", None, 4, 4)
H100 = devices.Description("gpu", "NVIDIA H100 80GB HBM3", 84_942_979_072, 8, 8)


def batch(model, num_images, budget, hardware):
  return footprint.batch(
    model, 32, SOURCE, wanted=256, num_images=num_images, budget=budget, count=hardware.count
  )


@pytest.mark.parametrize(("name", "crop"), [("R14x0.5", 32), ("R50x1", 97)])
def test_activations_are_those_of_the_network(name, crop):
  model = resnet_v2.create(name, 10)
  found = {"normed": 0, "entering": 0}

  def note(call, arguments, keywords, context):
    size = math.prod(arguments[0].shape)
    if isinstance(context.module, resnet_v2.GroupNormRelu):
      found["normed"] += size
    if isinstance(context.module, resnet_v2.BottleneckUnit):
      found["entering"] += size
    result = call(*arguments, **keywords)
    if context.module.path == ("root_block", "standardized_conv2d"):
      found["stem"] = math.prod(result.shape)
    return result

  image = jax.ShapeDtypeStruct((1, crop, crop, 3), jnp.float32)
  with nn.intercept_methods(note):
    jax.eval_shape(model.init, jax.random.key(0), image)
  counted = footprint.activations(model.architecture, crop)
  assert {name: getattr(counted, name) for name in found} == found


def test_channels_that_are_padded():
  """The 32 channels in units of tiny networks become 128, those of wide ones stay."""
  plain, padded = (footprint.activations(TINY, 32, lanes) for lanes in (1, 128))
  assert padded.units[0].normed == 64 * 3 * 128
  assert padded.last == plain.last
  wide = architectures.find("R152x4")
  assert footprint.activations(wide, 32) == footprint.activations(wide, 32, 128)


def test_the_largest_unit():
  """At 32 pixels block 1 has 8 x 8 places: 96 channels enter convolutions, 320 leave."""
  assert footprint.activations(TINY, 32).largest_unit == 64 * (96 + 320)


@pytest.mark.slow
def test_xla_s_analysis_of_an_evaluation_is_below_the_bound():
  program: Any = programs.eval_function(ON_CPU, 32)
  params = jax.eval_shape(ON_CPU.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))["params"]
  variables = jax.eval_shape(resnet_v2.standardize_params, params)
  rows = (4, 16)
  labels = jax.ShapeDtypeStruct(rows, jnp.int32)
  examples = programs.Examples(jax.ShapeDtypeStruct((*rows, *SOURCE, 3), jnp.uint8), labels)
  mask = jax.ShapeDtypeStruct(rows, jnp.bool_)
  used = program.lower(variables, examples, mask).compile().memory_analysis()
  most = footprint.forward_bound(ON_CPU, 32, SOURCE)
  assert used.temp_size_in_bytes + used.argument_size_in_bytes <= most.of(16)
  assert most.of(16) < 6 * used.temp_size_in_bytes


def test_an_evaluation_batch_fits_in_memory():
  need = footprint.forward_bound(ON_GPU, 32, SOURCE)
  room = need.fixed + 15.5 * need.per_image
  assert batch(ON_GPU, 10_000, 1e12, CPU) == 256
  assert batch(ON_GPU, 10_000, room, CPU) == 8 * 4  # of 15 each, in eights
  assert batch(ON_CPU, 10_000, room, CPU) == 7 * 4  # two programs at once
  assert batch(ON_CPU, 10_000, 0, CPU) == 4
  assert batch(ON_GPU, 10_000, room, H100) == 8 * 8


@pytest.mark.parametrize(
  ("num_images", "expected"), [(1, 4), (4, 4), (5, 8), (16, 16), (17, 32), (200, 256), (300, 256)]
)
def test_a_small_set_is_evaluated_in_one_batch(num_images, expected):
  assert batch(ON_CPU, num_images, 1e12, CPU) == expected


def test_few_channels_are_padded_on_tpu():
  on_gpu, on_tpu = (
    footprint.forward_bound(resnet_v2.create("R50x1", 10, "float32", platform), 480, (480, 480))
    for platform in ("gpu", "tpu")
  )
  # The largest unit has 64 channels beside 256; the stem is not padded.
  assert 1.2 < on_tpu.per_image / on_gpu.per_image < 1.6
  assert on_tpu.fixed == on_gpu.fixed


def test_a_tenth_of_an_accelerator_s_memory_is_left_free():
  assert footprint.budget(H100, 10**9) == pytest.approx(76_448_681_164.8)


def test_cpu_devices_share_the_free_memory_of_the_host(monkeypatch):
  monkeypatch.setattr(machine, "free_memory", lambda: 6000)
  assert footprint.budget(CPU, 5000) == pytest.approx(200)  # 0.8 of it for four
  monkeypatch.setattr(machine, "free_memory", lambda: 10)
  assert footprint.budget(CPU, 5000) == 0


@pytest.mark.parametrize(
  ("error", "where"),
  [
    (MemoryError(), "This machine"),
    (jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 1 byte"), "A device"),
    (jax.errors.JaxRuntimeError("Out of memory allocating 1 byte"), "A device"),
  ],
)
def test_out_of_memory_is_a_sentence(error, where):
  with (
    pytest.raises(errors.UserError, match=f"^{where} ran out of memory at all$"),
    footprint.explained("at all"),
  ):
    raise error


@pytest.mark.parametrize(
  "error", [jax.errors.JaxRuntimeError("INTERNAL: it broke"), ValueError("Out of memory")]
)
def test_other_errors_pass(error):
  with pytest.raises(type(error), match=str(error)), footprint.explained("at all"):
    raise error
