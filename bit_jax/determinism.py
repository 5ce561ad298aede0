"""XLA's option by which a GPU computes the same each time; CPU and TPU do so without it."""

import os

from bit_jax import errors

_FLAG = "--xla_gpu_deterministic_ops=true"


def variables() -> dict[str, str]:
  """Returns the environment variables with the option added to what this process has.

  They must be set before a process first uses XLA, which then reads them.
  """
  return {"XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {_FLAG}".strip()}


def require() -> None:
  """Raises a `UserError` if the option isn't set."""
  if _FLAG not in os.environ.get("XLA_FLAGS", ""):
    raise errors.UserError(
      f"deterministic needs XLA_FLAGS={_FLAG} in the environment before the first computation; "
      f"python -m bit_jax.train sets it by itself."
    )
