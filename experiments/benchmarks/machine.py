"""What a figure was measured on: processor, accelerator, versions; and the memory of a process.

Needs the standard library alone, so that a worker of another environment (PyTorch's) imports it
too.
"""

import contextlib
import dataclasses
import importlib.metadata
import pathlib
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence

from bit_jax.runtime import machine

MATMUL_SIDE = 2048  # of the matrices whose product shows what the processor can do

_STATUS = pathlib.Path("/proc/self/status")
_CLEAR = pathlib.Path("/proc/self/clear_refs")
_KIBIBYTE = 1024
_TRIES = 6  # of the product, of which the first may compile


@dataclasses.dataclass(frozen=True)
class Machine:
  """The hardware.

  Attributes:
    processor: The model of the CPU.
    cores: CPU cores that this process may use.
    accelerators: Names of the GPUs, without the driver's memory and clocks; empty for none.
  """

  processor: str
  cores: int
  accelerators: tuple[str, ...]

  def __str__(self) -> str:
    """Returns one line."""
    cpu = f"{self.processor}, {self.cores} cores"
    return ", ".join((*self.accelerators, cpu))


def describe() -> Machine:
  """Returns this machine."""
  return Machine(_processor(), machine.usable_cores(), _gpus())


def versions(packages: Sequence[str]) -> dict[str, str]:
  """Returns {package: version} of those that are installed here, and of Python."""
  found = {"python": platform.python_version()}
  for package in packages:
    try:
      found[package] = importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
      continue
  return found


def versions_of(python: str, packages: Sequence[str]) -> dict[str, str]:
  """Returns {package: version} of those that another Python has; {} if it can't be run."""
  source = "import importlib.metadata as m, sys\nfor p in sys.argv[1:]: print(p, m.version(p))"
  listed = _output(python, "-c", source, *packages)
  return dict(line.split() for line in listed.splitlines())


def commit() -> str:
  """Returns the checkout's commit, with '+' if files differ from it; '' without git."""
  folder = pathlib.Path(__file__).parent
  described = _output("git", "-C", str(folder), "describe", "--always", "--abbrev=10")
  changed = _output("git", "-C", str(folder), "status", "--porcelain", "--untracked-files=no")
  return described + ("+" if changed else "")


def matmul_flops(multiply: Callable[[], object]) -> float:
  """Returns the FLOP/s of the best of some products of two square matrices.

  Args:
    multiply: Multiplies two matrices of `MATMUL_SIDE`, and waits for its end.
  """
  times = []
  for _ in range(_TRIES):
    start = time.perf_counter()
    multiply()
    times.append(time.perf_counter() - start)
  return 2 * MATMUL_SIDE**3 / min(times)


def peak_memory() -> int:
  """Returns the most bytes of main memory that this process has held at once.

  Linux's own record of it where there is one: what `getrusage` says includes the parent's.
  """
  recorded = _status("VmHWM")
  if recorded is not None:
    return recorded
  peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  return peak if sys.platform == "darwin" else peak * _KIBIBYTE


def reset_peak_memory() -> None:
  """Lets `peak_memory` begin anew at what is in use now; without effect elsewhere than on Linux.

  What was freed after use, by a compiler for example, is given back to the system first.
  """
  machine.trim_memory()
  with contextlib.suppress(OSError):
    _CLEAR.write_text("5")


def held_memory() -> int:
  """Returns the bytes of main memory that this process holds now (not on Linux: its peak)."""
  held = _status("VmRSS")
  return peak_memory() if held is None else held


def _status(field: str) -> int | None:
  """Returns a field of Linux's record of this process, in bytes; None where there is none."""
  if not _STATUS.exists():
    return None
  for line in _STATUS.read_text().splitlines():
    if line.startswith(f"{field}:"):
      return int(line.split()[1]) * _KIBIBYTE
  return None


def _processor() -> str:
  cpuinfo = pathlib.Path("/proc/cpuinfo")
  if cpuinfo.exists():
    for line in cpuinfo.read_text().splitlines():
      if line.startswith("model name"):
        return line.partition(":")[2].strip()
  return platform.processor() or platform.machine()


def _gpus() -> tuple[str, ...]:
  names = _output("nvidia-smi", "--query-gpu=name", "--format=csv,noheader")
  return tuple(names.splitlines())


def _output(*command: str) -> str:
  """Returns what a command prints, '' if it can't be run or fails."""
  try:
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
  except (OSError, subprocess.SubprocessError):
    return ""
  return ran.stdout.strip()
