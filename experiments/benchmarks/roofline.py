"""How fast a card could be at most: arithmetic, not a measurement.

    python -m experiments.benchmarks.roofline [--card H200] [--flops 9.9e14 --bandwidth 4.8e12]

A step is a sequence of operations, each of which takes at least its FLOPs divided by the card's
matrix FLOP/s, and at least the bytes that it must move to and from memory divided by its bandwidth;
the bound is the sum of the larger of the two. Activations are bfloat16 (2 bytes a number).

What must be moved, with T for the whole of a tensor, once:

- A convolution reads its input and writes its output. Backward, the gradient of the input reads the
  output's gradient and writes T of the input; the gradient of the kernel reads both. (Kernels are
  small beside that, and counted with the parameters below.)
- Group norm and ReLU behind it cannot begin before the last number has been seen. Forward: a pass
  that reads T for the statistics, and one that reads and writes T. Backward: the gradient of a
  number depends on two sums over its group, so a pass reads input and gradient (2 T), and another
  reads both and writes the result (3 T); the normalised values and the ReLU's sign follow from the
  input, and are not kept.
- Whoever adds the shortcut reads two tensors and writes one, and can take the next norm's
  statistics on the way (T less), as the max-pool can; backward the shortcut's gradient is read once
  more where the two meet.
- The max-pool reads T and writes its quarter; backward it reads both again and writes T.
- The last norm is read once, into the mean, and its gradient is one number per channel: backward 2
  reads and a write.
- Parameters, once a step rather than once an image, in float32: standardised (2 reads) into a
  bfloat16 kernel, the same backward with the gradient (2 reads of each and a write), and SGD with
  momentum: parameter, gradient and velocity read, parameter and velocity written. Which is 4 bytes
  times 2 + 5 + 5, and 2: 50 bytes a parameter. Inference reads its bfloat16 kernels.

Convolutions and norms are separate operations here, as cuDNN's convolutions are closed; a compiler
that takes the statistics as a convolution writes its output, or normalises as the next one reads
it, can be faster than this bound.
"""

import argparse
import dataclasses
import sys
from collections.abc import Iterator, Sequence

from bit_jax.models import architectures

_BYTES = 2  # of a bfloat16
_TRAINED_BYTES = 50  # that a step moves for each parameter
_CASES = (("R50x1", 128, 512), ("R50x1", 480, 64), ("R101x3", 128, 128), ("R152x4", 128, 64))
_NUM_CLASSES = 10


@dataclasses.dataclass(frozen=True)
class Accelerator:
  """What a card's data sheet says.

  Attributes:
    flops: Matrix FLOP/s in bfloat16, accumulated in float32, without sparsity.
    bandwidth: Bytes per second of its memory.
    source: Where both stand.
  """

  flops: float
  bandwidth: float
  source: str


ACCELERATORS = {
  "H200": Accelerator(989e12, 4.8e12, "NVIDIA H200 data sheet, SXM"),
  "H100": Accelerator(989e12, 3.35e12, "NVIDIA H100 data sheet, SXM"),
  "A100": Accelerator(312e12, 2.039e12, "NVIDIA A100 80GB data sheet, SXM"),
  "3090": Accelerator(71e12, 0.936e12, "NVIDIA GA102 whitepaper, GeForce RTX 3090"),
}


@dataclasses.dataclass(frozen=True)
class Operation:
  """A part of a step that runs on its own.

  Attributes:
    name: What it is.
    flops: Matrix operations.
    bytes: That it must move.
  """

  name: str
  flops: float
  bytes: float

  def seconds(self, accelerator: Accelerator) -> float:
    """Returns how long it takes at least."""
    return max(self.flops / accelerator.flops, self.bytes / accelerator.bandwidth)


def find(device: str) -> Accelerator | None:
  """Returns the data sheet of a device by its name, such as 'NVIDIA H200', or None."""
  return next((a for name, a in ACCELERATORS.items() if name in device), None)


def operations(
  architecture: architectures.Architecture, image_size: int, batch: int, *, training: bool
) -> Iterator[Operation]:
  """Yields the operations that one image takes, and its share of a step's parameters.

  Args:
    architecture: Which network.
    image_size: Side of the images in pixels.
    batch: Images of a step.
    training: Forward, backward and update; else forward alone.
  """
  for c in architectures.convolutions(architecture, image_size):
    stem = c.name.startswith("root_block")
    read, written = (_BYTES * n for n in (c.side_in**2 * c.c_in, c.side_out**2 * c.c_out))
    yield Operation(f"{c.name} forward", c.flops, read + written)
    if training:
      yield Operation(f"{c.name} kernel gradient", c.flops, read + written)
      if not stem:  # nobody asks for the gradient of the images
        yield Operation(f"{c.name} input gradient", c.flops, read + written)
    passes = _passes_around(c)
    yield Operation(f"around {c.name}", 0, sum(passes if training else passes[:1]))
  last = c.side_out**2 * c.c_out * _BYTES
  yield Operation("last norm", 0, last * (1 + 3 * training))
  parameters = architectures.num_parameters(architecture, _NUM_CLASSES)
  yield Operation("parameters", 0, parameters * (_TRAINED_BYTES if training else _BYTES) / batch)


