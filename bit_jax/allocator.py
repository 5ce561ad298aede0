"""How this process's C library treats memory that is freed."""

import ctypes
import os
from collections.abc import Mapping
from typing import Any

# malloc.h of glibc: M_ARENA_MAX, M_MMAP_MAX, M_TRIM_THRESHOLD.
_KEEP = {-8: 1, -4: 0, -1: -1}
_DEFAULT = {-8: 0, -4: 65536, -1: 128 * 1024}


def keep_freed(environment: Mapping[str, str] = os.environ) -> bool:
  """Has glibc keep what is freed, for what is taken next; returns whether it does so.

  XLA's CPU backend takes the memory of a step anew at every step: some 650 MB for R50x1 at 128
  pixels and batch 16, which glibc gives back to the system each time, to be handed out and zeroed
  page by page at the next (200,000 page faults, half a second of a core). Kept, that takes nothing.
  The process then stays as large as it has ever been.

  To be called before JAX looks for devices, whose threads would have heaps of their own; where they
  turn out to be accelerators, `return_freed` undoes it.

  Args:
    environment: Whoever sets `MALLOC_...` or `GLIBC_TUNABLES` in it keeps what was set.
  """
  return not _is_set(environment) and _set(_KEEP)


def return_freed(environment: Mapping[str, str] = os.environ) -> None:
  """Has glibc give large pieces back to the system once they are freed, much as by default."""
  if not _is_set(environment):
    _set(_DEFAULT)


def trim() -> None:
  """Has glibc give back to the system what is free now, so that it counts as free there too."""
  if malloc_trim := _function("malloc_trim"):
    malloc_trim(0)


def _is_set(environment: Mapping[str, str]) -> bool:
  return any(name.startswith("MALLOC_") or name == "GLIBC_TUNABLES" for name in environment)


def _set(settings: Mapping[int, int]) -> bool:
  mallopt = _function("mallopt")
  return mallopt is not None and all(mallopt(name, value) for name, value in settings.items())


def _function(name: str) -> Any:
  """Returns a function of the C library, or None if it has none of that name."""
  return getattr(ctypes.CDLL(None), name, None) if os.name == "posix" else None
