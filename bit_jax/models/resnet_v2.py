"""ResNetV2 with weight standardisation and group norm, as BiT uses it.

Parameters have the names of the released checkpoints (see `architectures`); `ops` has the fast
computation of each piece.

Source: google-research/big_transfer, `bit_pytorch/models.py` and `bit_jax/models.py`; paper 2.1.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import flax.traverse_util
import jax
import jax.numpy as jnp
import jax.typing
import numpy as np

from bit_jax.models import architectures, ops

_STD_CONV = "standardized_conv2d"  # the scope of standardised kernels in the checkpoints


def standardize_params(params: Any, dtype: jax.typing.DTypeLike = np.float32) -> dict[str, Any]:
  """Returns variables that compute the same with every kernel standardised once, ahead of use.

  `ResNetV2.apply(standardize_params(params), images)` equals `apply({"params": params}, images)`:
  for evaluation, and for several passes forward and backward with the same weights.

  Args:
    params: Parameter tree of `ResNetV2`, float32.
    dtype: Type of the standardised kernels.

  Returns:
    'standardized': the kernels of all `StdConv`; 'params': all other parameters, unchanged.
  """
  variables: dict[str, dict[Any, Any]] = {"standardized": {}, "params": {}}
  for path, array in flax.traverse_util.flatten_dict(params).items():
    if _STD_CONV in path:
      variables["standardized"][path] = ops.standardize(array).astype(dtype)
    else:
      variables["params"][path] = array
  return {name: flax.traverse_util.unflatten_dict(part) for name, part in variables.items()}


@dataclasses.dataclass(frozen=True)
class Compute:
  """How a network is computed.

  Attributes:
    dtype: Type of convolutions, float32 or bfloat16.
    platform: 'cpu', 'gpu' or 'tpu', of the devices that the program is for: convolutions take the
      form that is fastest there.
  """

  dtype: np.dtype[Any]
  platform: str


class StdConv(nn.Module):
  """Convolution without bias whose kernel is standardised, unless it already is.

  A variable 'kernel' of the collection 'standardized' takes the place of the parameter (see
  `standardize_params`).

  Attributes:
    features: Output channels.
    size: Side of the square kernel; the input is zero-padded by `size // 2` on each side.
    stride: Step in both directions.
    compute: How it is computed; the kernel stays float32.
  """

  features: int
  size: int
  stride: int
  compute: Compute

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Maps [B, H, W, C] to [B, ceil(H / stride), ceil(W / stride), features]."""
    dtype = self.compute.dtype
    if self.has_variable("standardized", "kernel"):
      kernel: jax.Array = self.get_variable("standardized", "kernel")
    else:
      shape = (self.size, self.size, x.shape[-1], self.features)
      kernel = _parameter(self, "kernel", nn.initializers.lecun_normal(), shape)
      kernel = ops.standardize(kernel)
    platform = self.compute.platform
    y: jax.Array = ops.convolve(x.astype(dtype), kernel.astype(dtype), self.stride, platform)
    return y


class GroupNormRelu(nn.Module):
  """Group norm over 32 groups, and ReLU; see `ops.group_norm_relu`.

  Attributes:
    compute: How it is computed.
  """

  compute: Compute

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Maps [B, H, W, C] to the same shape, of the dtype of `compute`, non-negative."""
    channels = x.shape[-1]
    gamma = _parameter(self, "gamma", nn.initializers.ones, (channels,))
    beta = _parameter(self, "beta", nn.initializers.zeros, (channels,))
    platform = self.compute.platform
    # Not flat on TPU, whose compiler would transpose activations to make them so.
    places = x if platform == "tpu" else x.reshape(x.shape[0], -1, channels)
    y: jax.Array = ops.group_norm_relu(places, gamma, beta, platform)
    return y.reshape(x.shape).astype(self.compute.dtype)


def _parameter(
  module: nn.Module, name: str, init: Callable[..., Any], shape: tuple[int, ...]
) -> jax.Array:
  """Returns a float32 parameter of the module.

  flax's `param` traces the initialiser at every use to compare shapes: a fifth of all tracing.
  """
  if module.has_variable("params", name):
    parameter: jax.Array = module.get_variable("params", name)
  else:
    parameter = module.param(name, init, shape, jnp.float32)
  return parameter


class NormConv(nn.Module):
  """Group norm, ReLU and convolution; optionally a second convolution as the unit's shortcut.

  Attributes:
    features: Output channels.
    size: Side of the kernel.
    stride: Step of the convolution.
    compute: How it is computed.
    projection: (features, stride) of the 1x1 projection of the activations, or None.
  """

  features: int
  size: int
  stride: int
  compute: Compute
  projection: tuple[int, int] | None = None

  @nn.compact
  def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns the convolved activations of `x` and the shortcut: their projection, or `x`."""
    y = GroupNormRelu(self.compute, name="group_norm")(x)
    shortcut = x
    if self.projection:
      features, stride = self.projection
      shortcut = Projection(features, stride, self.compute, name="proj")(y)
    conv = StdConv(self.features, self.size, self.stride, self.compute, name=_STD_CONV)
    return conv(y), shortcut


