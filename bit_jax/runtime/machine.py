"""The machine of this process: its cores, its free memory, and how its C library keeps memory.

Containers and jobs limit cores and memory through control groups (cgroups, version 1 or 2). A limit
of any group that holds this process applies.
"""

import contextlib
import ctypes
import importlib.util
import math
import mmap
import os
import pathlib
import resource
from collections.abc import Iterator, Mapping
from importlib import metadata

from bit_jax.runtime import errors

CORES = "BIT_JAX_CORES"  # the most cores that this process may use
MEMORY_SHARE = "BIT_JAX_MEMORY_SHARE"  # the fraction of free memory that this process may use

_CGROUP_MEMBERSHIP = pathlib.Path("/proc/self/cgroup")
_CGROUP_ROOT = pathlib.Path("/sys/fs/cgroup")
_OVERCOMMIT = pathlib.Path("/proc/sys/vm/overcommit_memory")
# For each cgroup version: files of limit and usage, and the field of reclaimable memory.
_CGROUP_MEMORY = {
  2: ("memory.max", "memory.current", "inactive_file"),
  1: ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
}
# Address space that a run still needs for libraries and threads, mostly TensorFlow's.
_LIBRARIES = 2 << 30
# malloc.h of glibc: M_ARENA_MAX, M_MMAP_MAX, M_TRIM_THRESHOLD.
_KEEP_FREED = {-8: 1, -4: 0, -1: -1}
_HUGE_PAGE = 2 << 20  # bytes, on x86-64 and on most ARM systems
_keeps_freed = False  # whether `keep_freed_memory` changed this process


def usable_cores() -> int:
  """Returns how many cores this process may use, at least 1.

  Affinity (`taskset`), cgroup quotas and `CORES` can each lower the number. A quota of processor
  time is rounded up to whole cores.

  Raises:
    UserError: `CORES` is not a whole number of at least 1.
  """
  text = os.environ.get(CORES)
  if text is not None and not (text.isdecimal() and int(text) >= 1):
    raise errors.UserError(f"{CORES} must be a whole number of at least 1, not {text!r}.")
  limit = math.inf if text is None else int(text)
  return int(min(len(bound_cores()), limit, *map(math.ceil, _cgroup_cores())))


def bound_cores() -> list[int]:
  """Returns the sorted ids of the cores that this process is bound to; all if it is not bound."""
  if hasattr(os, "sched_getaffinity"):  # on Linux
    return sorted(os.sched_getaffinity(0))
  return list(range(os.cpu_count() or 1))


def free_memory() -> int:
  """Returns the bytes that this process may still use.

  The minimum over the machine, its cgroups and `ulimit -v`, times `MEMORY_SHARE`, which is set
  where several processes plan their memory at the same time.

  Raises:
    UserError: `MEMORY_SHARE` is not a number in (0, 1].
  """
  import psutil  # benchmarks run where it is not installed

  free = [psutil.virtual_memory().available, *_cgroup_memory()]
  limit, _ = resource.getrlimit(resource.RLIMIT_AS)
  if limit != resource.RLIM_INFINITY:
    free.append(limit - psutil.Process().memory_info().vms - _LIBRARIES)
  return int(memory_share() * max(0, min(free)))


def memory_share() -> float:
  """Returns `MEMORY_SHARE`: the fraction of free memory that this process may use, in (0, 1].

  Raises:
    UserError: It is not a number in (0, 1].
  """
  text = os.environ.get(MEMORY_SHARE, "1")
  with contextlib.suppress(ValueError):
    if 0 < (share := float(text)) <= 1:
      return share
  raise errors.UserError(f"{MEMORY_SHARE} must be in (0, 1], for example 0.5, not {text!r}.")


def keep_freed_memory(environment: Mapping[str, str] = os.environ) -> bool:
  """Makes glibc keep freed memory for later allocations, in huge pages; returns whether it does.

  XLA's CPU backend allocates the memory of a step again at every step: some 650 MB for R50x1 at 128
  pixels and batch 16. By default glibc returns it to the system each time, which zeroes it page by
  page for the next step (200,000 page faults, half a second of a core). With this setting the
  process stays as large as it has ever been, and huge pages, where the system grants them on
  request, save most of the faults that are left, and the processor a tenth of a step (R50x1, 128
  pixels).

  It grows to up to three times a step's memory. The next step's is allocated before this one's is
  freed, and glibc (2.36) often can't put an aligned block where one of the same size was: it looks
  for a few bytes more, which small blocks have taken.

  Call it before JAX looks for devices: its threads would get heaps of their own. It can't be
  undone, so it does nothing where JAX may find an accelerator, whose steps take no host memory.

  Args:
    environment: `MALLOC_...` and `GLIBC_TUNABLES` in it take precedence.
  """
  user_set = any(name.startswith("MALLOC_") or name == "GLIBC_TUNABLES" for name in environment)
  if user_set or _may_have_accelerators(environment):
    return False
  libc = ctypes.CDLL(None)
  mallopt = getattr(libc, "mallopt", None)
  kept = mallopt is not None and all(mallopt(name, value) for name, value in _KEEP_FREED.items())
  if kept:
    global _keeps_freed
    _keeps_freed = True
    _use_huge_pages(libc)
  return kept


