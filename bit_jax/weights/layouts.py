"""Names and axes of parameters in files: those of BiT's released files, and those of timm.

Official keys: google-research/big_transfer `bit_pytorch/models.py` (`load_from`); the variants in
some released files: google-research/big_vision `models/bit.py` and `bit_paper.py`. timm's:
huggingface/pytorch-image-models 1.0.31, `timm/models/resnetv2.py`.
"""

import dataclasses
import re
from collections.abc import Callable

import numpy as np

from bit_jax.models import architectures

_KERNEL_RANK = 4


@dataclasses.dataclass(frozen=True)
class Layout:
  """How files of one kind hold the parameters of `architectures.parameter_shapes`.

  Attributes:
    key: Returns a parameter's key in a file.
    name: Returns the parameter of a key in a file; the key itself if it is none of BiT's.
    kernel_axes: The axes of a kernel in a file, as axes of a parameter (0 to 3 for HWIO).
  """

  key: Callable[[str], str]
  name: Callable[[str], str]
  kernel_axes: tuple[int, int, int, int]

  @property
  def _inverse_axes(self) -> tuple[int, ...]:
    return tuple(self.kernel_axes.index(axis) for axis in range(_KERNEL_RANK))

  def shape_in_file(self, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Returns the shape in a file of a parameter of this shape."""
    return tuple(shape[a] for a in self.kernel_axes) if len(shape) == _KERNEL_RANK else shape

  def shape(self, in_file: tuple[int, ...]) -> tuple[int, ...]:
    """Returns the shape as a parameter of an array of this shape in a file."""
    is_kernel = len(in_file) == _KERNEL_RANK
    return tuple(in_file[a] for a in self._inverse_axes) if is_kernel else in_file

  def to_file(self, parameter: np.ndarray) -> np.ndarray:
    """Returns a view of a parameter with the axes of a file."""
    return parameter.transpose(self.kernel_axes) if parameter.ndim == _KERNEL_RANK else parameter

  def from_file(self, array: np.ndarray) -> np.ndarray:
    """Returns an array of a file with the axes of a parameter, contiguous."""
    is_kernel = array.ndim == _KERNEL_RANK
    return np.ascontiguousarray(array.transpose(self._inverse_axes)) if is_kernel else array


_PREFIX = "resnet/"


def _official_name(key: str) -> str:
  """Drops the leading `resnet/` and the number of `standardized_conv2d_<n>`.

  It also ends the key of a unit's projection as usual.
  """
  key = re.sub(r"/standardized_conv2d_\d+/", "/standardized_conv2d/", key.removeprefix(_PREFIX))
  return re.sub(r"(block\d+/unit\d+/a/proj)(/.*)?", r"\1/standardized_conv2d/kernel", key)


_TIMM_LEAVES = {"gamma": "weight", "beta": "bias", "kernel": "weight", "bias": "bias"}
_TIMM_ENDS = {"root_block": "stem.conv", "group_norm": "norm", "head": "head.fc"}


def _timm_key(name: str) -> str:
  """Returns e.g. 'stages.0.blocks.2.conv1.weight' for unit 3 of block 1."""
  first, *rest = name.split("/")
  leaf = _TIMM_LEAVES[rest[-1]]
  if first in _TIMM_ENDS:
    return f"{_TIMM_ENDS[first]}.{leaf}"
  unit, part, kind = rest[0], rest[1], rest[2]
  number = "abc".index(part) + 1
  module = {
    "proj": "downsample.conv",
    "group_norm": f"norm{number}",
    "standardized_conv2d": f"conv{number}",
  }[kind]
  block = int(first.removeprefix("block")) - 1
  return f"stages.{block}.blocks.{int(unit.removeprefix('unit')) - 1}.{module}.{leaf}"


_TIMM_NAMES = {
  _timm_key(name): name
  for architecture in architectures.ARCHITECTURES.values()
  for name in architectures.parameter_shapes(architecture, 1)
}

OFFICIAL = Layout(lambda name: _PREFIX + name, _official_name, (0, 1, 2, 3))
TIMM = Layout(_timm_key, lambda key: _TIMM_NAMES.get(key, key), (3, 2, 0, 1))
