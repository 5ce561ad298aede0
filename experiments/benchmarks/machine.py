"""The machine of a measurement: processor, accelerators, versions, and the memory of a process.

Needs only the standard library, so that workers of other environments (PyTorch) can import it.
"""

import contextlib
import pathlib
import platform
import re
import resource
import subprocess
import sys
from collections.abc import Sequence

from bit_jax.runtime import machine

_KIBIBYTE = 1024


def describe() -> str:
  """Returns accelerators, processor and number of usable cores in one line."""
  processor = _found(r"^model name\s*: (.*)", "/proc/cpuinfo") or platform.processor()
  cores = f"{processor or platform.machine()}, {machine.usable_cores()} cores"
  return ", ".join((*accelerators(), cores))


def accelerators() -> tuple[str, ...]:
  """Returns the names of the GPUs."""
  return tuple(_output("nvidia-smi", "--query-gpu=name", "--format=csv,noheader").splitlines())


def compute_capability() -> str | None:
  """Returns the lowest compute capability of the GPUs, such as '9.0'; None without one."""
  found = _output("nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader").splitlines()
  known = filter(re.compile(r"\d+\.\d+").fullmatch, found)  # a driver may say '[N/A]'
  return min(known, key=lambda capability: [*map(int, capability.split("."))], default=None)


def versions(packages: Sequence[str], python: str = sys.executable) -> dict[str, str]:
  """Returns {package: version} of those that a Python has; {} if it can't be run."""
  source = "import importlib.metadata as m\nfor d in m.distributions(): print(d.name, d.version)"
  lines = _output(python, "-c", source).splitlines()
  installed = {name.lower(): version for name, version in map(str.split, lines)}
  return {package: installed[package] for package in packages if package in installed}


def commit() -> str:
  """Returns the checkout's commit, with '+' if files differ from it; '' without git."""
  git = ("git", "-C", str(pathlib.Path(__file__).parent))
  changed = _output(*git, "status", "--porcelain", "--untracked-files=no")
  return _output(*git, "describe", "--always", "--abbrev=10") + ("+" if changed else "")


def peak_memory() -> int:
  """Returns the peak of this process's main memory in bytes."""
  if peak := _status("VmHWM"):  # `getrusage` on Linux includes the parent's
    return peak
  peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  return peak if sys.platform == "darwin" else peak * _KIBIBYTE


def reset_peak_memory() -> None:
  """Makes `peak_memory` start again from the memory in use; works on Linux only.

  Memory that was freed, by a compiler for example, is returned to the system first.
  """
  machine.trim_memory()
  with contextlib.suppress(OSError):
    pathlib.Path("/proc/self/clear_refs").write_text("5")


def held_memory() -> int:
  """Returns this process's main memory in bytes (its peak, on other systems than Linux)."""
  return _status("VmRSS") or peak_memory()


def _status(field: str) -> int:
  """Returns a size in bytes from this process's status; 0 on other systems than Linux."""
  return _KIBIBYTE * int(_found(rf"^{field}:\s*(\d+)", "/proc/self/status") or 0)


def _found(pattern: str, path: str) -> str:
  """Returns the first group of a pattern's first match in a file; '' without one."""
  with contextlib.suppress(OSError):
    if match := re.search(pattern, pathlib.Path(path).read_text(), re.MULTILINE):
      return match[1]
  return ""


def _output(*command: str) -> str:
  """Returns what a command prints, '' if it can't be run or fails."""
  try:
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
  except (OSError, subprocess.SubprocessError):
    return ""
  return ran.stdout.strip()
