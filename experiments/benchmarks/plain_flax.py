"""BiT's network as one would write it in Flax in an hour: correct, and not tuned.

`bit_jax` is measured against it, above all where PyTorch isn't installed. It uses the obvious parts
of the library, and standardises weights on each use. `from_checkpoint` takes official names, so
that both compute the same.
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.training import train_state

_NAMES = {"gamma": "scale", "beta": "bias"}  # of a checkpoint: of flax.linen.GroupNorm


class StdConv(nn.Conv):
  """A convolution that standardises its kernel on each use."""

  def param(self, name: str, *args: Any, **kwargs: Any) -> Any:
    """Returns the parameter as `flax.linen.Conv` uses it."""
    value = super().param(name, *args, **kwargs)
    if name != "kernel":
      return value
    mean, variance = jnp.mean(value, (0, 1, 2)), jnp.var(value, (0, 1, 2))
    return (value - mean) / jnp.sqrt(variance + 1e-10)


class Unit(nn.Module):
  """Pre-activation bottleneck.

  Attributes:
    features: Channels inside.
    stride: Stride of the 3x3 convolution.
    project: Whether the shortcut is a 1x1 convolution.
    dtype: Type of the computation.
  """

  features: int
  stride: int
  project: bool
  dtype: Any

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Maps [B, H, W, C] to [B, H / stride, W / stride, 4 * features]."""
    features, dtype, stride = self.features, self.dtype, self.stride
    shortcut = x
    y = nn.relu(_norm(dtype, "a/group_norm")(x))
    if self.project:
      shortcut = _conv(4 * features, 1, stride, dtype, "a/proj/standardized_conv2d")(y)
    y = _conv(features, 1, 1, dtype, "a/standardized_conv2d")(y)
    y = nn.relu(_norm(dtype, "b/group_norm")(y))
    y = _conv(features, 3, stride, dtype, "b/standardized_conv2d")(y)
    y = nn.relu(_norm(dtype, "c/group_norm")(y))
    y = _conv(4 * features, 1, 1, dtype, "c/standardized_conv2d")(y)
    return y + shortcut


class ResNet(nn.Module):
  """The whole network.

  Attributes:
    depths: Units of each block.
    channels: That leave the stem.
    num_classes: Outputs of the head.
    dtype: Type of the computation; parameters and logits are float32.
  """

  depths: tuple[int, ...]
  channels: int
  num_classes: int
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, images: jax.Array) -> jax.Array:
    """Maps images [B, H, W, 3] in [-1, 1] to logits [B, num_classes] float32."""
    x = _conv(self.channels, 7, 2, self.dtype, "root_block/standardized_conv2d")(images)
    x = nn.max_pool(jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0))), (3, 3), (2, 2))
    for b, depth in enumerate(self.depths):
      for u in range(depth):
        stride = 2 if b > 0 and u == 0 else 1
        name = f"block{b + 1}/unit{u + 1:02d}"
        x = Unit(self.channels * 2**b, stride, u == 0, self.dtype, name=name)(x)
    x = nn.relu(_norm(self.dtype, "group_norm")(x))
    return nn.Dense(self.num_classes, name="head/conv2d")(x.mean((1, 2)).astype(jnp.float32))


def from_checkpoint(arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
  """Returns the parameters with the values of a checkpoint.

  Args:
    arrays: Named as `architectures.parameter_shapes`, the head included.
  """
  params = {}
  for name, array in arrays.items():
    # 'block1/unit01/a/group_norm/gamma' is 'a/group_norm/scale' of 'block1/unit01'.
    scope, _, leaf = name.rpartition("/")
    path = [scope]
    if scope.startswith("block"):
      block, unit, scope = scope.split("/", 2)
      path = [f"{block}/{unit}", scope]
    value = array.reshape(array.shape[-2:]) if name == "head/conv2d/kernel" else array
    params[*path, _NAMES.get(leaf, leaf)] = value
  return flax.traverse_util.unflatten_dict(params)


def train_step(
  state: train_state.TrainState, images: jax.Array, labels: jax.Array
) -> tuple[train_state.TrainState, jax.Array]:
  """Takes one step on a batch: [B, H, W, 3] and [B]; returns the state and the loss before it."""

  def loss_fn(params: Any) -> jax.Array:
    logits = state.apply_fn({"params": params}, images)
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

  loss, gradients = jax.value_and_grad(loss_fn)(state.params)
  return state.apply_gradients(grads=gradients), loss


def _conv(features: int, size: int, stride: int, dtype: Any, name: str) -> StdConv:
  kernel, strides, padding = (size, size), (stride, stride), size // 2
  return StdConv(features, kernel, strides, padding, use_bias=False, dtype=dtype, name=name)


def _norm(dtype: Any, name: str) -> nn.GroupNorm:
  # The one-pass variance, Flax's default, would change what pre-trained weights compute.
  return nn.GroupNorm(32, epsilon=1e-5, use_fast_variance=False, dtype=dtype, name=name)
