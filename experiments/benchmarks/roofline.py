"""The roofline: a card's maximum speed, by arithmetic; nothing is measured.

    python -m experiments.benchmarks.roofline [--card H200] [--flops 9.9e14 --bandwidth 4.8e12]

A step is a sequence of operations. Each takes at least its FLOPs divided by the card's matrix
FLOP/s, and at least its memory traffic in bytes divided by the card's bandwidth; the bound is the
sum of the larger of the two. Activations are bfloat16 (2 bytes per number).

Memory traffic, where T is the size of a whole tensor:

- A convolution reads its input and writes its output. Backward, the gradient of the input reads the
  output's gradient and writes T of the input; the gradient of the kernel reads both. (Kernels are
  small in comparison, and are counted with the parameters below.)
- Group norm and the ReLU after it can't begin before the last number is known. Forward: one pass
  reads T for the statistics, another reads and writes T. Backward: the gradient of a number depends
  on two sums over its group, so one pass reads input and gradient (2 T), and another reads both and
  writes the result (3 T); the normalised values and the ReLU's sign are computed from the input
  again.
- The addition of the shortcut reads two tensors and writes one, and can compute the next norm's
  statistics on the way (T less), as the max-pool can; backward, the shortcut's gradient is read
  once more where the two meet.
- The max-pool reads T and writes a quarter of it; backward it reads both again and writes T.
- The last norm is read once, into the mean, and its gradient is one number per channel: backward 2
  reads and a write.
- Parameters, once per step instead of once per image, in float32: standardised (2 reads) into a
  bfloat16 kernel, the same backward with the gradient (2 reads of each and a write), and SGD with
  momentum: parameter, gradient and velocity read, parameter and velocity written. That is 4 bytes
  times 2 + 5 + 5, and 2: 50 bytes per parameter. Inference reads its bfloat16 kernels.

Convolutions and norms are separate operations here, as cuDNN's convolutions are closed. A compiler
that computes the statistics while a convolution writes its output, or normalises while the next
convolution reads it, can be faster than this bound.
"""

import argparse
import dataclasses
import sys
from collections.abc import Iterator, Sequence

from bit_jax.models import architectures
from bit_jax.runtime import exits

_BYTES = 2  # of a bfloat16
_TRAINED_BYTES = 50  # that a step moves for each parameter
_CASES = (("R50x1", 128, 512), ("R50x1", 480, 64), ("R101x3", 128, 128), ("R152x4", 128, 64))
_NUM_CLASSES = 10


@dataclasses.dataclass(frozen=True)
class Accelerator:
  """A card's data sheet.

  Attributes:
    flops: Matrix FLOP/s in bfloat16, accumulated in float32, without sparsity.
    bandwidth: Bytes per second of its memory.
    source: The document.
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
    bytes: Memory traffic.
  """

  name: str
  flops: float
  bytes: float

  def seconds(self, accelerator: Accelerator) -> float:
    """Returns its minimum time."""
    return max(self.flops / accelerator.flops, self.bytes / accelerator.bandwidth)


def find(device: str) -> Accelerator | None:
  """Returns the data sheet of a device by its name, such as 'NVIDIA H200', or None."""
  return next((a for name, a in ACCELERATORS.items() if name in device), None)


def operations(
  architecture: architectures.Architecture, image_size: int, batch: int, *, training: bool
) -> Iterator[Operation]:
  """Yields the operations of one image, with its share of those of the parameters.

  Args:
    architecture: Which network.
    image_size: Side of the images in pixels.
    batch: Images of a step.
    training: Forward, backward and update; else forward only.
  """
  for c in architectures.convolutions(architecture, image_size):
    read, written = _tensors(c)
    yield Operation(f"{c.name} forward", c.flops, read + written)
    if training:
      yield Operation(f"{c.name} kernel gradient", c.flops, read + written)
      if not c.name.startswith("root_block"):  # images need no gradient
        yield Operation(f"{c.name} input gradient", c.flops, read + written)
    passes = _passes_around(c)
    yield Operation(f"around {c.name}", 0, sum(passes if training else passes[:1]))
  yield Operation("last norm", 0, written * (1 + 3 * training))
  parameters = architectures.num_parameters(architecture, _NUM_CLASSES)
  yield Operation("parameters", 0, parameters * (_TRAINED_BYTES if training else _BYTES) / batch)


def _tensors(c: architectures.Convolution) -> tuple[float, float]:
  """Returns the bytes of a convolution's input and output."""
  return _BYTES * c.side_in**2 * c.c_in, _BYTES * c.side_out**2 * c.c_out


def _passes_around(c: architectures.Convolution) -> tuple[float, float]:
  """Returns the bytes that norm, ReLU, sum or pool beside a convolution move, forward and backward.

  The norm is the one before it; sum and pool follow its output.
  """
  before, after = _tensors(c)
  if c.name.startswith("root_block"):
    pooled = after / 4
    return after + pooled, 2 * after + pooled
  if "/proj/" in c.name:  # shares the norm of a unit's first convolution; its gradient joins there
    return 0, before
  part = c.name.split("/")[2]
  forward, backward = before * (2 if part == "a" else 3), before * 5
  if part == "a" and "/unit01/" not in c.name:  # the shortcut's gradient
    backward += before
  if part == "c":
    forward += 3 * after
  return forward, backward


def images_per_second(
  accelerator: Accelerator,
  architecture: architectures.Architecture,
  image_size: int,
  batch: int,
  *,
  training: bool,
) -> float:
  """Returns the maximum of images per second; arguments as of `operations`."""
  parts = operations(architecture, image_size, batch, training=training)
  return 1 / sum(o.seconds(accelerator) for o in parts)


def table(card: Accelerator) -> str:
  """Returns the bounds of training and inference as a Markdown table."""
  lines = [
    "| network, pixels, batch | GFLOP an image (forward) | training: images/s | MFU "
    "| time bound by memory | inference: images/s | MFU |",
    "|---|---|---|---|---|---|---|",
  ]
  for name, size, batch in _CASES:
    a = architectures.find(name)
    flops = architectures.forward_flops(a, _NUM_CLASSES, size)
    train, infer = (images_per_second(card, a, size, batch, training=t) for t in (True, False))
    bound_by_memory = train * sum(
      o.seconds(card)
      for o in operations(a, size, batch, training=True)
      if o.bytes / card.bandwidth > o.flops / card.flops
    )
    lines.append(
      f"| {name} {size} {batch} | {flops / 1e9:.2f} "
      f"| {train:,.0f} | {train * flops * architectures.TRAINING_FACTOR / card.flops:.0%} "
      f"| {bound_by_memory:.0%} | {infer:,.0f} | {infer * flops / card.flops:.0%} |"
    )
  return "\n".join(lines)


def main(argv: Sequence[str]) -> None:
  """Prints the table of a card."""
  parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
  parser.add_argument("--card", choices=ACCELERATORS, default="H200")
  parser.add_argument("--flops", type=float, help="matrix FLOP/s in bfloat16 of another card")
  parser.add_argument("--bandwidth", type=float, help="its memory bandwidth in bytes per second")
  options = parser.parse_args(argv[1:])
  card = ACCELERATORS[options.card]
  if options.flops or options.bandwidth:
    card = Accelerator(options.flops or card.flops, options.bandwidth or card.bandwidth, "as given")
  print(f"{card.flops / 1e12:g} TFLOP/s, {card.bandwidth / 1e12:g} TB/s ({card.source})\n")
  print(table(card))


if __name__ == "__main__":
  sys.exit(exits.run(main, sys.argv))
