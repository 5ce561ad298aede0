"""How this process's C library treats memory that is freed."""

import ctypes
import importlib.util
import os
from collections.abc import Mapping
from importlib import metadata
from typing import Any

# malloc.h of glibc: M_ARENA_MAX, M_MMAP_MAX, M_TRIM_THRESHOLD.
_KEEP = {-8: 1, -4: 0, -1: -1}


def keep_freed(environment: Mapping[str, str] = os.environ) -> bool:
  """Has glibc keep what is freed, for what is taken next; returns whether it does so.

  XLA's CPU backend takes the memory of a step anew at every step: some 650 MB for R50x1 at 128
  pixels and batch 16, which glibc gives back to the system each time, to be handed out and zeroed
  page by page at the next (200,000 page faults, half a second of a core). Kept, that takes nothing.
  The process then stays as large as it has ever been.

  To be called before JAX looks for devices, whose threads would have heaps of their own. It can't
  be undone; so it does nothing where JAX may find an accelerator, whose steps take no memory here.

  Args:
    environment: Whoever sets `MALLOC_...` or `GLIBC_TUNABLES` in it keeps what was set.
  """
  if _is_set(environment) or _may_have_accelerators(environment):
    return False
  mallopt = _function("mallopt")
  return mallopt is not None and all(mallopt(name, value) for name, value in _KEEP.items())


def trim() -> None:
  """Has glibc give back to the system what is free now, so that it counts as free there too."""
  if malloc_trim := _function("malloc_trim"):
    malloc_trim(0)


def _is_set(environment: Mapping[str, str]) -> bool:
  return any(name.startswith("MALLOC_") or name == "GLIBC_TUNABLES" for name in environment)


def _may_have_accelerators(environment: Mapping[str, str]) -> bool:
  """Returns whether JAX was told of other platforms, or its support for one is installed."""
  if platforms := environment.get("JAX_PLATFORMS"):
    return platforms != "cpu"
  installed = any(importlib.util.find_spec(name) for name in ("jax_plugins", "libtpu"))
  return installed or bool(metadata.entry_points(group="jax_plugins"))


def _function(name: str) -> Any:
  """Returns a function of the C library, or None if it has none of that name."""
  return getattr(ctypes.CDLL(None), name, None) if os.name == "posix" else None