def _use_huge_pages(libc: ctypes.CDLL) -> None:
  """Asks for huge pages where the heap is going to grow, until it is trimmed.

  The block is never touched, so it takes address space only. `ulimit -v` limits that, and strict
  accounting (vm.overcommit_memory=2) counts it as memory: there the heap keeps its small pages.
  """
  if not hasattr(mmap, "MADV_HUGEPAGE"):
    return
  if resource.getrlimit(resource.RLIMIT_AS)[0] != resource.RLIM_INFINITY or _strict_accounting():
    return
  machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
  size = ctypes.c_size_t(machine * 15 // 16)  # Linux refuses blocks of more than the machine has
  libc.malloc.restype = ctypes.c_void_p
  if (start := libc.malloc(size)) is None:
    return
  libc.free(ctypes.c_void_p(start))
  first = -(-start // _HUGE_PAGE) * _HUGE_PAGE
  length = ctypes.c_size_t((start + size.value - first) // _HUGE_PAGE * _HUGE_PAGE)
  libc.madvise(ctypes.c_void_p(first), length, mmap.MADV_HUGEPAGE)


def _strict_accounting() -> bool:
  """Returns whether the system counts memory when it is allocated, not when it is used."""
  with contextlib.suppress(OSError):
    return _OVERCOMMIT.read_text().strip() == "2"
  return False


def trim_memory() -> None:
  """Makes glibc return its free memory to the system, so that `free_memory` counts it."""
  libc = ctypes.CDLL(None)
  if malloc_trim := getattr(libc, "malloc_trim", None):
    malloc_trim(0)
    if _keeps_freed:
      _use_huge_pages(libc)  # the heap ends where its last block does, and so did they


def _may_have_accelerators(environment: Mapping[str, str]) -> bool:
  """Returns whether JAX_PLATFORMS names another platform, or a plugin for one is installed."""
  if platforms := environment.get("JAX_PLATFORMS"):
    return platforms != "cpu"
  installed = any(importlib.util.find_spec(name) for name in ("jax_plugins", "libtpu"))
  return installed or bool(metadata.entry_points(group="jax_plugins"))


def _cgroups(controller: str) -> Iterator[tuple[pathlib.Path, int]]:
  """Yields (folder, version) of each cgroup of this process and of each group above it.

  Some folders may not exist: a container sees its own group as the root.

  Args:
    controller: Such as 'memory' or 'cpu'.
  """
  with contextlib.suppress(OSError, ValueError):
    for line in _CGROUP_MEMBERSHIP.read_text("utf-8", "surrogateescape").splitlines():
      _, controllers, path = line.split(":", 2)
      own = pathlib.PurePosixPath(path.lstrip("/"))
      for group in (own, *own.parents):
        if not controllers:
          yield _CGROUP_ROOT / group, 2
        elif controller in controllers.split(","):
          for mount in dict.fromkeys((controller, controllers)):  # such as 'cpu' and 'cpu,cpuacct'
            yield _CGROUP_ROOT / mount / group, 1


def _cgroup_cores() -> Iterator[float]:
  """Yields the quota of processor time of each cgroup that has one, in cores."""
  for folder, version in _cgroups("cpu"):
    with contextlib.suppress(OSError, ValueError, ZeroDivisionError):  # 'max' is no limit
      if version == 2:
        quota, period = (folder / "cpu.max").read_text().split()
      else:
        quota = (folder / "cpu.cfs_quota_us").read_text()
        period = (folder / "cpu.cfs_period_us").read_text()
      if (cores := int(quota) / int(period)) > 0:  # -1 is no limit
        yield cores


def _cgroup_memory() -> Iterator[int]:
  """Yields the bytes that each cgroup with a limit has left."""
  for folder, version in _cgroups("memory"):
    limit_file, usage_file, reclaimable = _CGROUP_MEMORY[version]
    with contextlib.suppress(OSError, ValueError):  # 'max' is no limit
      limit = int((folder / limit_file).read_text())
      statistics = (folder / "memory.stat").read_text().split()
      cached = int(statistics[statistics.index(reclaimable) + 1])
      yield limit - int((folder / usage_file).read_text()) + cached
