"""Tests of experiments.benchmarks.roofline, and of the operations it counts."""

import jax
import jax.numpy as jnp
import pytest

from bit_jax.models import architectures, resnet_v2
from experiments.benchmarks import (
  comparison,
  roofline,
)


def test_operations_counted_by_hand():
  expected = 32**2 * 49 * 3 * 64  # the stem at 64 pixels, then the pool: 16
  expected += 16**2 * (64 * 256 + 64 * 64 + 9 * 64 * 64 + 64 * 256)
  expected += 16**2 * 256 * 128 + 8**2 * (256 * 512 + 9 * 128 * 128 + 128 * 512)
  expected += 8**2 * 512 * 256 + 4**2 * (512 * 1024 + 9 * 256 * 256 + 256 * 1024)
  expected += 4**2 * 1024 * 512 + 2**2 * (1024 * 2048 + 9 * 512 * 512 + 512 * 2048)
  expected += 2048 * 10
  assert architectures.forward_flops(architectures.find("R14x1"), 10, 64) == 2 * expected
  case = comparison.Case("R14x1", 64, 5)
  assert case.flops("training") == 6 * expected


@pytest.mark.parametrize("size", [224, 225])
def test_operations_counted_by_the_compiler(size):
  model = resnet_v2.create("R14x1", 10)
  images = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
  variables = jax.eval_shape(model.init, jax.random.key(0), images)
  counted = jax.jit(model.apply).lower(variables, images).cost_analysis()["flops"]
  ours = architectures.forward_flops(architectures.find("R14x1"), 10, size)
  assert ours == pytest.approx(counted, rel=0.05)  # it leaves out padding, and counts norms


def test_known_counts():
  """4.1 billion multiply-adds, as published for ResNet-50 with the stride on its 3x3."""
  assert architectures.forward_flops(architectures.find("R50x1"), 1000, 224) / 2e9 == pytest.approx(
    4.1, abs=0.05
  )


def test_roofline_of_one_unit_by_hand():
  """The only unit of R14x1's first block at 64 pixels: 16 x 16 places, 64 channels in, 256 out."""
  parts = roofline.operations(architectures.find("R14x1"), 64, 1, training=True)
  moved = {o.name: o.bytes for o in parts if "block1/" in o.name}
  thin, wide = 2 * 16**2 * 64, 2 * 16**2 * 256  # bytes of a tensor in bfloat16
  kernel = "block1/unit01/{}/standardized_conv2d/kernel".format
  for part, sum_of_ends in (("a/proj", thin + wide), ("a", 2 * thin), ("c", thin + wide)):
    for operation in ("forward", "kernel gradient", "input gradient"):
      assert moved[f"{kernel(part)} {operation}"] == sum_of_ends
  assert moved[f"around {kernel('a/proj')}"] == thin  # its gradient joins that of a
  assert moved[f"around {kernel('a')}"] == 2 * thin + 5 * thin  # statistics came with the pool
  assert moved[f"around {kernel('b')}"] == 3 * thin + 5 * thin
  assert moved[f"around {kernel('c')}"] == 3 * thin + 5 * thin + 3 * wide  # and the sum


def test_roofline_of_the_stem_and_the_end_by_hand():
  parts = roofline.operations(architectures.find("R14x1"), 64, 4, training=True)
  moved = {o.name: o.bytes for o in parts}
  stem = 2 * 32**2 * 64
  assert moved["around root_block/standardized_conv2d/kernel"] == 3 * stem + 2 * stem / 4
  assert "root_block/standardized_conv2d/kernel input gradient" not in moved
  assert moved["last norm"] == 4 * 2 * 2**2 * 2048
  count = architectures.num_parameters(architectures.find("R14x1"), 10)
  assert moved["parameters"] == 50 * count / 4


def test_a_roofline_has_two_limits():
  a = architectures.find("R50x1")
  flops = architectures.forward_flops(a, 10, 128) - 2 * 2048 * 10  # the head isn't among them
  computes = roofline.Accelerator(1e12, 1e30, "")
  classified = roofline.operations(a, 128, 8, training=False)
  assert computes.images_per_second(classified) == pytest.approx(1e12 / flops)
  moves = roofline.Accelerator(1e30, 1e12, "")
  parts = list(roofline.operations(a, 128, 8, training=True))
  assert moves.images_per_second(parts) == pytest.approx(1e12 / sum(o.bytes for o in parts))
  both = roofline.ACCELERATORS["H200"]
  assert roofline.find(["NVIDIA T4", "NVIDIA H200"]) is both
  assert roofline.find(["NVIDIA T4"]) is None
