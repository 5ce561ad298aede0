"""The platform that JAX computes on; a missing or failing one ends in one sentence.

JAX chooses the best platform that it finds, or those that JAX_PLATFORMS names. It reports one that
it can't use by whatever exception occurs, an empty AssertionError included.
"""

import difflib
import importlib.util
import os
import re
from typing import Any

import jax
from jax.extend import backend

from bit_jax.runtime import errors

# What the environment names a platform with, and JAX's settings of the same meaning.
_SETTINGS = ("jax_platforms", "jax_platform_name", "jax_default_device")
_NAMES = ("cpu", "cuda", "gpu", "rocm", "tpu")
_INSTALL = {"cuda": "cuda", "gpu": "cuda", "tpu": "tpu"}  # extras of this package
_CUDA_PLUGINS = ("jax_cuda13_plugin", "jax_cuda12_plugin")
_VISIBLE = "CUDA_VISIBLE_DEVICES"
_ABSENT = re.compile(r"is not in the list of known backends|libtpu\.so: cannot open|Unknown back")
_ADVICE = re.compile(r" ?\((set JAX_PLATFORMS|you may need to)[^)]*\)")


def require() -> None:
  """Starts the platform, which any later use of JAX's devices would do.

  Raises:
    UserError: JAX can't use the platform that was asked for, or one that it found.
  """
  try:
    jax.block_until_ready(jax.device_put(0))  # one that is busy may fail only here
  except Exception as e:  # JAX raises RuntimeError and AssertionError, plugins what they like
    raise errors.UserError(_sentence(e)) from e


def use_cpu() -> None:
  """Has JAX compute on the CPU, whatever the environment names; before the first computation.

  For commands that compute little: they need no accelerator, nor take its memory from a run.
  """
  settings: Any = jax.config
  settings.update("jax_platforms", "cpu")
  settings.update("jax_platform_name", "cpu")
  settings.update("jax_default_device", None)


def remark() -> str | None:
  """Returns a sentence if JAX computes on the CPU although a GPU was meant; else None."""
  if jax.default_backend() != "cpu":
    return None
  asked = _asked()
  if asked is not None and asked[1][0] == "cuda":
    why = f"{asked[0].upper()}={','.join(asked[1])} names cuda"
  elif asked is None and _has_cuda_plugin():
    why = "JAX's CUDA plugin is installed"
  else:
    return None
  return f"This run uses the CPU: {why}, but no NVIDIA GPU is visible here."


def _asked() -> tuple[str, list[str]] | None:
  """Returns the setting that names platforms, and these; None where JAX may choose."""
  for name, value in _settings().items():
    if value:  # a device is set by a program only
      return name, str(getattr(value, "platform", value)).split(",")
  return None


def _settings() -> dict[str, Any]:
  """Returns JAX's settings; one of them can be set, but read from the environment only."""
  return {n: getattr(jax.config, n, os.environ.get(n.upper())) for n in _SETTINGS}


def _has_cuda_plugin() -> bool:
  return any(importlib.util.find_spec(name) for name in _CUDA_PLUGINS)


def _sentence(error: Exception) -> str:
  asked = _asked()
  text = re.sub(_ADVICE, "", " ".join(str(error).split())).rstrip(".")
  if asked is None:
    hidden = os.environ.get(_VISIBLE) in ("", "-1")
    hint = f" ({_VISIBLE}={os.environ[_VISIBLE]} hides every GPU)" if hidden else ""
    return (
      f"JAX can't use a device that it found: {text or type(error).__name__}{hint}. Free or repair "
      f"the device, or set JAX_PLATFORMS=cpu to use the CPU."
    )
  variable, names = asked[0].upper(), asked[1]
  missing = _missing(text, names)
  install = next((_INSTALL[n] for n in names if missing and n in _INSTALL), None)
  change = f"Install support with `pip install -e '.[{install}]'`" if install else "Change it"
  return (
    f"{variable}={','.join(names)} can't be used here: {missing or text}. {_available()} {change}, "
    f"or unset {variable} to let JAX choose."
  )


def _missing(text: str, names: list[str]) -> str | None:
  """Returns what a platform lacks, without a full stop; None if it is there and fails.

  Args:
    text: What JAX says.
    names: The platforms that were asked for.
  """
  if text and not _ABSENT.search(text):
    return None
  if unknown := [n for n in names if n not in _NAMES]:
    close = difflib.get_close_matches(unknown[0].lower(), _NAMES, n=1)
    hint = f" (did you mean {close[0]!r}?)" if close else ""
    return f"there is no platform {unknown[0]!r}{hint}; JAX's platforms are {', '.join(_NAMES)}"
  name = next((n for n in names if n != "cpu"), "cpu")
  if name not in ("cuda", "gpu"):
    return f"JAX's support for {name} isn't installed"
  lacking = [] if "'cuda' is not in the list" in text else ["no NVIDIA GPU is visible"]
  if not _has_cuda_plugin():
    lacking.append("JAX's CUDA plugin isn't installed")
  return ", and ".join(lacking)


def _available() -> str:
  """Returns a sentence on what JAX finds by itself; leaves JAX as it was."""
  if jax.distributed.is_initialized():  # asking would wait for the other processes
    return "Without the setting JAX chooses a platform by itself."
  settings: Any = jax.config
  earlier = _settings()
  try:
    for name in _SETTINGS:
      settings.update(name, None)
    backend.clear_backends()
    return f"JAX finds {jax.default_backend()} here."
  except Exception:
    return "JAX finds nothing else here."
  finally:
    for name, value in earlier.items():
      settings.update(name, value)
    backend.clear_backends()
