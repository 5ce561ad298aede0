"""Tests of bit_jax.models.architectures."""

import math

import pytest

from bit_jax.models import architectures
from bit_jax.runtime import errors

# Arrays of the released files without their heads, and numbers in them.
BODIES = {
  "R50x1": (151, 23_500_352),
  "R101x1": (304, 42_492_480),
  "R50x3": (151, 211_174_080),
  "R101x3": (304, 381_789_888),
  "R152x2": (457, 232_238_208),
  "R152x4": (457, 928_340_224),
}


@pytest.mark.parametrize("name", BODIES)
def test_number_of_parameters(name):
  a = architectures.find(name)
  count = len(architectures.parameter_shapes(a, None))
  assert (count, architectures.num_parameters(a, None)) == BODIES[name]


def test_the_head_adds_its_weights_and_biases():
  a = architectures.find("R50x1")
  body = architectures.num_parameters(a, None)
  assert architectures.num_parameters(a, 1000) == body + 2048 * 1000 + 1000
  shapes = architectures.parameter_shapes(a, 1000)
  assert list(shapes)[-2:] == ["head/conv2d/kernel", "head/conv2d/bias"]
  assert shapes["head/conv2d/kernel"] == (1, 1, 2048, 1000)


def test_shapes_of_a_few_parameters():
  shapes = architectures.parameter_shapes(architectures.find("R101x3"), None)
  assert shapes["root_block/standardized_conv2d/kernel"] == (7, 7, 3, 192)
  assert shapes["block1/unit01/a/proj/standardized_conv2d/kernel"] == (1, 1, 192, 768)
  assert shapes["block3/unit23/b/standardized_conv2d/kernel"] == (3, 3, 768, 768)
  assert shapes["block4/unit01/a/standardized_conv2d/kernel"] == (1, 1, 3072, 1536)
  assert shapes["block4/unit02/a/group_norm/gamma"] == (6144,)
  assert "block3/unit24/a/group_norm/gamma" not in shapes
  assert "block1/unit02/a/proj/standardized_conv2d/kernel" not in shapes


@pytest.mark.parametrize("architecture", architectures.ARCHITECTURES.values(), ids=lambda a: a.name)
def test_every_unit_has_three_convolutions_and_norms(architecture):
  shapes = architectures.parameter_shapes(architecture, 10)
  units = sum(architecture.depths)
  kernels = [s for k, s in shapes.items() if k.endswith("standardized_conv2d/kernel")]
  assert len(kernels) == 1 + 3 * units + 4  # the stem, the units, and a projection a block
  assert sum(k.endswith("gamma") for k in shapes) == 3 * units + 1
  assert sum(math.prod(s) for s in shapes.values()) == architectures.num_parameters(
    architecture, 10
  )
  assert architecture.num_features == 2048 * architecture.width


@pytest.mark.parametrize("model", ["R50x1", "BiT-S-R50x1", "BiT-M-R50x1"])
def test_names_of_one_network(model):
  assert architectures.find(model) is architectures.ARCHITECTURES["R50x1"]


def test_every_listed_name_is_found():
  assert len(architectures.MODEL_NAMES) == len(architectures.SMALL) + 2 * 6
  for model in architectures.MODEL_NAMES:
    assert model.endswith(architectures.find(model).name)


def test_bit_l_was_never_released():
  with pytest.raises(errors.UserError, match=r"BiT-L-R50x1 was never released.*BiT-M-R152x4"):
    architectures.find("BiT-L-R50x1")


@pytest.mark.parametrize(
  "model", ["", "R50", "R50x2", "r50x1", "BiT-M", "BiT-M-R14x0.5", "BiT-X-R50x1", "R50x1 "]
)
def test_unknown_models(model):
  with pytest.raises(errors.UserError) as e:
    architectures.find(model)
  assert f"Unknown model {model!r}" in str(e.value)
  assert all(name in str(e.value) for name in architectures.MODEL_NAMES)
