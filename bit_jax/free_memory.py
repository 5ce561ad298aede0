"""How much memory of the machine this process may still take."""

import contextlib
import os
import pathlib
import resource
from collections.abc import Iterator

import psutil

from bit_jax import errors

SHARE = "BIT_JAX_MEMORY_SHARE"  # the part of it that this process may plan with, beside others
_MEMBERSHIP = pathlib.Path("/proc/self/cgroup")
_CGROUPS = pathlib.Path("/sys/fs/cgroup")
# Of cgroups of version 2 and 1: the files of limit and use, and what of the use can be taken back.
_FILES = {
  2: ("memory.max", "memory.current", "inactive_file"),
  1: ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
}

# Address space that a run still takes for libraries and threads, TensorFlow's above all.
_LIBRARIES = 2 << 30


def available() -> int:
  """Returns the bytes that are free in the machine, in its container or job, and by `ulimit -v`.

  Of several processes that plan at the same time each is told its share by the environment
  (`SHARE`, in (0, 1]).

  Raises:
    UserError: The share isn't such a number.
  """
  free = [psutil.virtual_memory().available, *_free_in_cgroups()]
  limit, _ = resource.getrlimit(resource.RLIMIT_AS)
  if limit != resource.RLIM_INFINITY:
    free.append(limit - psutil.Process().memory_info().vms - _LIBRARIES)
  return int(_share() * max(0, min(free)))


def _share() -> float:
  text = os.environ.get(SHARE, "1")
  try:
    share = float(text)
  except ValueError:
    share = 0.0
  if not 0 < share <= 1:
    raise errors.UserError(f"{SHARE}={text} is no part of the memory: it takes 0.5 for a half.")
  return share


def _free_in_cgroups() -> Iterator[int]:
  """Yields what each group that this process is in, and each above it, has left."""
  for folder, version in _cgroups():
    limit_file, use_file, reclaimable = _FILES[version]
    with contextlib.suppress(OSError, ValueError):  # no such group, or 'max': no limit
      limit = int((folder / limit_file).read_text())
      statistics = (folder / "memory.stat").read_text().split()
      cached = int(statistics[statistics.index(reclaimable) + 1])
      yield limit - int((folder / use_file).read_text()) + cached


def _cgroups() -> Iterator[tuple[pathlib.Path, int]]:
  """Yields the folders of the groups, with their version.

  In a container, whose own group is the root of what it sees, only the last of each exists.
  """
  with contextlib.suppress(OSError):
    for line in _MEMBERSHIP.read_text().splitlines():
      _, controllers, path = line.split(":", 2)
      if controllers and "memory" not in controllers.split(","):
        continue
      own = pathlib.PurePosixPath(path.lstrip("/"))
      root = _CGROUPS / "memory" if controllers else _CGROUPS
      for group in (own, *own.parents):
        yield root / group, 1 if controllers else 2
