"""The fast forms of the network's pieces: values and gradients against plain ones."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bit_jax.models import ops, resnet_v2

PLATFORMS = ["cpu", "gpu", "tpu"]  # whose forms differ; all of them run anywhere
CONV_SIZES = [(7, 2, 3), (7, 2, 4), (3, 2, 6), (3, 1, 6), (1, 1, 6), (1, 2, 6)]


def normal(seed, *shape, mean=0.0):
  return np.random.default_rng(seed).normal(mean, 1, shape).astype(np.float32)


def windows(x):
  """Yields (i, j, [B, 9, C]) of the 3x3 windows with stride 2 over [B, H, W, C], zero-padded."""
  padded = np.pad(x, [(0, 0), (1, 1), (1, 1), (0, 0)])
  for i in range((x.shape[1] + 1) // 2):
    for j in range((x.shape[2] + 1) // 2):
      window = padded[:, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3]
      yield i, j, window.reshape(len(x), 9, -1)


@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize("size", [(8, 8), (7, 7), (5, 8), (1, 1), (2, 3)])
def test_max_pool_pads_with_zeros(size, platform):
  x = normal(0, 2, *size, 3, mean=-1.0)
  out = ops.max_pool_zero_padded(jnp.asarray(x), platform)
  assert out.shape == (2, (size[0] + 1) // 2, (size[1] + 1) // 2, 3)
  for i, j, window in windows(x):
    np.testing.assert_array_equal(out[:, i, j], window.max(1))
  negative = -jnp.ones((1, 3, 3, 1))
  assert np.all(ops.max_pool_zero_padded(negative, platform) == 0)  # every window has an edge


@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize("size", [(6, 6), (5, 8)])
def test_max_pool_sends_the_gradient_to_the_first_of_ties(size, platform):
  x = np.random.default_rng(1).integers(-1, 2, (2, *size, 3)).astype(np.float32)
  out, pullback = jax.vjp(lambda x: ops.max_pool_zero_padded(x, platform), jnp.asarray(x))
  weights = normal(2, *out.shape)
  expected = np.zeros((2, size[0] + 2, size[1] + 2, 3))  # of the padded input
  for i, j, window in windows(x):
    for b in range(2):
      for c in range(3):
        row, column = divmod(int(window[b, :, c].argmax()), 3)  # numpy's is the first, too
        expected[b, 2 * i + row, 2 * j + column, c] += weights[b, i, j, c]
  (gradient,) = pullback(jnp.asarray(weights))
  np.testing.assert_allclose(gradient, expected[:, 1:-1, 1:-1], rtol=1e-6, atol=1e-6)


def test_standardize():
  kernel = normal(3, 3, 3, 8, 5, mean=2.0)
  out = np.asarray(ops.standardize(jnp.asarray(kernel)))
  x = kernel.astype(np.float64)
  mean, variance = x.mean((0, 1, 2)), x.var((0, 1, 2))
  np.testing.assert_allclose(out, (x - mean) / np.sqrt(variance + 1e-10), rtol=1e-5, atol=1e-5)
  np.testing.assert_allclose(out.mean((0, 1, 2)), 0, atol=1e-6)
  np.testing.assert_allclose(out.var((0, 1, 2)), 1, rtol=1e-5)


def test_standardize_has_its_epsilon_inside_the_root():
  kernel = 1e-5 * normal(4, 1, 1, 64, 2)
  x = kernel.astype(np.float64)
  expected = (x - x.mean((0, 1, 2))) / np.sqrt(x.var((0, 1, 2)) + 1e-10)
  np.testing.assert_allclose(ops.standardize(jnp.asarray(kernel)), expected, rtol=1e-4, atol=1e-5)
  assert np.all(ops.standardize(jnp.ones((3, 3, 4, 2))) == 0)


def group_norm(x, gamma, beta):
  """Group norm over 32 groups, in float64."""
  batch, height, width, channels = x.shape
  groups = x.astype(np.float64).reshape(batch, height * width, 32, channels // 32)
  mean = groups.mean((1, 3), keepdims=True)
  variance = groups.var((1, 3), keepdims=True)
  return ((groups - mean) / np.sqrt(variance + 1e-5)).reshape(x.shape) * gamma + beta


@pytest.mark.parametrize(
  ("mean", "scale", "tolerance"),
  [(0.0, 1.0, 1e-5), (300.0, 1.0, 1e-3), (0.0, 1e-3, 1e-5)],  # an offset, and a small variance
)
@pytest.mark.parametrize("channels", [32, 96])
@pytest.mark.parametrize("platform", PLATFORMS)
def test_group_norm(mean, scale, tolerance, channels, platform):
  x = scale * normal(5, 2, 5, 7, channels, mean=mean)
  gamma, beta = normal(6, channels), normal(7, channels)
  out = norm_relu("float32", platform).apply({"params": {"gamma": gamma, "beta": beta}}, x)
  assert out.dtype == jnp.float32
  expected = np.maximum(group_norm(x, gamma, beta), 0)
  np.testing.assert_allclose(out, expected, rtol=tolerance, atol=tolerance)


def norm_relu(dtype, platform):
  return resnet_v2.GroupNormRelu(resnet_v2.Compute(jnp.dtype(dtype), platform))


def plain_norm_relu(x, gamma, beta):
  """What the layer computes, written so that autodiff gives its gradient."""
  groups = x.reshape(x.shape[0], -1, 32, x.shape[-1] // 32)
  mean = groups.mean((1, 3), keepdims=True)
  variance = jnp.square(groups - mean).mean((1, 3), keepdims=True)
  normalized = ((groups - mean) / jnp.sqrt(variance + 1e-5)).reshape(x.shape)
  return jnp.maximum(normalized * gamma + beta, 0)


@pytest.mark.parametrize("channels", [32, 96])
@pytest.mark.parametrize("mean", [0.0, 3.0])
@pytest.mark.parametrize("platform", PLATFORMS)
def test_gradients_of_norm_and_relu(channels, mean, platform):
  x, weights = normal(10, 2, 5, 7, channels, mean=mean), normal(11, 2, 5, 7, channels)
  gamma, beta = normal(12, channels), normal(13, channels)

  def layer(x, gamma, beta):
    variables = {"params": {"gamma": gamma, "beta": beta}}
    return norm_relu("float32", platform).apply(variables, x)

  found, expected = (
    jax.grad(lambda *a, f=f: jnp.sum(f(*a) * weights), (0, 1, 2))(x, gamma, beta)
    for f in (layer, plain_norm_relu)
  )
  for ours, plain in zip(found, expected, strict=True):
    np.testing.assert_allclose(ours, plain, rtol=1e-4, atol=2e-4)


@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize("mean", [0.0, 20.0, 100.0])  # bfloat16 rounds to 1/16 at 20, 1/2 at 100
def test_norm_of_bfloat16_has_statistics_in_float32(mean, platform):
  x = jnp.asarray(normal(14, 2, 8, 8, 32, mean=mean), jnp.bfloat16)
  ones, zeros = jnp.ones(32), jnp.zeros(32)
  variables = {"params": {"gamma": ones, "beta": zeros}}
  layer = norm_relu("bfloat16", platform)
  out, pullback = jax.vjp(lambda x: layer.apply(variables, x), x)
  assert out.dtype == pullback(out)[0].dtype == jnp.bfloat16
  expected = np.maximum(group_norm(np.asarray(x, np.float64), np.ones(32), np.zeros(32)), 0)
  np.testing.assert_allclose(out.astype(jnp.float32), expected, rtol=2**-8, atol=1e-3)


@pytest.mark.parametrize("shape", [(1, 1, 96, 40), (3, 3, 8, 16)])
def test_gradient_of_standardize(shape):
  kernel, weights = normal(15, *shape, mean=0.5), normal(16, *shape)

  def plain(kernel):
    centred = kernel - kernel.mean((0, 1, 2))
    return centred / jnp.sqrt(jnp.square(centred).mean((0, 1, 2)) + 1e-10)

  ours, expected = (
    jax.grad(lambda k, f=f: jnp.sum(f(k) * weights))(kernel) for f in (ops.standardize, plain)
  )
  np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("size", "stride", "channels"), CONV_SIZES)
@pytest.mark.parametrize("image", [(8, 8), (9, 9), (7, 10), (1, 2)])
@pytest.mark.parametrize("platform", PLATFORMS)
def test_every_form_of_a_convolution_gives_the_same(size, stride, channels, image, platform):
  x, kernel = normal(8, 2, *image, channels), normal(9, size, size, channels, 5)
  expected = jax.lax.conv_general_dilated(
    x,
    kernel,
    (stride, stride),
    [(size // 2, size // 2)] * 2,
    dimension_numbers=("NHWC", "HWIO", "NHWC"),
  )
  out = ops.convolve(jnp.asarray(x), jnp.asarray(kernel), stride, platform)
  assert out.shape == (2, -(-image[0] // stride), -(-image[1] // stride), 5)
  np.testing.assert_allclose(out, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("platform", PLATFORMS)
def test_gradients_of_a_strided_convolution(platform):
  x, kernel = normal(10, 1, 5, 6, 4), normal(11, 3, 3, 4, 3)

  def loss(x, kernel, stride=2):
    return jnp.sum(jnp.square(ops.convolve(x, kernel, stride, platform)))

  def expected(x, kernel):
    full = ops.convolve(x, kernel, 1, platform)  # the strided one is every second of the full one
    return jnp.sum(jnp.square(full[:, ::2, ::2]))

  gradients = jax.grad(loss, (0, 1))(jnp.asarray(x), jnp.asarray(kernel))
  for out, reference in zip(gradients, jax.grad(expected, (0, 1))(x, kernel), strict=True):
    np.testing.assert_allclose(out, reference, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(("inputs", "outputs"), [(4, 7), (7, 4)])  # either may be the narrower
def test_gradients_of_a_1x1_convolution(inputs, outputs, stride, platform):
  x, kernel = normal(20, 2, 5, 6, inputs), normal(21, 1, 1, inputs, outputs)
  weights = normal(22, 2, 5, 6, outputs)[:, ::stride, ::stride]

  def expected(x, kernel):
    return jnp.sum(jnp.einsum("bhwi,io->bhwo", x[:, ::stride, ::stride], kernel[0, 0]) * weights)

  def ours(x, kernel):
    return jnp.sum(ops.convolve(x, kernel, stride, platform) * weights)

  found, plain = (
    jax.grad(f, (0, 1))(jnp.asarray(x), jnp.asarray(kernel)) for f in (ours, expected)
  )
  for out, reference in zip(found, plain, strict=True):
    np.testing.assert_allclose(out, reference, rtol=1e-4, atol=1e-4)
