"""How many processor cores this process may use."""

import contextlib
import math
import os
from collections.abc import Iterator

from bit_jax.runtime import cgroups, errors

LIMIT = "BIT_JAX_CORES"  # how many this process may use at most, beside others


def usable() -> int:
  """Returns their number, at least 1; `taskset`, a container, a job or `LIMIT` may leave some only.

  A quota of processor time counts as so many cores, rounded up.

  Raises:
    UserError: `LIMIT` is set to something else than a whole number of at least 1.
  """
  return int(min(len(bound()), _limit(), *map(math.ceil, _quotas())))


def bound() -> list[int]:
  """Returns the numbers of the cores that this process is bound to, sorted; all where none is."""
  if hasattr(os, "sched_getaffinity"):  # on Linux
    return sorted(os.sched_getaffinity(0))
  return list(range(os.cpu_count() or 1))


def _limit() -> float:
  text = os.environ.get(LIMIT)
  if text is None:
    return math.inf
  if not text.isdecimal() or int(text) < 1:
    raise errors.UserError(f"{LIMIT}={text} is no number of cores: give a whole number, from 1 up.")
  return int(text)


def _quotas() -> Iterator[float]:
  """Yields the cores that each of this process's groups grants, as parts of a period's time."""
  for folder, version in cgroups.folders("cpu"):
    with contextlib.suppress(OSError, ValueError, ZeroDivisionError):  # or 'max': no limit
      if version == 2:
        quota, period = (folder / "cpu.max").read_text().split()
      else:
        quota = (folder / "cpu.cfs_quota_us").read_text()
        period = (folder / "cpu.cfs_period_us").read_text()
      if (granted := int(quota) / int(period)) > 0:  # -1: no limit
        yield granted
