"""Tests of bit_jax.models.resnet_v2; `test_reference.py` compares with the official code."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from bit_jax.models import __main__, architectures, resnet_v2


def normal(seed, *shape, mean=0.0):
  return np.random.default_rng(seed).normal(mean, 1, shape).astype(np.float32)


@pytest.mark.parametrize("architecture", architectures.ARCHITECTURES.values(), ids=lambda a: a.name)
def test_parameters_are_those_of_the_checkpoints(architecture):
  model = resnet_v2.ResNetV2(architecture, 10)
  images = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
  tree = jax.eval_shape(model.init, jax.random.key(0), images)["params"]
  flat = traverse_util.flatten_dict(tree, sep="/")
  assert {k: v.shape for k, v in flat.items()} == architectures.parameter_shapes(architecture, 10)
  assert {v.dtype for v in flat.values()} == {jnp.dtype(jnp.float32)}


def test_a_new_head_is_zero_and_new_norms_do_nothing():
  model = resnet_v2.create("R14x0.5", 5)
  params = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 32, 32, 3)))["params"]
  for key, value in traverse_util.flatten_dict(params, sep="/").items():
    if key.startswith("head/") or key.endswith("beta"):
      assert not np.any(value), key
    elif key.endswith("gamma"):
      assert np.all(value == 1), key
    else:
      assert np.std(value) > 0, key


def test_kernels_standardised_ahead_compute_the_same():
  model = resnet_v2.create("R14x0.5", 5)
  images = jnp.asarray(normal(17, 2, 32, 32, 3))
  params = jax.jit(model.init)(jax.random.key(0), images)["params"]
  params["head"]["conv2d"]["kernel"] = normal(18, 1, 1, 1024, 5)
  variables = resnet_v2.standardize_params(params)
  sizes = [sum(x.size for x in jax.tree.leaves(t)) for t in (variables, params)]
  assert sizes[0] == sizes[1]
  assert "standardized_conv2d" not in str(jax.tree_util.tree_structure(variables["params"]))
  ahead, stages = model.apply(variables, images)
  each, expected = model.apply({"params": params}, images)
  np.testing.assert_allclose(ahead, each, rtol=1e-5, atol=1e-6)
  np.testing.assert_allclose(stages["block4"], expected["block4"], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
  ("size", "sides"), [((64, 64), (16, 16, 8, 4, 2)), ((97, 97), (25, 25, 13, 7, 4))]
)
def test_intermediates(size, sides):
  model = resnet_v2.create("R14x0.5", 7)
  images = jax.ShapeDtypeStruct((2, *size, 3), jnp.float32)
  variables = jax.eval_shape(model.init, jax.random.key(0), images)
  logits, intermediates = jax.eval_shape(model.apply, variables, images)
  assert (logits.shape, logits.dtype) == ((2, 7), jnp.float32)
  channels = (32, 128, 256, 512, 1024)
  names = ("root", "block1", "block2", "block3", "block4")
  expected = {n: (2, s, s, c) for n, s, c in zip(names, sides, channels, strict=True)}
  assert {k: v.shape for k, v in intermediates.items()} == {**expected, "pre_logits": (2, 1024)}


@pytest.mark.parametrize(
  ("platform", "lowered_for", "convolutions"), [("gpu", "cuda", 5), ("tpu", "tpu", 16)]
)
def test_the_platform_decides_on_the_form_of_convolutions(platform, lowered_for, convolutions):
  """The stem and four 3x3 convolutions; on CPU the three strided ones are products of patches.

  On TPU twelve 1x1 convolutions, two of which are of the same shape, are no products.
  """
  images = jax.ShapeDtypeStruct((2, 64, 64, 3), jnp.float32)
  for described, expected in (("cpu", 2), (platform, convolutions)):
    model = resnet_v2.create("R14x0.5", 10, jnp.bfloat16, described)
    params = jax.eval_shape(model.init, jax.random.key(0), images)
    lowered = jax.jit(model.apply).trace(params, images).lower(lowering_platforms=(lowered_for,))
    assert lowered.as_text().count("stablehlo.convolution") == expected


@pytest.mark.parametrize("platform", ["gpu", "tpu"])
def test_the_forms_of_accelerators_compute_what_that_of_the_cpu_does(platform):
  images, weights = jnp.asarray(normal(19, 2, 64, 72, 3)), normal(20, 2, 5)
  model = resnet_v2.create("R14x0.5", 5)
  params = jax.jit(model.init)(jax.random.key(1), images)["params"]
  params["head"]["conv2d"]["kernel"] = 0.1 * normal(21, 1, 1, 1024, 5)

  def logits_and_gradients(platform):
    network = model.clone(platform=platform)

    def loss(params):
      logits, _ = network.apply({"params": params}, images)
      return jnp.sum(logits * weights), logits

    gradients, logits = jax.jit(jax.grad(loss, has_aux=True))(params)
    return {"logits": logits, **traverse_util.flatten_dict(gradients, sep="/")}

  found, expected = logits_and_gradients(platform), logits_and_gradients("cpu")
  for name, value in expected.items():
    largest = np.abs(value).max()
    assert largest > 0, name
    np.testing.assert_allclose(found[name], value, rtol=0, atol=1e-3 * largest, err_msg=name)


@pytest.mark.slow
def test_bfloat16_computes_close_to_float32():
  images = np.random.default_rng(12).uniform(-1, 1, (2, 48, 48, 3)).astype(np.float32)
  exact = resnet_v2.create("R14x0.5", 10)
  params = jax.jit(exact.init)(jax.random.key(1), images)["params"]
  params["head"]["conv2d"]["kernel"] = 0.03 * normal(13, 1, 1, 1024, 10)
  half = resnet_v2.create("R14x0.5", 10, jnp.bfloat16)
  shapes = jax.eval_shape(half.init, jax.random.key(1), images)["params"]
  assert {leaf.dtype for leaf in jax.tree.leaves(shapes)} == {jnp.dtype(jnp.float32)}

  reference, _ = jax.jit(exact.apply)({"params": params}, images)
  logits, intermediates = jax.jit(half.apply)({"params": params}, images)
  assert logits.dtype == intermediates["pre_logits"].dtype == jnp.float32
  assert intermediates["block4"].dtype == jnp.bfloat16
  # bfloat16 keeps 8 bits, 0.4 % a rounding, and dozens follow each other: 1.4 to 4.4 % by seed.
  error = np.linalg.norm(logits - reference) / np.linalg.norm(reference)
  assert 1e-5 < error < 0.06


def test_the_command_prints_the_parameter_counts(capsys):
  __main__.main(["models"])
  lines = {line.split()[0]: line.split() for line in capsys.readouterr().out.splitlines()}
  assert lines.keys() == {"architecture", *architectures.ARCHITECTURES}
  assert "23.5" in lines["R50x1"]
  assert "928.3" in lines["R152x4"]
  with pytest.raises(SystemExit):
    __main__.main(["models", "R50x1"])
  assert "unrecognized arguments: R50x1" in capsys.readouterr().err


def test_importing_the_network_imports_little_else(printed_by):
  code = (
    "import sys, bit_jax.models;"
    "print({'tensorflow', 'clu', 'orbax', 'cv2', 'matplotlib'} & set(sys.modules))"
  )
  assert printed_by(code) == "set()\n"
