"""The devices that JAX computes on: their description, and a clear error if JAX can't use them.

Tracing and memory planning take a `Description` and never ask JAX for its devices. So programs can
be compiled and planned for devices that this machine doesn't have.

JAX chooses the best platform that it finds, or one that JAX_PLATFORMS names. If a platform fails,
JAX raises whatever exception occurred, sometimes an empty AssertionError.
"""

import contextlib
import dataclasses
import importlib.util
import os
import platform
import re
import zlib
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils

from bit_jax.runtime import errors, machine

# Settings of JAX that choose a platform; in upper case, the environment variables.
_SETTINGS = ("jax_platforms", "jax_platform_name", "jax_default_device")
_NAMES = ("cpu", "cuda", "gpu", "rocm", "tpu")
_INSTALL = {"cuda": "cuda", "gpu": "cuda", "tpu": "tpu"}  # extras of this package
_CUDA_PLUGINS = ("jax_cuda13_plugin", "jax_cuda12_plugin")
_VISIBLE = "CUDA_VISIBLE_DEVICES"
_CAPABILITY = re.compile(r"\d+\.\d+")  # AMD's GPUs have names such as gfx90a instead
_BFLOAT16_SINCE = (8, 0)  # compute capability of NVIDIA's first GPUs with native bfloat16
_ABSENT = re.compile(r"is not in the list of known backends|libtpu\.so: cannot open|Unknown back")
_ADVICE = re.compile(r" ?\((set JAX_PLATFORMS|you may need to)[^)]*\)")


@dataclasses.dataclass(frozen=True)
class Description:
  """The devices that a program is for.

  Attributes:
    platform: 'cpu', 'gpu' or 'tpu'.
    kind: Such as 'NVIDIA H100 80GB HBM3'.
    bytes: Free memory of the device that has the least; None if unknown, as on CPU, where devices
      share the memory of the host.
    count: Number of devices, of all processes.
    local_count: Number of devices of this process.
    compute_capability: Lowest of NVIDIA's GPUs, of all processes, such as '9.0'; None if there are
      none.
  """

  platform: str
  kind: str
  bytes: int | None
  count: int
  local_count: int
  compute_capability: str | None = None

  @property
  def lacks_bfloat16(self) -> bool:
    """Whether it is an NVIDIA GPU that computes in bfloat16 only by way of float32 (T4, V100)."""
    capability = self.compute_capability
    return capability is not None and _version(capability) < _BFLOAT16_SINCE


def describe(devices: Sequence[jax.Device] | None = None) -> Description:
  """Describes devices as they are now; the one place that asks JAX.

  Args:
    devices: Real or compile-only devices; default: all of this run.
  """
  devices = jax.devices() if devices is None else devices
  local = [d for d in devices if d.process_index == jax.process_index()]
  free = [_free_bytes(d) for d in local]
  known = [f for f in free if f is not None]
  capabilities = (str(getattr(d, "compute_capability", "")) for d in devices)
  return Description(
    platform=devices[0].platform,
    kind=devices[0].device_kind,
    bytes=min(known) if known and len(known) == len(free) else None,
    count=len(devices),
    local_count=len(local),
    compute_capability=min(filter(_CAPABILITY.fullmatch, capabilities), key=_version, default=None),
  )


def _version(capability: str) -> tuple[int, ...]:
  return tuple(map(int, capability.split(".")))


def _free_bytes(device: jax.Device) -> int | None:
  with contextlib.suppress(jax.errors.JaxRuntimeError):  # a compile-only device has no memory
    stats = device.memory_stats() or {}
    return stats["bytes_limit"] - stats.get("bytes_in_use", 0) if "bytes_limit" in stats else None
  return None


def compute_dtype(name: str, description: Description) -> np.dtype[Any]:
  """Returns the dtype of convolutions for a config's 'auto', 'float32' or 'bfloat16'.

  'auto' is bfloat16 where devices compute in it natively. All processes of a run get the same.
  """
  if name == "auto":
    slow = description.platform == "cpu" or description.lacks_bfloat16
    name = "float32" if slow else "bfloat16"
  return jnp.dtype(name)


