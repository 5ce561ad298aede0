"""Runs a sweep on this machine, one run on each device at a time."""

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

from bit_jax.runtime import exits, numerics
from experiments.sweeping import executor, grid, placement, queueing, worker

_LOOK = 1.0  # seconds between two looks at the progress of runs
_KILLED = (
  "Its process was killed, most likely because memory ran out; workers.log in the sweep's folder "
  "may say more."
)


class _Worker:
  """A process that executes runs on one device, one after the other.

  Attributes:
    run: Name of the run that it executes, None if it is idle.
    variables: Environment variables that its runs need.
    process: The process.
    replies: Its outcomes, one a line.
  """

  def __init__(
    self, place: placement.Place, variables: Mapping[str, str], lock: int, log: pathlib.Path
  ):
    """Starts the process.

    Args:
      place: Its device.
      variables: Further environment variables.
      lock: The sweep's lock, which the process holds as well: no other sweep begins in the folder
        before it has ended.
      log: For its output outside of runs.
    """
    self.run: str | None = None
    self.variables = variables
    with log.open("a") as errors:
      self.process = subprocess.Popen(
        [sys.executable, "-m", "experiments.sweeping.worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=errors,
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
    self,
    queue: queueing.Queue,
    stop: exits.StopRequest,
    places: Sequence[placement.Place],
    lock: int,
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
    number = next(
      n for n in range(len(self._places)) if n not in self._workers or not self._workers[n].run
    )
    if number in self._workers and self._workers[number].variables != variables:
      self._workers.pop(number).kill()
    if number not in self._workers:
      log = self.out / "workers.log"
      self._workers[number] = _Worker(self._places[number], variables, self._lock, log)
    self._workers[number].start(one.name, job)
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
