"""Runs a sweep on this machine, one run on each device at a time.

Each worker is assigned a device, and its share of the machine's memory and cores.
"""

import contextlib
import dataclasses
import json
import os
import pathlib
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from multiprocessing import connection
from typing import Any

from bit_jax.runtime import errors, machine, numerics, stopping
from experiments.sweeping import executor, grid, queueing, worker

_LOOK = 1.0  # seconds between two looks at the progress of runs
_KILLED = (
  "Its process was killed, most likely because memory ran out; workers.log in the sweep's folder "
  "may say more."
)
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


def find_devices() -> tuple[str, int]:
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
    version: Version of JAX's client, such as 'PJRT C API cuda 13000'.

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


def places(kind: str, num_devices: int, jobs: int | None) -> list[Place]:
  """Returns a place for each run at the same time.

  One for each accelerator that this process sees; on CPU one with all cores, or `jobs`. Places
  share the machine's memory and cores equally.

  Args:
    kind: From `find_devices`.
    num_devices: From `find_devices`.
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
  visible = os.environ.get(name) or ",".join(map(str, range(num_devices)))
  numbers = visible.split(",")[: jobs or num_devices]
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


class _Worker:
  """A process that executes runs on one device, one after the other.

  Attributes:
    run: Name of the run that it executes, None if it is idle.
    variables: Environment variables that its runs need.
    process: The process.
    replies: Its outcomes, one a line.
  """

  def __init__(self, place: Place, variables: Mapping[str, str], lock: int, log: pathlib.Path):
    """Starts the process.

    Args:
      place: Its device.
      variables: Further environment variables.
      lock: The sweep's lock, which the process holds as well: no other sweep begins in the folder
        before it has ended.
      log: File of its output outside of runs.
    """
    self.run: str | None = None
    self.variables = variables
    with log.open("a") as output:
      self.process = subprocess.Popen(
        [sys.executable, "-m", "experiments.sweeping.worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=output,
        text=True,
        env={**os.environ, **place.variables, **variables},
        pass_fds=(lock,),
        start_new_session=True,  # Ctrl-C reaches only this process, which stops the runs
      )
    if place.cores is not None:
      os.sched_setaffinity(self.process.pid, place.cores)
    assert self.process.stdin is not None
    assert self.process.stdout is not None
    self._jobs, self.replies = self.process.stdin, self.process.stdout

  def start(self, name: str, job: worker.Job) -> None:
    self.run = name
    with contextlib.suppress(BrokenPipeError):  # it was killed; the end of its replies shows that
      self._jobs.write(json.dumps(dataclasses.asdict(job)) + "\n")
      self._jobs.flush()

  def stop(self) -> None:
    """Makes it save its run and end."""
    with contextlib.suppress(BrokenPipeError):
      self._jobs.close()

  def kill(self) -> None:
    with contextlib.suppress(ProcessLookupError):
      self.process.kill()
    self.process.wait()
    self.stop()
    self.replies.close()


class Local(executor.Executor):
  """Workers on the devices of this machine."""

  def __init__(
    self, queue: queueing.Queue, stop: stopping.StopRequest, places: Sequence[Place], lock: int
  ):
    """Takes the runs and the devices.

    Args:
      queue: The runs.
      stop: Whether to stop.
      places: One for each worker.
      lock: File descriptor of the sweep's lock.
    """
    super().__init__(queue, stop, len(places))
    self._places, self._lock = places, lock
    self._workers: dict[int, _Worker] = {}  # by the number of the place

  @contextlib.contextmanager
  def session(self) -> Iterator[None]:
    """Ends all processes at the end; saves the runs under way after a stop or an error."""
    try:
      yield
    except Exception:
      for one in self._workers.values():
        one.stop()
      for one in self._workers.values():
        one.process.wait()
      raise
    finally:
      for one in self._workers.values():
        one.kill()

  def start(self, one: grid.Planned, job: worker.Job) -> bool:
    """Gives a run to an idle worker, or to a new one; always True."""
    variables = numerics.deterministic_variables() if one.config.deterministic else {}
    busy = {number for number, other in self._workers.items() if other.run}
    number = min({*range(len(self._places))} - busy)
    idle = self._workers.get(number)
    if idle is None or idle.variables != variables:
      if idle is not None:
        idle.kill()
      log = self.out / "workers.log"
      idle = self._workers[number] = _Worker(self._places[number], variables, self._lock, log)
    idle.start(one.name, job)
    return True

  def poll(self) -> Iterator[executor.Ended]:
    """Yields the runs whose workers have replied or ended."""
    ready = self._ready(0)
    for number, one in list(self._workers.items()):
      if one.replies.fileno() in ready:
        name, outcome = one.run, one.replies.readline().strip()
        one.run = None
        if not outcome:
          self._workers.pop(number).kill()
        if name is not None:  # 'interrupted' if somebody asked the worker itself to stop
          yield executor.Ended(name, outcome == "interrupted", None if outcome else _KILLED)

  def wait(self) -> None:
    """Waits for a reply, for a second at most."""
    self._ready(_LOOK)

  def _ready(self, seconds: float) -> list[Any]:
    return connection.wait([one.replies.fileno() for one in self._workers.values()], seconds)
