"""ResNetV2 with weight standardisation and group norm, as BiT uses it.

Parameters carry the names of the released checkpoints (see `architectures`). Run as a command,
`python -m bit_jax.models` prints how many parameters each architecture has.

Source: google-research/big_transfer, `bit_pytorch/models.py` and `bit_jax/models.py`; paper 2.1.
"""

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import flax.traverse_util
import jax
import jax.numpy as jnp

from bit_jax.models import architectures

STANDARDIZE_EPSILON = 1e-10  # added to the variance, inside the square root
GROUP_NORM_EPSILON = 1e-5
_FEW_PLACES = 16  # up to which patches are faster than XLA's convolution on CPU
_STD_CONV = "standardized_conv2d"  # the scope of such kernels in the checkpoints


# Pieces that recur are jitted: each is traced once for a shape, not at each of dozens of uses.


@jax.jit
def standardize(kernel: jax.Array) -> jax.Array:
  """Returns the kernel with zero mean and unit (biased) variance per output channel.

  Args:
    kernel: [H, W, I, O] float32.
  """
  return _standardize(kernel)


@jax.custom_vjp
def _standardize(kernel: jax.Array) -> jax.Array:
  return _standardize_forward(kernel)[0]


def _standardize_forward(kernel: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
  centred = kernel - kernel.mean((0, 1, 2), keepdims=True)
  variance = jnp.square(centred).mean((0, 1, 2), keepdims=True)
  scale = jax.lax.rsqrt(variance + STANDARDIZE_EPSILON)
  standardized = centred * scale
  return standardized, (standardized, scale)


def _standardize_backward(
  saved: tuple[jax.Array, jax.Array], gradient: jax.Array
) -> tuple[jax.Array]:
  """Two reductions, where XLA's CPU backend takes 14 times as long for what autodiff writes."""
  standardized, scale = saved
  mean = gradient.mean((0, 1, 2), keepdims=True)
  along = (gradient * standardized).mean((0, 1, 2), keepdims=True)
  return (scale * (gradient - mean - standardized * along),)


_standardize.defvjp(_standardize_forward, _standardize_backward)


def standardize_params(params: Any, dtype: Any = jnp.float32) -> dict[str, Any]:
  """Returns variables that compute the same with every kernel standardised once, ahead of use.

  `ResNetV2.apply(standardize_params(params), images)` equals `apply({"params": params}, images)`:
  for evaluation, and for several passes forward and backward with the same weights.

  Args:
    params: Parameter tree of `ResNetV2`, float32.
    dtype: Of the standardised kernels.

  Returns:
    'standardized': the kernels of all `StdConv`; 'params': all other parameters, as they are.
  """
  flat = flax.traverse_util.flatten_dict(params)
  kernels = {
    path: standardize(kernel).astype(dtype) for path, kernel in flat.items() if _STD_CONV in path
  }
  others = {path: array for path, array in flat.items() if path not in kernels}
  return {
    "standardized": flax.traverse_util.unflatten_dict(kernels),
    "params": flax.traverse_util.unflatten_dict(others),
  }


def _parameter(
  module: nn.Module, name: str, init: Callable[..., jax.Array], shape: tuple[int, ...]
) -> jax.Array:
  """Returns a float32 parameter of the module.

  At every use flax's `param` traces the initialiser to compare shapes: a fifth of all tracing.
  """
  if module.has_variable("params", name):
    return module.get_variable("params", name)
  return module.param(name, init, shape, jnp.float32)


class StdConv(nn.Module):
  """Convolution without bias whose kernel is standardised, unless that was done already.

  The variable 'kernel' of the collection 'standardized', where there is one, takes the place of the
  parameter (see `standardize_params`).

  Attributes:
    features: Output channels.
    size: Side of the square kernel; the input is zero-padded by `size // 2` on each side.
    stride: Step in both directions.
    dtype: What the convolution computes in; the kernel stays float32.
  """

  features: int
  size: int
  stride: int
  dtype: Any

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Maps [B, H, W, C] to [B, ceil(H / stride), ceil(W / stride), features] of `dtype`."""
    if self.has_variable("standardized", "kernel"):
      kernel: jax.Array = self.get_variable("standardized", "kernel")
    else:
      shape = (self.size, self.size, x.shape[-1], self.features)
      kernel = _parameter(self, "kernel", nn.initializers.lecun_normal(), shape)
      kernel = standardize(kernel)
    return _convolve(x.astype(self.dtype), kernel.astype(self.dtype), self.stride)


@functools.partial(jax.jit, static_argnums=2)
def _convolve(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
  """Convolves [B, H, W, I] with [S, S, I, O], zero-padded by S // 2, in the form that is fastest.

  On two CPU cores (jax 0.10.2), against XLA's convolution: a 1x1 is up to twice as fast as a matrix
  product; a 3x3 with stride 2 over patches is 1.3 to 10 times as fast, gradients included, and one
  over 4x4 places 1.3 to 2.5 times; the stem of a half-width network is 5 times as fast with a
  fourth, empty input channel.
  """
  size = kernel.shape[0]
  if size == 1:
    return _product(x[:, ::stride, ::stride], kernel[0, 0])
  few = x.shape[1] * x.shape[2] <= _FEW_PLACES
  if size == 3 and (stride == 2 or few) and jax.default_backend() == "cpu":
    return _product(_patches(x, size, stride), kernel.reshape(-1, kernel.shape[-1]))
  if x.shape[-1] == 3:
    x = jnp.pad(x, [(0, 0)] * 3 + [(0, 1)])
    kernel = jnp.pad(kernel, [(0, 0), (0, 0), (0, 1), (0, 0)])
  padding = (size // 2, size // 2)
  return jax.lax.conv_general_dilated(
    x,
    kernel,
    (stride, stride),
    (padding, padding),
    dimension_numbers=("NHWC", "HWIO", "NHWC"),
    precision=_precision(x),
  )


@jax.custom_vjp
def _product(x: jax.Array, kernel: jax.Array) -> jax.Array:
  """Multiplies [..., I] by [I, O]."""
  return jnp.matmul(x, kernel, precision=_precision(x))


def _product_forward(
  x: jax.Array, kernel: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
  return _product(x, kernel), (x, kernel)


def _product_backward(
  saved: tuple[jax.Array, jax.Array], gradient: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """Has XLA transpose the narrower factor of the kernel's gradient: it transposes the first."""
  x, kernel = saved
  dx = jnp.matmul(gradient, kernel.T, precision=_precision(x))
  rows, columns = x.reshape(-1, x.shape[-1]), gradient.reshape(-1, gradient.shape[-1])
  if x.shape[-1] <= gradient.shape[-1]:
    return dx, _contract_rows(rows, columns)
  return dx, _contract_rows(columns, rows).T


_product.defvjp(_product_forward, _product_backward)


def _contract_rows(a: jax.Array, b: jax.Array) -> jax.Array:
  """Multiplies [N, I] and [N, J] to [I, J]."""
  return jax.lax.dot_general(a, b, (((0,), (0,)), ((), ())), precision=_precision(a))


def _precision(x: jax.Array) -> jax.lax.Precision | None:
  """Returns the precision at which float32 means float32: accelerators' default is less."""
  return jax.lax.Precision.HIGHEST if x.dtype == jnp.float32 else None


def _patches(x: jax.Array, size: int, stride: int) -> jax.Array:
  """Returns [B, H', W', size * size * C]: what each place of a kernel sees, as channels."""
  height, width = ((n - 1) // stride * stride + 1 for n in x.shape[1:3])
  pad = size // 2
  x = jnp.pad(x, [(0, 0), (pad, pad), (pad, pad), (0, 0)])
  return jnp.concatenate(
    [
      x[:, i : i + height : stride, j : j + width : stride]
      for i in range(size)
      for j in range(size)
    ],
    axis=-1,
  )


class GroupNormRelu(nn.Module):
  """Group norm over 32 groups with two-pass statistics in float32, and ReLU.

  `flax.linen.GroupNorm` is not used: its one-pass variance changes what pre-trained weights
  compute.

  Attributes:
    dtype: Of the output.
  """

  dtype: Any

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Maps [B, H, W, C] to the same shape, of `dtype`, non-negative."""
    channels = x.shape[-1]
    gamma = _parameter(self, "gamma", nn.initializers.ones, (channels,))
    beta = _parameter(self, "beta", nn.initializers.zeros, (channels,))
    y = _jitted_group_norm_relu(x.reshape(x.shape[0], -1, channels), gamma, beta)
    return y.reshape(x.shape).astype(self.dtype)


@jax.custom_vjp
def _group_norm_relu(x: jax.Array, gamma: jax.Array, beta: jax.Array) -> jax.Array:
  """Maps [B, N, C] and two of [C] float32 to [B, N, C], of the dtype of `x`.

  Of the activations, only input and output stay in memory until the backward pass.
  """
  return _group_norm_relu_forward(x, gamma, beta)[0]


def _group_norm_relu_forward(
  x: jax.Array, gamma: jax.Array, beta: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, ...]]:
  wide = x.astype(jnp.float32)
  mean = _group_mean(wide.mean(1))
  centred = wide - mean
  scale = jax.lax.rsqrt(_group_mean(jnp.square(centred).mean(1)) + GROUP_NORM_EPSILON)
  y = nn.relu(centred * (scale * gamma) + beta).astype(x.dtype)
  return y, (x, y, mean, scale, gamma)


def _group_norm_relu_backward(
  saved: tuple[jax.Array, ...], gradient: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
  x, y, mean, scale, gamma = saved
  gradient = jnp.where(y > 0, gradient.astype(jnp.float32), 0)
  normalized = (x.astype(jnp.float32) - mean) * scale
  size = x.shape[1]
  plain, along = gradient.sum(1), (gradient * normalized).sum(1)  # [B, C]
  dx = scale * (
    gradient * gamma
    - _group_mean(plain * gamma / size)
    - normalized * _group_mean(along * gamma / size)
  )
  return dx.astype(x.dtype), along.sum(0), plain.sum(0)


_group_norm_relu.defvjp(_group_norm_relu_forward, _group_norm_relu_backward)
_jitted_group_norm_relu = jax.jit(_group_norm_relu)


def _group_mean(means: jax.Array) -> jax.Array:
  """Averages [B, C] over the channels of each group, repeated to [B, 1, C].

  Of means over places: whole rows of channels vectorise, and shorter sums are more exact.
  """
  batch, channels = means.shape
  size = channels // architectures.NUM_GROUPS
  means = means.reshape(batch, architectures.NUM_GROUPS, size).mean(2)
  return jnp.repeat(means, size, axis=1)[:, None]


def max_pool_zero_padded(x: jax.Array) -> jax.Array:
  """3x3 max-pool with stride 2 over an input padded with zeros: [B, H, W, C] to half the size.

  The stem's output is signed, so the padding's value matters: the official code pads with zeros,
  `flax.linen.max_pool` with minus infinity. Ties send the gradient to the first of the window, as
  PyTorch does. Slices, because XLA's gradient of a window reduction runs on one CPU thread.
  """
  for axis in (2, 1):
    size = (x.shape[axis] - 1) // 2 + 1
    padding = [(0, 0)] * x.ndim
    padding[axis] = (1, 1)
    padded = jnp.pad(x, padding)
    first, second, third = (
      jax.lax.slice_in_dim(padded, i, i + 2 * size - 1, 2, axis) for i in range(3)
    )
    x = jnp.where(first >= second, first, second)
    x = jnp.where(x >= third, x, third)
  return x


class NormConv(nn.Module):
  """Group norm, ReLU and convolution; on request, a second convolution as the unit's shortcut.

  Attributes:
    features: Output channels.
    size: Side of the kernel.
    stride: Step of the convolution.
    projection: (features, stride) of the 1x1 projection of the activations, or None.
    dtype: Compute dtype.
  """

  features: int
  size: int
  stride: int
  dtype: Any
  projection: tuple[int, int] | None = None

  @nn.compact
  def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns the convolved activations of `x` and the shortcut: their projection, or `x`."""
    y = GroupNormRelu(self.dtype, name="group_norm")(x)
    shortcut = x
    if self.projection:
      features, stride = self.projection
      shortcut = Projection(features, stride, self.dtype, name="proj")(y)
    conv = StdConv(self.features, self.size, self.stride, self.dtype, name=_STD_CONV)
    return conv(y), shortcut


class Projection(nn.Module):
  """The 1x1 convolution of a block's first unit, in a scope of its own as in the checkpoints."""

  features: int
  stride: int
  dtype: Any

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Maps [B, H, W, C] to [B, ceil(H / stride), ceil(W / stride), features]."""
    return StdConv(self.features, 1, self.stride, self.dtype, name=_STD_CONV)(x)


class BottleneckUnit(nn.Module):
  """Pre-activation bottleneck; the stride sits on the 3x3 convolution.

  Attributes:
    features: Channels inside; four times as many leave.
    stride: Of the unit.
    project: Whether the shortcut is a projection (in a block's first unit).
    dtype: Compute dtype.
  """

  features: int
  stride: int
  project: bool
  dtype: Any

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Maps [B, H, W, C] to [B, ceil(H / stride), ceil(W / stride), 4 * features]."""
    out = 4 * self.features
    projection = (out, self.stride) if self.project else None
    y, shortcut = NormConv(self.features, 1, 1, self.dtype, projection, name="a")(x)
    y, _ = NormConv(self.features, 3, self.stride, self.dtype, name="b")(y)
    y, _ = NormConv(out, 1, 1, self.dtype, name="c")(y)
    return shortcut + y


class RootBlock(nn.Module):
  """The stem: 7x7 convolution with stride 2 and max-pool, with no norm or ReLU after it."""

  features: int
  dtype: Any

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Maps [B, H, W, 3] to about [B, H / 4, W / 4, features]."""
    x = StdConv(self.features, 7, 2, self.dtype, name=_STD_CONV)(x)
    return max_pool_zero_padded(x)


class Block(nn.Module):
  """A stage of bottleneck units, of which the first projects and carries the stride."""

  depth: int
  features: int
  stride: int
  dtype: Any
  remat: bool = False

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Maps [B, H, W, C] to [B, ceil(H / stride), ceil(W / stride), 4 * features]."""
    unit = nn.remat(BottleneckUnit) if self.remat else BottleneckUnit
    for u in range(self.depth):
      x = unit(
        self.features,
        self.stride if u == 0 else 1,
        u == 0,
        self.dtype,
        name=f"unit{u + 1:02d}",
      )(x)
    return x


class Head(nn.Module):
  """The linear classifier, kept as the 1x1 convolution it is in the checkpoints."""

  num_classes: int

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Maps features [B, C] to logits [B, num_classes], float32."""
    return HeadConv(self.num_classes, name="conv2d")(x)


class HeadConv(nn.Module):
  """Kernel and bias of the head; new heads start at zero."""

  num_classes: int

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Maps features [B, C] to logits [B, num_classes], float32."""
    shape = (1, 1, x.shape[-1], self.num_classes)
    kernel = _parameter(self, "kernel", nn.initializers.zeros, shape)
    bias = _parameter(self, "bias", nn.initializers.zeros, (self.num_classes,))
    return _product(x, kernel[0, 0]) + bias


class ResNetV2(nn.Module):
  """A BiT network.

  Attributes:
    architecture: Depths and width.
    num_classes: Outputs of the head.
    dtype: What convolutions compute in, float32 or bfloat16; parameters, norm statistics, the
      global mean and the head are float32 in either case.
    remat: Keep only what enters each unit for the backward pass, and compute the rest of it again:
      a fraction of the memory for about a third more computation.
  """

  architecture: architectures.Architecture
  num_classes: int
  dtype: Any = jnp.float32
  remat: bool = False

  @nn.compact
  def __call__(self, images: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Classifies images.

    Args:
      images: [B, H, W, 3] float32 in [-1, 1].

    Returns:
      Logits [B, num_classes] float32, and the named intermediates: 'root' and 'block1' to 'block4'
      (each stage's output, [B, H', W', C] of `dtype`) and 'pre_logits' [B, C] float32.
    """
    channels = self.architecture.stem_channels
    stages = {}
    x = stages["root"] = RootBlock(channels, self.dtype, name="root_block")(images)
    for b, depth in enumerate(self.architecture.depths):
      name = f"block{b + 1}"
      stride = 1 if b == 0 else 2
      block = Block(depth, channels * 2**b, stride, self.dtype, self.remat, name=name)
      x = stages[name] = block(x)
    x = GroupNormRelu(self.dtype, name="group_norm")(x)
    pre_logits = x.astype(jnp.float32).mean((1, 2))
    return Head(self.num_classes, name="head")(pre_logits), {**stages, "pre_logits": pre_logits}


def create(model: str, num_classes: int, dtype: Any = jnp.float32) -> ResNetV2:
  """Returns the network of a model name such as 'BiT-M-R50x1' or 'R14x0.5'.

  Raises:
    UserError: There is no such model.
  """
  return ResNetV2(architectures.find(model), num_classes, dtype)
