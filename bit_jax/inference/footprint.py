"""The memory of a forward pass, by arithmetic, and the batches that fit in it."""

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence

import jax

from bit_jax.models import architectures, resnet_v2
from bit_jax.runtime import devices, errors, machine

MARGIN = 0.9  # the usable part of an accelerator's memory: free memory may be in several pieces
FLOAT32 = 4  # bytes
LANES = {"tpu": 128}  # by platform: channels may be padded to a multiple, in small micro-batches
_HOST_MARGIN = 0.8  # the usable part of the host's free memory, which other processes use as well
_ROWS = 8  # images: XLA pads the batch of a large convolution to a multiple
_OUT_OF_MEMORY = ("RESOURCE_EXHAUSTED", "Out of memory")  # JAX on an accelerator, on CPU


@dataclasses.dataclass(frozen=True)
class Need:
  """The memory of a step on a device beside the state: linear in the images of a micro-batch.

  Attributes:
    fixed: Bytes, whatever the micro-batch.
    per_image: Bytes.
    least: Bytes that are needed in any case, such as at the end of a step.
  """

  fixed: float
  per_image: float
  least: float = 0

  def of(self, images: int) -> float:
    """Returns the bytes for micro-batches of so many images."""
    return max(self.least, self.fixed + images * self.per_image)

  def largest(self, sizes: Sequence[int], budget: float) -> int | None:
    """Returns the largest of some sizes that fits into so many bytes, or None."""
    return max((m for m in sizes if self.of(m) <= budget), default=None)


@dataclasses.dataclass(frozen=True)
class Unit:
  """Numbers of activations of one image in a unit.

  Attributes:
    entering: Inputs of the unit.
    normed: Inputs of its group norms.
    convolved: Outputs of its convolutions.
  """

  entering: int = 0
  normed: int = 0
  convolved: int = 0

  @property
  def size(self) -> int:
    """All of them."""
    return self.normed + self.convolved


@dataclasses.dataclass(frozen=True)
class Activations:
  """Numbers of activations of one image, counted from a network's shapes.

  Attributes:
    stem: Outputs of the first convolution.
    units: Those of each unit, in the order of the forward pass.
    last: Inputs of the last group norm.
  """

  stem: int
  units: tuple[Unit, ...]
  last: int

  @property
  def normed(self) -> int:
    """Inputs of group norms."""
    return sum(unit.normed for unit in self.units) + self.last

  @property
  def entering(self) -> int:
    """Inputs of units."""
    return sum(unit.entering for unit in self.units)

  @property
  def largest_unit(self) -> int:
    """Inputs of norms and outputs of convolutions in the largest unit."""
    return max((unit.size for unit in self.units), default=0)


def activations(architecture: architectures.Architecture, crop: int, lanes: int = 1) -> Activations:
  """Counts the activations of one image.

  Args:
    architecture: Depths and width.
    crop: Side of the image in pixels.
    lanes: Channels of units are padded to a multiple of this.
  """

  def size(side: int, channels: int) -> int:
    return side**2 * (-(-channels // lanes) * lanes)

  stem, *body = architectures.convolutions(architecture, crop)
  last = size(-(-stem.side_out // 2), stem.c_out)  # output of the max-pool
  units: dict[str, Unit] = {}
  for convolution in body:
    block, name, part, scope, *_ = convolution.name.split("/")
    last = size(convolution.side_out, convolution.c_out)
    # A projection shares the input of the unit's first norm.
    inputs = size(convolution.side_in, convolution.c_in) if scope != "proj" else 0
    unit = units.get(f"{block}/{name}", Unit())
    units[f"{block}/{name}"] = Unit(
      entering=unit.entering + (inputs if part == "a" else 0),
      normed=unit.normed + inputs,
      convolved=unit.convolved + last,
    )
  return Activations(stem.side_out**2 * stem.c_out, tuple(units.values()), last)


def image_bytes(resize: int, crop: int, source: tuple[int, int]) -> int:
  """Returns the bytes of an image before the network: as sent, resized, cropped and mixed.

  Args:
    resize: Side of the square that images are resized to, in pixels.
    crop: Side of its crop, in pixels.
    source: (height, width) of the images that the devices get, in pixels.
  """
  height, width = source
  resized = max(resize, crop) * (width + resize)
  return 3 * (2 * height * width + FLOAT32 * (height * width + resized + 3 * crop**2))


def forward_bound(model: resnet_v2.ResNetV2, size: int, source: tuple[int, int]) -> Need:
  """Returns an upper bound of the memory of a forward pass beside the parameters.

  Args:
    model: The network.
    size: Side of the square that images are resized to, in pixels.
    source: (height, width) of the images that the devices get, in pixels.
  """
  count = activations(model.architecture, size, LANES.get(model.platform, 1))
  passing = 2 * count.largest_unit + 3 * count.stem
  parameters = architectures.num_parameters(model.architecture, model.num_classes)
  return Need(FLOAT32 * parameters, FLOAT32 * passing + image_bytes(size, size, source))


def programs_at_once(platform: str) -> int:
  """Returns how many programs hold memory: on CPU the next one allocates while one is running."""
  return 2 if platform == "cpu" else 1


def budget(description: devices.Description, reserved: int = 0) -> float:
  """Returns the bytes that programs may use on each device.

  CPU devices share the free memory of the host.

  Args:
    description: The devices, with parameters and data on them.
    reserved: Bytes of the host that are left free, for a copy of the state on CPU devices.
  """
  if description.bytes is not None:
    return MARGIN * description.bytes
  machine.trim_memory()
  free = devices.host_memory() - reserved
  return max(0.0, _HOST_MARGIN * free) / description.local_count


def batch(
  model: resnet_v2.ResNetV2,
  size: int,
  source: tuple[int, int],
  *,
  wanted: int,
  num_images: int,
  budget: float,
  count: int,
) -> int:
  """Returns the batch of forward passes over all devices: the wanted one, or one sure to fit.

  A small set gets a batch that holds it, a power of two on each device: sets of about the same
  length share the program.

  Args:
    model: The network.
    size: Side of the square that images are resized to, in pixels.
    source: (height, width) of the images that the devices get, in pixels.
    wanted: Images over all devices.
    num_images: Images in the set; at least 1.
    budget: Bytes that a device has beside the parameters.
    count: Number of devices.
  """
  need = forward_bound(model, size, source)
  fits = int((budget - need.fixed) / (programs_at_once(model.platform) * need.per_image))
  if fits > _ROWS:
    fits -= fits % _ROWS
  whole = 1 << (-(-num_images // count) - 1).bit_length()
  return min(wanted, max(1, min(fits, whole)) * count)


def is_out_of_memory(error: BaseException) -> bool:
  """Returns whether JAX's error says that a device, or a program for it, ran out of memory."""
  return any(text in str(error) for text in _OUT_OF_MEMORY)


@contextlib.contextmanager
def explained(explanation: str) -> Iterator[None]:
  """Replaces errors of JAX and numpy that mean "out of memory" by a sentence with this end.

  Raises:
    UserError: The block ran out of memory.
  """
  try:
    yield
  except (jax.errors.JaxRuntimeError, MemoryError) as e:
    on_host = isinstance(e, MemoryError)
    if not on_host and not is_out_of_memory(e):
      raise
    where = "This machine" if on_host else "A device"
    raise errors.UserError(f"{where} ran out of memory {explanation}") from e


def gigabytes(amount: float) -> str:
  """Returns bytes as a text, such as '1.32 GB' or '3,640 GB'."""
  return f"{amount / 1e9:,.0f} GB" if amount >= 1e12 else f"{amount / 1e9:.3g} GB"
