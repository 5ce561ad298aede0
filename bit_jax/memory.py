"""`python -m bit_jax.memory MODEL CROP IMAGES BYTES`: the memory of a training step."""

import contextlib
import math
import re
import sys
from collections.abc import Sequence

from bit_jax import hyperrule
from bit_jax.models import resnet_v2
from bit_jax.runtime import checks, errors, exits, numerics
from bit_jax.training import memory as step_memory

_FORM = "python -m bit_jax.memory MODEL CROP IMAGES BYTES [float32]"
_HELP = f"""Estimates the memory of a training step on a GPU or TPU.

  {_FORM}

  MODEL    such as BiT-M-R152x4, with 1,000 classes
  CROP     side of a training image, in pixels
  IMAGES   number of images of a step on one device
  BYTES    memory of the device, such as 80e9, 80GB or 80GiB
  float32  instead of bfloat16"""
_BYTES = re.compile(r"([0-9][0-9_.e+]*) *(?:([kmgt]?)(i?)b?)", re.IGNORECASE)


@numerics.fixed()
def main(argv: Sequence[str]) -> None:
  """Prints the table of a command line: model, crop, images, bytes and, optionally, the dtype.

  Raises:
    UserError: The command line is invalid.
  """
  given = list(argv[1:])
  if set(given) & {"-h", "--help"}:
    print(_HELP)
    return
  if len(given) > 4 and given[4].isalpha() and _BYTES.fullmatch(f"1{given[4]}"):  # '80 GB'
    given[3:5] = [f"{given[3]}{given[4]}"]
  if not 4 <= len(given) <= 5:
    raise errors.UserError(f"Expected 4 or 5 arguments, not {len(given)}; usage: {_FORM}.")
  name, crop_text, batch_text, memory_text, dtype = (*given, "bfloat16")[:5]
  crop = _whole("CROP", crop_text, hyperrule.MAX_SIDE)
  batch = _whole("IMAGES", batch_text, hyperrule.MAX_BATCH)
  device_bytes = parse_bytes(memory_text)
  checks.one_of("dtype", dtype, ("bfloat16", "float32"))
  model = resnet_v2.create(name, 1000, dtype, "gpu")
  resize = crop * 16 // 15  # the rule's for large images
  task = step_memory.Task(model, resize, crop, (resize, resize))
  print(step_memory.table(task, batch, device_bytes))


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
    f"BYTES must be the memory of a device, such as 80e9, 80GB or 80GiB, not {text!r}."
  )


def _whole(name: str, text: str, maximum: int) -> int:
  """Returns a whole number from 1 to `maximum`, or raises a `UserError`."""
  try:
    value = int(text)
  except ValueError as e:
    raise errors.UserError(f"{name} must be a whole number, not {text!r}; usage: {_FORM}.") from e
  checks.in_range(name, value, 1, maximum)
  return value


if __name__ == "__main__":
  exits.leave(exits.run(main, sys.argv))
