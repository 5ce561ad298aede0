"""The system that this process runs on, in words: for reports of bugs.

Every function returns what it finds, and says 'unknown' of the rest.
"""

import contextlib
import pathlib
import platform
import shutil
import sys
import sysconfig

from bit_jax.runtime import machine, phrases, subprocesses

_CPU = pathlib.Path("/proc/cpuinfo")
# Instructions that decide on the speed and the rounding of XLA's programs for CPU.
_FLAGS = (
  *("avx", "avx2", "fma", "f16c", "avx512f", "avx512_bf16", "avx512_fp16", "avx_vnni"),
  *("avx512_vnni", "amx_bf16", "amx_tile", "asimd", "sve", "sve2", "bf16", "i8mm"),
)
_GPU_QUERY = ("--query-gpu=name,driver_version,memory.total,compute_cap", "--format=csv,noheader")
_SECONDS = 10  # that a driver may take to answer
_TPU_DEVICES = ("accel*", "vfio/[0-9]*")


def python() -> str:
  """Returns the version of Python, and what kind of installation it is."""
  kind = platform.python_implementation()
  threads = ", without the GIL" if sysconfig.get_config_var("Py_GIL_DISABLED") else ""
  where = ", in a virtual environment" if sys.prefix != sys.base_prefix else ""
  return f"{platform.python_version()} ({kind}{threads}{where})"


def operating_system() -> str:
  """Returns kernel, distribution and C library."""
  parts = [f"{platform.system()} {platform.release()} {platform.machine()}"]
  with contextlib.suppress(OSError):
    parts.append(platform.freedesktop_os_release()["PRETTY_NAME"])
  if library := " ".join(platform.libc_ver()).strip():
    parts.append(library)
  return ", ".join(parts)


def processor() -> str:
  """Returns the model of the processor and those of its instructions that matter."""
  fields: dict[str, str] = {}
  with contextlib.suppress(OSError):
    for line in _CPU.read_text(errors="replace").splitlines():
      name, _, value = line.partition(":")
      fields.setdefault(name.strip(), value.strip())
  model = fields.get("model name") or platform.processor() or "unknown"
  has = fields.get("flags", fields.get("Features", "")).split()
  return ", ".join([model, " ".join(flag for flag in _FLAGS if flag in has) or "flags unknown"])


def cores() -> str:
  """Returns how many cores this process may use, and how many it is bound to."""
  usable, bound = machine.usable_cores(), len(machine.bound_cores())
  return f"{phrases.counted(usable, 'core')} usable, bound to {bound}"


def memory() -> str:
  """Returns the machine's memory, and what this process may still use."""
  import psutil

  total, free = psutil.virtual_memory().total, machine.free_memory()
  return f"{phrases.file_size(total)}, {phrases.file_size(free)} free for this process"


def accelerators() -> list[str]:
  """Returns a line for each NVIDIA GPU, with its driver, and one on the TPU devices, if any."""
  found = []
  with contextlib.suppress(OSError):
    ended = subprocesses.run(["nvidia-smi", *_GPU_QUERY], _SECONDS)
    if ended is None:
      found.append(f"nvidia-smi did not answer within {_SECONDS} seconds")
    elif ended.status:
      found.append(f"nvidia-smi failed: {' '.join((ended.output + ended.errors).split())}")
    else:
      found += ended.output.splitlines()
  for pattern in _TPU_DEVICES:
    if count := len(list(pathlib.Path("/dev").glob(pattern))):
      found.append(f"{phrases.counted(count, 'device')} /dev/{pattern}")
  return found


def free_space(folder: pathlib.Path) -> int:
  """Returns the bytes that are free where a folder is, or would be."""
  there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
  return shutil.disk_usage(there).free
