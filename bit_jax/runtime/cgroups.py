"""The control groups of this process, through which containers and jobs limit what it may use."""

import contextlib
import pathlib
from collections.abc import Iterator

_MEMBERSHIP = pathlib.Path("/proc/self/cgroup")
_ROOT = pathlib.Path("/sys/fs/cgroup")


def folders(controller: str) -> Iterator[tuple[pathlib.Path, int]]:
  """Yields the folder of each group that this process is in and each above it, with its version.

  A limit of any of them holds. A folder needn't exist: in a container, whose own group is the root
  of what it sees, only the last of each version does.

  Args:
    controller: Such as 'memory' or 'cpu'.
  """
  with contextlib.suppress(OSError, ValueError):
    for line in _MEMBERSHIP.read_text("utf-8", "surrogateescape").splitlines():
      _, controllers, path = line.split(":", 2)
      own = pathlib.PurePosixPath(path.lstrip("/"))
      for group in (own, *own.parents):
        if not controllers:
          yield _ROOT / group, 2
        elif controller in controllers.split(","):
          for mount in dict.fromkeys((controller, controllers)):  # such as 'cpu' and 'cpu,cpuacct'
            yield _ROOT / mount / group, 1
