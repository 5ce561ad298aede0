"""Assigns each worker of a sweep its device, and its share of memory and cores."""

import dataclasses
import os
import subprocess
import sys
from collections.abc import Mapping

from bit_jax.runtime import errors, machine

# Variables that show a process only some of the machine's devices: CUDA's, ROCm's, libtpu's.
_VISIBLE = {
  "cuda": "CUDA_VISIBLE_DEVICES",
  "rocm": "HIP_VISIBLE_DEVICES",
  "tpu": "TPU_VISIBLE_CHIPS",
}
# For libtpu, a single visible TPU chip is a machine of one chip.
_ONE_CHIP = {"TPU_CHIPS_PER_PROCESS_BOUNDS": "1,1,1", "TPU_PROCESS_BOUNDS": "1,1,1"}
_PROBE = (
  "import jax; from bit_jax.runtime import devices; devices.require(); "
  "d = jax.local_devices(); "
  "print(len(d), d[0].platform, ' '.join(d[0].client.platform_version.split()))"
)


@dataclasses.dataclass(frozen=True)
class Place:
  """Where a worker runs.

  Attributes:
    variables: Environment variables for its device, and its share of memory and cores.
    cores: Processor cores that it may use; None: all.
  """

  variables: Mapping[str, str]
  cores: frozenset[int] | None = None


def local() -> tuple[str, int]:
  """Returns JAX's platform ('cpu', 'cuda', 'rocm', 'tpu') and its number of local devices.

  A process of its own finds them, since a process that uses JAX occupies the devices.

  Raises:
    UserError: JAX finds no device.
  """
  answer = subprocess.run(
    [sys.executable, "-c", _PROBE],
    capture_output=True,
    encoding="utf-8",
    errors="replace",
    start_new_session=True,  # Ctrl-C reaches only this process, which then stops the sweep
  )
  if answer.returncode:
    last = (answer.stderr.strip().splitlines() or ["no reason given."])[-1]
    reason = last.removeprefix(f"{errors.UserError.__module__}.{errors.UserError.__name__}: ")
    raise errors.UserError(f"JAX finds no device: {reason}")
  number, name, version = answer.stdout.strip().splitlines()[-1].split(" ", 2)
  return platform(name, version), int(number)


def platform(name: str, version: str) -> str:
  """Returns 'cpu', 'cuda', 'rocm' or 'tpu'.

  Args:
    name: JAX's: 'cpu', 'gpu', 'cuda', 'rocm' or 'tpu'.
    version: Of JAX's client, such as 'PJRT C API cuda 13000'.

  Raises:
    UserError: It is another one.
  """
  if name == "gpu":
    name = "rocm" if "rocm" in version.lower() else "cuda"
  if name != "cpu" and name not in _VISIBLE:
    raise errors.UserError(
      f"JAX runs on {name} here, whose devices can't be assigned one by one: sweeps support CPU, "
      f"{', '.join(_VISIBLE)}."
    )
  return name


def places(
  kind: str,
  num_devices: int,
  jobs: int | None,
) -> list[Place]:
  """Returns a place for each run at the same time.

  One for each accelerator that this process sees; on CPU one with all cores, or `jobs`. Places
  share the machine's memory and cores equally.

  Args:
    kind: From `local`.
    num_devices: From `local`.
    jobs: How many at most; None: as many as possible.

  Raises:
    UserError: There are fewer devices, or on CPU fewer cores, than `jobs`.
  """
  most = machine.usable_cores() if kind == "cpu" else num_devices
  if jobs is not None and jobs > most:
    what = "processor cores" if kind == "cpu" else f"{kind} devices: each run takes one"
    raise errors.UserError(f"--jobs={jobs} is more than the {most} {what}.")
  if kind == "cpu":
    return _shares(jobs or 1)
  name = _VISIBLE[kind]
  own = os.environ.get(name)
  numbers = own.split(",") if own else [str(i) for i in range(num_devices)]
  numbers = numbers[: jobs or num_devices]
  more = _ONE_CHIP if kind == "tpu" else {}
  return [
    Place({name: number, **more, **share.variables}, share.cores)
    for number, share in zip(numbers, _shares(len(numbers)), strict=True)
  ]


def _shares(count: int) -> list[Place]:
  """Returns places that share the machine's memory and cores, without devices."""
  if count == 1:
    return [Place({})]
  variables = {machine.MEMORY_SHARE: f"{max(0.001, machine.memory_share() / count):.3f}"}
  all_cores = machine.bound_cores()
  binds = hasattr(os, "sched_setaffinity") and len(all_cores) >= count
  # Binding doesn't show a quota of CPU time.
  if not binds or machine.usable_cores() < len(all_cores):
    variables[machine.CORES] = str(max(1, machine.usable_cores() // count))
  return [Place(variables, frozenset(all_cores[i::count]) if binds else None) for i in range(count)]
