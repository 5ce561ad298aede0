"""Makes the runs of a sweep on this machine, one on each device at a time."""

import contextlib
import dataclasses
import json
import os
import pathlib
import selectors
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping

from bit_jax.runtime import exits
from experiments.sweeping import grid, jobs, placement, progress, queueing, worker

_LOOK = 1.0  # seconds between two looks at the progress of runs


_GONE = (
  "Its process ended without a word: killed, most likely for want of memory; workers.log in the "
  "sweep's folder may say more."
)


class _Worker:
  """A process that makes runs on one device."""

  def __init__(self, place: placement.Place, more: Mapping[str, str], lock: int, log: pathlib.Path):
    """Starts the process.

    Args:
      place: Its device.
      more: Environment variables besides.
      lock: The sweep's lock, which it holds with this process: no other sweep begins in the folder
        before it is gone.
      log: For what it prints outside of runs.
    """
    self.run: grid.Planned | None = None
    self.variables = more
    with log.open("a") as errors:
      self.process = subprocess.Popen(
        [sys.executable, "-m", "experiments.sweeping.worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=errors,
        text=True,
        env={**os.environ, **place.variables, **more},
        pass_fds=(lock,),
        start_new_session=True,  # Ctrl-C is for this process alone, which stops the runs
      )
    if place.cores is not None:
      os.sched_setaffinity(self.process.pid, place.cores)
    assert self.process.stdin is not None
    assert self.process.stdout is not None
    self._jobs, self.replies = self.process.stdin, self.process.stdout

  def start(self, run: grid.Planned, job: worker.Job) -> None:
    self.run = run
    with contextlib.suppress(BrokenPipeError):  # it died; its end of the replies says so
      self._jobs.write(json.dumps(dataclasses.asdict(job)) + "\n")
      self._jobs.flush()

  def reply(self) -> str | None:
    """Returns the outcome of its run, None if the process is gone."""
    return self.replies.readline().strip() or None

  def stop(self) -> None:
    """Has it save its run and end."""
    with contextlib.suppress(BrokenPipeError):
      self._jobs.close()

  def kill(self) -> None:
    with contextlib.suppress(ProcessLookupError):
      self.process.kill()
    self.process.wait()
    with contextlib.suppress(BrokenPipeError):
      self._jobs.close()
    self.replies.close()


class Pool:
  """The workers of a sweep."""

  def __init__(
    self,
    queue: queueing.Queue,
    out: pathlib.Path,
    sweep: str,
    places: list[placement.Place],
    lock: int,
  ):
    """Takes what is to be done, and where.

    Args:
      queue: The runs.
      out: The sweep's folder.
      sweep: Its name.
      places: One for each worker.
      lock: File descriptor of the sweep's lock.
    """
    self._queue, self._out, self._sweep = queue, out, sweep
    self._places, self._lock = places, lock
    self._workers: dict[int, _Worker] = {}  # by the number of the place
    self._selector = selectors.DefaultSelector()

  def run(self, stop: exits.StopRequest) -> None:
    """Makes all runs.

    Raises:
      interruption.Interrupted: It was asked to stop; the runs under way are saved.
    """
    with contextlib.closing(progress.Progress(self._queue)) as shown, self._ended():
      while self._queue.left:
        if stop.requested:
          self._save()
          raise exits.Interrupted(
            f"Stopped with {self._queue.left} of {len(self._queue)} runs to go; the same command "
            f"goes on."
          )
        self._give_work()
        for number in self._heard():
          self._hear(number, shown)
        shown.update()

  def _give_work(self) -> None:
    """Gives each idle worker a run, as long as there are any that can be made."""
    for number, place in enumerate(self._places):
      if number in self._workers and self._workers[number].run is not None:
        continue
      one = self._queue.take()
      if one is None:
        return
      if number in self._workers and self._workers[number].variables != jobs.variables(one.config):
        self._bury(number)  # it is idle
      if number not in self._workers:
        self._open(number, place, one)
      self._workers[number].start(one, jobs.job(one, self._out, self._sweep))

  def _open(self, number: int, place: placement.Place, first: grid.Planned) -> None:
    more, log = jobs.variables(first.config), self._out / "workers.log"
    self._workers[number] = new = _Worker(place, more, self._lock, log)
    self._selector.register(new.replies, selectors.EVENT_READ, number)

  def _heard(self) -> Iterable[int]:
    return [key.data for key, _ in self._selector.select(_LOOK)]

  def _hear(self, number: int, shown: progress.Progress) -> None:
    """Notes what became of a worker's run."""
    one = self._workers[number].run
    outcome = self._workers[number].reply()
    if outcome is None:
      self._bury(number)
    else:
      self._workers[number].run = None
    if one is None:
      return
    if outcome == "interrupted":  # somebody asked the process itself to stop
      self._queue.put_back(one.name)
    else:
      jobs.settle(self._queue, self._out, one.name, shown, _GONE if outcome is None else None)

  def _bury(self, number: int) -> None:
    dead = self._workers.pop(number)
    self._selector.unregister(dead.replies)
    dead.kill()

  def _save(self) -> None:
    """Has all runs saved, and waits for that."""
    for one in self._workers.values():
      one.stop()
    for one in self._workers.values():
      one.process.wait()

  @contextlib.contextmanager
  def _ended(self) -> Iterator[None]:
    """Ends the processes in the end, whatever happens; what goes wrong here loses no run."""
    try:
      yield
    except Exception:
      self._save()
      raise
    finally:
      for number in list(self._workers):
        self._bury(number)
      self._selector.close()
