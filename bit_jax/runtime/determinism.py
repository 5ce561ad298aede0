"""XLA's option by which a GPU computes the same each time; CPU and TPU do so without it."""

import os

import jax

from bit_jax.runtime import errors

_VARIABLE = "XLA_FLAGS"
_OPTION = "--xla_gpu_deterministic_ops=true"


def variables() -> dict[str, str]:
  """Returns the environment variables with the option added to what this process has.

  They must be set before a process first uses XLA, which then reads them.
  """
  return {_VARIABLE: f"{os.environ.get(_VARIABLE, '')} {_OPTION}".strip()}


def command() -> str:
  """Returns the shell command that adds the option to what that shell has, on whatever machine."""
  return f'export {_VARIABLE}="${{{_VARIABLE}:-}} {_OPTION}"'


def require() -> None:
  """Raises a `UserError` if JAX computes on a GPU, and the option isn't set."""
  if jax.default_backend() == "gpu" and _OPTION not in os.environ.get(_VARIABLE, ""):
    raise errors.UserError(
      f"deterministic needs {_VARIABLE}={_OPTION} in the environment before the first computation; "
      f"python -m bit_jax.train sets it by itself."
    )