def dtype_remark(name: str, description: Description) -> str | None:
  """Returns a sentence if 'auto' is float32 on an accelerator; else None."""
  if name != "auto" or not description.lacks_bfloat16:
    return None
  return (
    f"dtype=auto computes in float32: {description.kind}, compute capability "
    f"{description.compute_capability}, has no native bfloat16 (8.0 and later have)."
  )


def resident_memory(description: Description) -> float:
  """Returns the bytes that a data set may take on each device, and on the host for its copy.

  All processes of a run must call this together.
  """
  free = host_memory()
  if description.bytes is not None:
    return min(description.bytes, free)
  return free / (description.local_count + 1)


def host_memory() -> float:
  """Returns the bytes of main memory that this process may still use.

  Processes of the run on the same machine share its free memory; all processes must call this
  together.
  """
  host = np.uint32(zlib.crc32(platform.node().encode()))
  return machine.free_memory() / int((multihost_utils.process_allgather(host) == host).sum())


def require() -> None:
  """Initialises JAX's platform.

  Raises:
    UserError: JAX can't use the requested platform, or one that it found.
  """
  try:
    jax.block_until_ready(jax.device_put(0))  # a busy device may fail only here
  except Exception as e:  # RuntimeError or AssertionError from JAX, anything from plugins
    raise errors.UserError(_sentence(e)) from e


def use_cpu() -> None:
  """Makes JAX compute on the CPU, whatever the environment says; call it before any computation.

  For commands that compute little, so that they take no accelerator memory from a run.
  """
  jax.config.update("jax_platforms", "cpu")
  jax.config.update("jax_platform_name", "cpu")
  jax.config.update("jax_default_device", None)


def remark() -> str | None:
  """Returns a warning if JAX uses the CPU although a GPU seems to be expected; else None."""
  if jax.default_backend() != "cpu":
    return None
  requested = _requested()
  if requested is not None and requested[1][0] == "cuda":
    why = f"{requested[0]}={','.join(requested[1])} names cuda"
  elif requested is None and any(map(importlib.util.find_spec, _CUDA_PLUGINS)):
    why = "JAX's CUDA plugin is installed"
  else:
    return None
  return f"This run uses the CPU: {why}, but no NVIDIA GPU is visible here."


def _requested() -> tuple[str, list[str]] | None:
  """Returns the variable that names platforms, and the platforms; None if JAX may choose."""
  for name in _SETTINGS:
    # JAX lets one of them be set, but not read; a program may also set a device.
    if value := getattr(jax.config, name, os.environ.get(name.upper())):
      return name.upper(), str(getattr(value, "platform", value)).split(",")
  return None


def _sentence(error: Exception) -> str:
  requested = _requested()
  text = re.sub(_ADVICE, "", " ".join(str(error).split())).rstrip(".")
  if requested is None:
    hidden = os.environ.get(_VISIBLE) in ("", "-1")
    hint = f" ({_VISIBLE}={os.environ[_VISIBLE]} hides every GPU)" if hidden else ""
    return (
      f"JAX can't use a device that it found: {text or type(error).__name__}{hint}. Free or repair "
      f"the device, or set JAX_PLATFORMS=cpu to use the CPU."
    )
  variable, names = requested
  change = "Change it"
  if unknown := [n for n in names if n not in _NAMES]:
    text = f"unknown platform {unknown[0]!r}; JAX's platforms are {', '.join(_NAMES)}"
  elif not text or _ABSENT.search(text):
    name = next((n for n in names if n != "cpu"), "cpu")
    text = f"no {name} device is visible, or JAX's support for it isn't installed"
    if extra := _INSTALL.get(name):
      change = f"Install support with `pip install -e '.[{extra}]'`"
  return (
    f"{variable}={','.join(names)} can't be used here: {text}. {change}, or unset {variable} to "
    f"let JAX choose."
  )