class Projection(nn.Module):
  """The 1x1 convolution of a block's first unit, in a scope of its own as in the checkpoints."""

  features: int
  stride: int
  compute: Compute

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Maps [B, H, W, C] to [B, ceil(H / stride), ceil(W / stride), features]."""
    return StdConv(self.features, 1, self.stride, self.compute, name=_STD_CONV)(x)


class BottleneckUnit(nn.Module):
  """Pre-activation bottleneck; the stride is that of the 3x3 convolution.

  Attributes:
    features: Channels inside; the output has four times as many.
    stride: The unit's stride.
    project: Whether the shortcut is a projection (in a block's first unit).
    compute: How it is computed.
  """

  features: int
  stride: int
  project: bool
  compute: Compute

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Maps [B, H, W, C] to [B, ceil(H / stride), ceil(W / stride), 4 * features]."""
    out = 4 * self.features
    projection = (out, self.stride) if self.project else None
    y, shortcut = NormConv(self.features, 1, 1, self.compute, projection, name="a")(x)
    y, _ = NormConv(self.features, 3, self.stride, self.compute, name="b")(y)
    y, _ = NormConv(out, 1, 1, self.compute, name="c")(y)
    return shortcut + y


class RootBlock(nn.Module):
  """The stem: 7x7 convolution with stride 2 and max-pool, without norm or ReLU."""

  features: int
  compute: Compute

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Maps [B, H, W, 3] to about [B, H / 4, W / 4, features]."""
    x = StdConv(self.features, 7, 2, self.compute, name=_STD_CONV)(x)
    return ops.max_pool_zero_padded(x, self.compute.platform)


class Block(nn.Module):
  """A stage of bottleneck units; the first one projects and has the stride."""

  depth: int
  features: int
  stride: int
  compute: Compute
  remat: bool

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Maps [B, H, W, C] to [B, ceil(H / stride), ceil(W / stride), 4 * features]."""
    unit = nn.remat(BottleneckUnit) if self.remat else BottleneckUnit
    for u in range(self.depth):
      stride = self.stride if u == 0 else 1
      x = unit(self.features, stride, u == 0, self.compute, name=f"unit{u + 1:02d}")(x)
    return x


class Head(nn.Module):
  """The linear classifier, a 1x1 convolution in the checkpoints."""

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
    return ops.product(x, kernel[0, 0]) + bias


class ResNetV2(nn.Module):
  """A BiT network.

  Attributes:
    architecture: Depths and width.
    num_classes: Outputs of the head.
    dtype: Type of convolutions, float32 or bfloat16; parameters, norm statistics, the global
      mean and the head are float32 in either case.
    remat: Keep only the input of each unit for the backward pass, and recompute the rest: a
      fraction of the memory for about a third more computation.
    platform: 'cpu', 'gpu' or 'tpu', of the devices that the program is for: pieces take the form
      that is fastest there. Results agree up to rounding.
  """

  architecture: architectures.Architecture
  num_classes: int
  dtype: np.dtype[Any] = np.dtype("float32")
  remat: bool = False
  platform: str = "cpu"

  @nn.compact
  def __call__(self, images: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Classifies images.

    Args:
      images: [B, H, W, 3] float32 in [-1, 1].

    Returns:
      Logits [B, num_classes] float32, and the named intermediates: 'root' and 'block1' to 'block4'
      (each stage's output, [B, H', W', C] of `dtype`) and 'pre_logits' [B, C] float32.
    """
    compute = Compute(self.dtype, self.platform)
    channels = self.architecture.stem_channels
    stages = {}
    x = stages["root"] = RootBlock(channels, compute, name="root_block")(images)
    for b, depth in enumerate(self.architecture.depths):
      name = f"block{b + 1}"
      stride = 1 if b == 0 else 2
      x = Block(depth, channels * 2**b, stride, compute, self.remat, name=name)(x)
      stages[name] = x
    x = GroupNormRelu(compute, name="group_norm")(x)
    pre_logits = x.astype(jnp.float32).mean((1, 2))
    return Head(self.num_classes, name="head")(pre_logits), {**stages, "pre_logits": pre_logits}


def create(
  model: str, num_classes: int, dtype: jax.typing.DTypeLike = np.float32, platform: str = "cpu"
) -> ResNetV2:
  """Returns the network of a model name such as 'BiT-M-R50x1' or 'R14x0.5'.

  Raises:
    UserError: The model is unknown.
  """
  return ResNetV2(architectures.find(model), num_classes, jnp.dtype(dtype), platform=platform)
