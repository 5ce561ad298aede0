"""`python -m bit_jax.memory MODEL CROP IMAGES BYTES`: how much memory a training step takes."""

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
_HELP = f"""Prints how much memory a training step takes on a GPU or TPU, by arithmetic.

  {_FORM}

  MODEL    such as BiT-M-R152x4, with 1,000 classes
  CROP     side of a training image, in pixels
  IMAGES   of a step on one device
  BYTES    that the device has, such as 80e9, 80GB or 80GiB
  float32  instead of bfloat16"""
_BYTES = re.compile(r"([0-9][0-9_.e+]*) *(?:([kmgt]?)(i?)b?)", re.IGNORECASE)


@numerics.fixed()
def main(argv: Sequence[str]) -> None:
  """Prints the table of a command line: model, crop, images, bytes and, optionally, the dtype.

  Raises:
    UserError: The command line is of another form.
  """
  given = list(argv[1:])
  if set(given) & {"-h", "--help"}:
    print(_HELP)
    return
  if len(given) > 4 and given[4].isalpha() and _BYTES.fullmatch(f"1{given[4]}"):  # '80 GB'
    given[3:5] = [f"{given[3]}{given[4]}"]
  if not 4 <= len(given) <= 5:
    problem = "more than five arguments" if len(given) > 5 else f"{len(given)} of four arguments"
    raise errors.UserError(f"The command line has {problem}; its form is {_FORM}.")
  name, crop_text, share_text, memory_text, dtype = (*given, "bfloat16")[:5]
  crop = _whole("CROP", crop_text, hyperrule.MAX_SIDE)
  share = _whole("IMAGES", share_text, hyperrule.MAX_BATCH)
  device_bytes = parse_bytes(memory_text)
  checks.one_of("dtype", dtype, ("bfloat16", "float32"))
  model = resnet_v2.create(name, 1000, dtype, "gpu")
  resize = crop * 16 // 15  # as the rule has it for large images
  task = step_memory.Task(model, resize, crop, (resize, resize))
  print(step_memory.table(task, share, device_bytes))


def parse_bytes(text: str) -> float:
  """Returns the bytes of a text such as '80e9', '80GB' or '80GiB'.

  Raises:
    UserError: It is no number of bytes, or less than any device has.
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
    raise errors.UserError(f"{name} must be a whole number, not {text!r}; see {_FORM}.") from e
  checks.in_range(name, value, 1, maximum)
  return value


if __name__ == "__main__":
  exits.leave(exits.run(main, sys.argv))
