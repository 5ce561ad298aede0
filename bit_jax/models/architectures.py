"""The BiT architectures as data: depths, widths, and the name and shape of every parameter.

Parameter names are the keys of the released `.npz` files without their leading `resnet/`; the
parameter tree of `resnet_v2.ResNetV2` has these keys split at the slashes, so that a checkpoint and
a parameter tree differ only in nesting.

Source: google-research/big_transfer, `bit_pytorch/models.py`; BiT paper (arXiv 1912.11370), 2.1.
"""

import dataclasses
import math
import re
from collections.abc import Iterator

from bit_jax.runtime import errors, phrases

TRAINING_FACTOR = 3  # the gradient of a product is two products of the same size
NUM_GROUPS = 32  # of every group norm
Shapes = dict[str, tuple[int, ...]]  # {name: shape}
PRETRAINED_CLASSES = {"BiT-S": 1000, "BiT-M": 21843}


@dataclasses.dataclass(frozen=True)
class Architecture:
  """One member of the family.

  Attributes:
    name: The short name, such as 'R50x1'.
    depths: Units in each of the four blocks.
    width: Multiplier of the channels; 1 gives a 64-channel stem and 2048 features.
  """

  name: str
  depths: tuple[int, int, int, int]
  width: float

  @property
  def stem_channels(self) -> int:
    """Output channels of the stem."""
    return int(64 * self.width)

  @property
  def num_features(self) -> int:
    """Input channels of the head."""
    return self.stem_channels * 32


@dataclasses.dataclass(frozen=True)
class Convolution:
  """One convolution at one image size; kernel, input and output are square.

  Attributes:
    name: Name of its kernel, as in `parameter_shapes`.
    size: Side of the kernel.
    c_in: Channels in.
    c_out: Channels out.
    side_in: Side of the input.
    side_out: Side of the output.
  """

  name: str
  size: int
  c_in: int
  c_out: int
  side_in: int
  side_out: int

  @property
  def flops(self) -> int:
    """Operations for one image, padding included; a multiply-add counts as two."""
    return 2 * self.side_out**2 * self.size**2 * self.c_in * self.c_out


ARCHITECTURES = {
  a.name: a
  for a in (
    Architecture("R14x0.5", (1, 1, 1, 1), 0.5),
    Architecture("R14x1", (1, 1, 1, 1), 1),
    Architecture("R50x1", (3, 4, 6, 3), 1),
    Architecture("R101x1", (3, 4, 23, 3), 1),
    Architecture("R50x3", (3, 4, 6, 3), 3),
    Architecture("R101x3", (3, 4, 23, 3), 3),
    Architecture("R152x2", (3, 8, 36, 3), 2),
    Architecture("R152x4", (3, 8, 36, 3), 4),
  )
}
SMALL = ("R14x0.5", "R14x1")  # never released; for laptops and tests
MODEL_NAMES = (
  *SMALL,
  *(f"{family}-{a}" for family in PRETRAINED_CLASSES for a in ARCHITECTURES if a not in SMALL),
)


def find(model: str) -> Architecture:
  """Returns the architecture of a model name such as 'BiT-M-R50x1', 'R50x1' or 'R14x0.5'.

  Raises:
    UserError: The model is unknown, or a BiT-L, which was never released.
  """
  if model.startswith("BiT-L"):
    raise errors.UserError(
      f"{model} was never released: BiT-L was trained on Google's internal JFT-300M. "
      f"The largest released model is BiT-M-R152x4."
    )
  match = re.fullmatch(r"(?:BiT-[SM]-)?(R\d+x[\d.]+)", model)
  short = match.group(1) if match else ""
  if short not in ARCHITECTURES or (short in SMALL and model != short):
    names = {name.lower(): name for name in (*ARCHITECTURES, *MODEL_NAMES)}
    hint = phrases.did_you_mean(model.lower(), names)
    raise errors.UserError(
      f"Unknown model {model!r}{hint}; the models are {', '.join(MODEL_NAMES)} "
      f"(and the bare names, such as R50x1)."
    )
  return ARCHITECTURES[short]


def parameter_shapes(architecture: Architecture, num_classes: int | None) -> Shapes:
  """Returns {name: shape} of every parameter, kernels as HWIO, in the order of computation.

  Args:
    architecture: Which network.
    num_classes: Outputs of the head; None leaves the head out.
  """
  channels = architecture.stem_channels
  shapes: Shapes = {"root_block/standardized_conv2d/kernel": (7, 7, 3, channels)}
  for b, depth in enumerate(architecture.depths):
    mid = architecture.stem_channels * 2**b
    for u in range(depth):
      unit = f"block{b + 1}/unit{u + 1:02d}"
      if u == 0:
        shapes[f"{unit}/a/proj/standardized_conv2d/kernel"] = (1, 1, channels, 4 * mid)
      parts = ("a", 1, channels, mid), ("b", 3, mid, mid), ("c", 1, mid, 4 * mid)
      for part, size, c_in, c_out in parts:
        shapes[f"{unit}/{part}/group_norm/gamma"] = (c_in,)
        shapes[f"{unit}/{part}/group_norm/beta"] = (c_in,)
        shapes[f"{unit}/{part}/standardized_conv2d/kernel"] = (size, size, c_in, c_out)
      channels = 4 * mid
  shapes |= {"group_norm/gamma": (channels,), "group_norm/beta": (channels,)}
  if num_classes is not None:
    shapes["head/conv2d/kernel"] = (1, 1, channels, num_classes)
    shapes["head/conv2d/bias"] = (num_classes,)
  return shapes


def num_parameters(architecture: Architecture, num_classes: int | None) -> int:
  """Returns the number of parameters; arguments as for `parameter_shapes`."""
  return sum(math.prod(s) for s in parameter_shapes(architecture, num_classes).values())


def convolutions(architecture: Architecture, image_size: int) -> Iterator[Convolution]:
  """Yields the convolutions of the body in the order of `parameter_shapes`.

  Args:
    architecture: Which network.
    image_size: Side of the images in pixels.
  """
  side = image_size
  for name, shape in parameter_shapes(architecture, None).items():
    if not name.endswith("/kernel"):
      continue
    size, _, c_in, c_out = shape
    stem, projection = name.startswith("root_block"), "/proj/" in name
    first = "/unit01/" in name and not name.startswith("block1/")
    side_out = -(-side // 2) if stem or (first and (projection or size == 3)) else side
    yield Convolution(name, size, c_in, c_out, side, side_out)
    if stem:
      side = -(-side_out // 2)  # the max-pool
    elif not projection:  # a projection is parallel to the others
      side = side_out


def forward_flops(architecture: Architecture, num_classes: int, image_size: int) -> int:
  """Returns the operations of classifying one image: of convolutions and head, not of the rest.

  A training step takes `TRAINING_FACTOR` times as many: the gradient of a product is two products
  of the same size.

  Args:
    architecture: Which network.
    num_classes: Outputs of the head.
    image_size: Side of the images in pixels.
  """
  head = 2 * architecture.num_features * num_classes
  return head + sum(c.flops for c in convolutions(architecture, image_size))
