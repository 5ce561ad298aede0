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
from collections.abc import Iterable, Iterator, Sequence

from bit_jax.models import architectures
from bit_jax.runtime import exits

_BYTES = 2  # of a bfloat16
_TRAINED_BYTES = 50  # that a step moves for each parameter
_CASES = (("R50x1", 128, 512), ("R50x1", 480, 64), ("R101x3", 128, 128), ("R152x4", 128, 64))
_NUM_CLASSES = 10
_TITLES = (
  "| network, pixels, batch | GFLOP an image (forward) | training: images/s | MFU "
  "| time bound by memory | inference: images/s | MFU |"
)


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

  def images_per_second(self, operations: Iterable["Operation"]) -> float:
    """Returns the maximum, given the operations of an image."""
    return 1 / sum(max(o.flops / self.flops, o.bytes / self.bandwidth) for o in operations)


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


def find(devices: Sequence[str]) -> Accelerator | None:
  """Returns the data sheet of the first known device by name, such as 'NVIDIA H200', or None."""
  return next((a for d in devices for name, a in ACCELERATORS.items() if name in d), None)


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
    read, written = _BYTES * c.side_in**2 * c.c_in, _BYTES * c.side_out**2 * c.c_out
    parts = ["forward", *(["kernel gradient", "input gradient"] if training else [])]
    for part in parts[:2] if c.name.startswith("root_block") else parts:  # images need no gradient
      yield Operation(f"{c.name} {part}", c.flops, read + written)
    passes = _passes_around(c.name, read, written)
    yield Operation(f"around {c.name}", 0, sum(passes if training else passes[:1]))
  yield Operation("last norm", 0, written * (1 + 3 * training))
  parameters = architectures.num_parameters(architecture, _NUM_CLASSES)
  yield Operation("parameters", 0, parameters * (_TRAINED_BYTES if training else _BYTES) / batch)


def _passes_around(name: str, read: float, written: float) -> tuple[float, float]:
  """Returns the bytes that norm, ReLU, sum or pool beside a convolution move, forward and backward.

  The norm is the one before it; sum and pool follow its output.

  Args:
    name: Name of the convolution.
    read: Bytes of its input.
    written: Bytes of its output.
  """
  if name.startswith("root_block"):
    pooled = written / 4
    return written + pooled, 2 * written + pooled
  if "/proj/" in name:  # shares the norm of a unit's first convolution; its gradient joins there
    return 0, read
  part = name.split("/")[2]
  shortcut = part == "a" and "/unit01/" not in name  # whose gradient joins there
  return read * (2 if part == "a" else 3) + 3 * written * (part == "c"), read * (5 + shortcut)


def table(card: Accelerator) -> str:
  """Returns the bounds of training and inference as a Markdown table."""
  lines = [f"{_TITLES}\n|---|---|---|---|---|---|---|"]
  for name, size, batch in _CASES:
    a = architectures.find(name)
    flops = architectures.forward_flops(a, _NUM_CLASSES, size)
    trained = list(operations(a, size, batch, training=True))
    train = card.images_per_second(trained)
    infer = card.images_per_second(operations(a, size, batch, training=False))
    slow = (o.bytes for o in trained if o.bytes / card.bandwidth > o.flops / card.flops)
    by_memory = train * sum(slow) / card.bandwidth
    lines.append(
      f"| {name} {size} {batch} | {flops / 1e9:.2f} "
      f"| {train:,.0f} | {train * flops * architectures.TRAINING_FACTOR / card.flops:.0%} "
      f"| {by_memory:.0%} | {infer:,.0f} | {infer * flops / card.flops:.0%} |"
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
