"""How much memory of the machine this process may still take."""

import contextlib
import os
import resource
from collections.abc import Iterator

import psutil

from bit_jax.runtime import cgroups, errors

SHARE = "BIT_JAX_MEMORY_SHARE"  # the part of it that this process may plan with, beside others
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
  return int(share() * max(0, min(free)))


def share() -> float:
  """Returns the part of the free memory that this process may plan with, in (0, 1].

  Raises:
    UserError: `SHARE` isn't such a number.
  """
  text = os.environ.get(SHARE, "1")
  try:
    part = float(text)
  except ValueError:
    part = 0.0
  if not 0 < part <= 1:
    raise errors.UserError(f"{SHARE}={text} is no part of the memory: it takes 0.5 for a half.")
  return part


def _free_in_cgroups() -> Iterator[int]:
  """Yields what each group that this process is in, and each above it, has left."""
  for folder, version in cgroups.folders("memory"):
    limit_file, use_file, reclaimable = _FILES[version]
    with contextlib.suppress(OSError, ValueError):  # no such group, or 'max': no limit
      limit = int((folder / limit_file).read_text())
      statistics = (folder / "memory.stat").read_text().split()
      cached = int(statistics[statistics.index(reclaimable) + 1])
      yield limit - int((folder / use_file).read_text()) + cached
