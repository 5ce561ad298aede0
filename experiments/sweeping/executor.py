"""The loop of a sweep: starts runs, locally or on a cluster, and records what became of them."""

import abc
import contextlib
from collections.abc import Iterator
from typing import NamedTuple

from bit_jax.runs import run_folder
from bit_jax.runtime import exits, stopping
from experiments import ledger
from experiments.sweeping import grid, queueing, worker


class Ended(NamedTuple):
  """An attempt of a run that has ended.

  Attributes:
    name: Name of the run.
    interrupted: Whether it was stopped for reasons outside of the run, which is to be resumed.
    error: Why there is no result, if the run's folder doesn't say it.
  """

  name: str
  interrupted: bool = False
  error: str | None = None


class Executor(abc.ABC):
  """Runs a sweep; subclasses say where and how."""

  def __init__(self, queue: queueing.Queue, stop: stopping.StopRequest, limit: int | None):
    """Takes the runs.

    Args:
      queue: The runs.
      stop: Whether to stop.
      limit: Most runs at the same time; None: no limit.
    """
    self.queue, self.out, self.stop, self._limit = queue, queue.out, stop, limit
    self.progress = queueing.Progress(queue)

  def run(self) -> None:
    """Executes all runs that are left.

    Raises:
      UserError: No run can be started.
      exits.Interrupted: A stop was requested.
    """
    with self.session():
      while self.queue.left:
        for ended in self.poll():
          self._record(ended)
        while not self.stop.requested and self._start_next():
          pass
        if self.stop.requested and self.queue.left:
          left = f"Stopped: {self.queue.left} of {len(self.queue)} runs left."
          raise exits.Interrupted(f"{left} {self.advice()}")
        if self.queue.left:
          self.progress.update(self.status())
          self.wait()

  @contextlib.contextmanager
  def session(self) -> Iterator[None]:
    """Surrounds the loop: takes over earlier jobs, ends processes."""
    yield

  @abc.abstractmethod
  def start(self, one: grid.Planned, job: worker.Job) -> bool:
    """Starts a run; returns False if it can't start now.

    Raises:
      UserError: Nor can any other.
    """

  def job(self, one: grid.Planned) -> worker.Job:
    """Returns what a worker needs to know of a run."""
    weights = None if one.after is None else str(self.out / one.config.weights)
    folder, config = str(self.out / one.name), one.config.to_dict()
    return worker.Job(folder, config, self.queue.sweep, one.labels, weights)

  @abc.abstractmethod
  def poll(self) -> Iterator[Ended]:
    """Yields the attempts that have ended since the last call; doesn't wait."""

  @abc.abstractmethod
  def wait(self) -> None:
    """Waits until it is time for the next poll, or to stop."""

  def status(self) -> str:
    """Returns what the progress line says of the runs under way."""
    return f"running: {', '.join(self.queue.under_way)}"

  def advice(self) -> str:
    """Returns what a user should know and do after a stop."""
    return "Run the same command again to resume."

  def _start_next(self) -> bool:
    """Starts the next run, if one can be started."""
    if self._limit is not None and len(self.queue.under_way) >= self._limit:
      return False
    one = self.queue.take()
    if one is None:
      return False
    started = self.start(one, self.job(one))
    if not started:
      self.queue.put_back(one.name)
    return started

  def _record(self, ended: Ended) -> None:
    """Records and prints what became of a run, by its folder."""
    name, folder = ended.name, self.out / ended.name
    result = ledger.result(folder)
    if result is not None:
      (folder / ledger.ERROR).unlink(missing_ok=True)
      self.queue.finish(name)
      self.progress.ended(name, ledger.scores(result))
    elif ended.interrupted:
      self.queue.put_back(name)
      print(f"{name}: interrupted at step {ledger.last_step(folder)}", flush=True)
    else:
      if ended.error is not None:
        ledger.note_failure(folder, ended.error)
      path = folder / run_folder.RESULT
      unexplained = "It left neither a result nor an error."
      if path.exists():
        unexplained = f"{path} holds no result: delete it."
      message = ledger.failure(folder) or unexplained
      for one in [name, *self.queue.fail(name, message)]:
        self.progress.ended(one, f"FAILED: {self.queue.failed[one]}")