def _passes_around(c: architectures.Convolution) -> tuple[float, float]:
  """Returns the bytes that norm, ReLU, sum or pool beside a convolution move, forward and backward.

  The norm before it, and what comes after its output.
  """
  before, after = (_BYTES * n for n in (c.side_in**2 * c.c_in, c.side_out**2 * c.c_out))
  if c.name.startswith("root_block"):
    pooled = after / 4
    return after + pooled, 2 * after + pooled
  if (
    "/proj/" in c.name
  ):  # shares the norm of its unit's first convolution; its gradient joins there
    return 0, before
  part = c.name.split("/")[2]
  norm = before * (2 if part == "a" else 3), before * 5
  if part != "c":
    joined = before if part == "a" and "/unit01/" not in c.name else 0
    return norm[0], norm[1] + joined
  return norm[0] + 3 * after, norm[1]


def images_per_second(
  accelerator: Accelerator,
  architecture: architectures.Architecture,
  image_size: int,
  batch: int,
  *,
  training: bool,
) -> float:
  """Returns the most images per second; arguments as of `operations`."""
  parts = operations(architecture, image_size, batch, training=training)
  return 1 / sum(o.seconds(accelerator) for o in parts)


def utilization(
  accelerator: Accelerator,
  architecture: architectures.Architecture,
  image_size: int,
  batch: int,
  *,
  training: bool,
) -> float:
  """Returns the model FLOP utilisation at that rate; arguments as of `operations`."""
  rate = images_per_second(accelerator, architecture, image_size, batch, training=training)
  flops = architectures.forward_flops(architecture, _NUM_CLASSES, image_size)
  return rate * flops * (architectures.TRAINING_FACTOR if training else 1) / accelerator.flops


def table(accelerator: Accelerator) -> str:
  """Returns the bounds of training and inference as a Markdown table."""
  lines = [
    "| network, pixels, batch | GFLOP an image (forward) | training: images/s | MFU "
    "| time bound by memory | inference: images/s | MFU |",
    "|---|---|---|---|---|---|---|",
  ]
  for name, size, batch in _CASES:
    a = architectures.find(name)
    cells = [f"{name} {size} {batch}"]
    cells.append(f"{architectures.forward_flops(a, _NUM_CLASSES, size) / 1e9:.2f}")
    for training in (True, False):
      rate = images_per_second(accelerator, a, size, batch, training=training)
      used = utilization(accelerator, a, size, batch, training=training)
      cells += [f"{rate:,.0f}", f"{used:.0%}"]
      if training:
        cells.append(f"{_share_of_memory(accelerator, a, size, batch):.0%}")
    lines.append(f"| {' | '.join(cells)} |")
  return "\n".join(lines)


def _share_of_memory(
  accelerator: Accelerator, architecture: architectures.Architecture, size: int, batch: int
) -> float:
  """Returns the share of a training step's least time that passes in operations bound by memory."""
  parts = list(operations(architecture, size, batch, training=True))
  bound = [o for o in parts if o.bytes / accelerator.bandwidth > o.flops / accelerator.flops]
  return sum(o.seconds(accelerator) for o in bound) / sum(o.seconds(accelerator) for o in parts)


def main(argv: Sequence[str]) -> None:
  """Prints the table of a card."""
  parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
  parser.add_argument("--card", choices=ACCELERATORS, default="H200")
  parser.add_argument("--flops", type=float, help="matrix FLOP/s in bfloat16 of another card")
  parser.add_argument("--bandwidth", type=float, help="its bytes per second")
  options = parser.parse_args(argv)
  card = ACCELERATORS[options.card]
  source = card.source
  if options.flops or options.bandwidth:
    source = "as given"
  card = Accelerator(options.flops or card.flops, options.bandwidth or card.bandwidth, source)
  print(f"{card.flops / 1e12:g} TFLOP/s, {card.bandwidth / 1e12:g} TB/s ({card.source})\n")
  print(table(card))


if __name__ == "__main__":
  main(sys.argv[1:])
