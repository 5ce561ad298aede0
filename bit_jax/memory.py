"""`python -m bit_jax.memory MODEL CROP IMAGES BYTES`: the memory of a training step."""

import argparse
import contextlib
import math
import re
import sys
from collections.abc import Sequence

from bit_jax import hyperrule
from bit_jax.models import resnet_v2
from bit_jax.runtime import checks, errors, exits, numerics
from bit_jax.training import memory as step_memory

_BYTES = re.compile(r"([0-9][0-9_.e+]*) *(?:([kmgt]?)(i?)b?)", re.IGNORECASE)


@numerics.fixed()
def main(argv: Sequence[str]) -> None:
  """Prints the table of a command line: model, crop, images, bytes and, optionally, the dtype.

  Raises:
    UserError: An argument is invalid.
  """
  parser = argparse.ArgumentParser(
    prog="python -m bit_jax.memory",
    description="Estimates the memory of a training step on a GPU or TPU: an upper bound. A run "
    "asks the compiler, and may choose larger micro-batches.",
  )
  parser.add_argument("model", help="such as BiT-M-R152x4, with 1,000 classes")
  parser.add_argument("crop", type=int, help="side of a training image, in pixels")
  parser.add_argument("images", type=int, help="number of images of a step on one device")
  parser.add_argument(
    "bytes",
    help="memory of the device that JAX may use, such as 63.7GB, 60GiB or 60e9: of a GPU three "
    "quarters, unless XLA_PYTHON_CLIENT_MEM_FRACTION is set",
  )
  parser.add_argument(
    "dtype",
    nargs="?",
    default="bfloat16",
    choices=("bfloat16", "float32"),
    help="of convolutions; a T4 or V100 computes in float32",
  )
  args = parser.parse_args(argv[1:])
  checks.in_range("crop", args.crop, 1, hyperrule.MAX_SIDE)
  checks.in_range("images", args.images, 1, hyperrule.MAX_BATCH)
  device_bytes = parse_bytes(args.bytes)
  model = resnet_v2.create(args.model, 1000, args.dtype, "gpu")
  resize = hyperrule.resize_for(args.crop)
  task = step_memory.Task(model, resize, args.crop, (resize, resize))
  print(step_memory.table(task, args.images, device_bytes))


def parse_bytes(text: str) -> float:
  """Returns the bytes of a text such as '80e9', '80GB' or '80GiB'.

  Raises:
    UserError: It is not a number of bytes, or smaller than any device.
  """
  if found := _BYTES.fullmatch(text.strip()):
    number, prefix, binary = found.groups()
    factor: int = (1024 if binary else 1000) ** ("kmgt".index(prefix.lower()) + 1 if prefix else 0)
    with contextlib.suppress(ValueError):
      if 1e6 <= (size := float(number) * factor) < math.inf:
        return size
  raise errors.UserError(
    f"bytes must be the memory of a device, such as 80e9, 80GB or 80GiB, not {text!r}."
  )


if __name__ == "__main__":
  exits.leave(exits.run(main, sys.argv))
