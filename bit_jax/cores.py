"""How many processor cores this process may use."""

import os


def usable() -> int:
  """Returns their number, of which a container, a cluster or `taskset` may have cut some."""
  if hasattr(os, "sched_getaffinity"):  # on Linux
    return len(os.sched_getaffinity(0))
  return os.cpu_count() or 1
