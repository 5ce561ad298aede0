"""The network as a sequence of operations, for formats that have operations of their own.

Kernels are standardised once, when they are written: what computes them is not part of the graph.
"""

from typing import Any, Protocol, TypeVar

import flax.traverse_util
import numpy as np

from bit_jax.models import architectures, resnet_v2

_STD_CONV = "standardized_conv2d"
Value = TypeVar("Value")


class Operations(Protocol[Value]):
  """The operations of a format. Each is named by the parameters that it uses."""

  def convolve(self, x: Value, name: str, stride: int) -> Value:
    """Convolves with a standardised kernel, zero-padded by half its size on each side."""
    ...

  def group_norm_relu(self, x: Value, name: str) -> Value:
    """Normalises each of 32 groups of channels, scales, shifts and applies ReLU."""
    ...

  def max_pool(self, x: Value) -> Value:
    """Pads with one zero on each side, then takes maxima of 3x3 places with stride 2."""
    ...

  def add(self, x: Value, y: Value) -> Value:
    """Adds two values of one shape."""
    ...


def body(
  architecture: architectures.Architecture, images: Value, operations: Operations[Value]
) -> Value:
  """Returns the activations before the global mean.

  Args:
    architecture: Which network.
    images: A batch of square images in [-1, 1].
    operations: What computes it.
  """
  o = operations
  x = o.max_pool(o.convolve(images, f"root_block/{_STD_CONV}", 2))
  for b, depth in enumerate(architecture.depths):
    for u in range(depth):
      unit = f"block{b + 1}/unit{u + 1:02d}"
      stride = 2 if b > 0 and u == 0 else 1
      y = o.group_norm_relu(x, f"{unit}/a/group_norm")
      shortcut = o.convolve(y, f"{unit}/a/proj/{_STD_CONV}", stride) if u == 0 else x
      y = o.convolve(y, f"{unit}/a/{_STD_CONV}", 1)
      y = o.convolve(o.group_norm_relu(y, f"{unit}/b/group_norm"), f"{unit}/b/{_STD_CONV}", stride)
      y = o.convolve(o.group_norm_relu(y, f"{unit}/c/group_norm"), f"{unit}/c/{_STD_CONV}", 1)
      x = o.add(shortcut, y)
  return o.group_norm_relu(x, "group_norm")


def parameters(params: Any) -> dict[str, np.ndarray]:
  """Returns all parameters by the names of `architectures.parameter_shapes`, kernels standardised.

  Args:
    params: Parameter tree of `ResNetV2`, float32.
  """
  flat: dict[str, np.ndarray] = {}
  for part in resnet_v2.standardize_params(params).values():
    flat |= {k: np.asarray(v) for k, v in flax.traverse_util.flatten_dict(part, sep="/").items()}
  return flat
