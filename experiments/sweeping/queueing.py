"""Order of a sweep's runs, and its progress."""

import pathlib
import time
from collections.abc import Iterable

from bit_jax.runtime import clock
from experiments import ledger
from experiments.cost import footprint
from experiments.sweeping import grid

_EVERY = 60.0  # seconds between two lines of progress


class Queue:
  """The runs of a sweep.

  Attributes:
    out: The sweep's folder.
    sweep: Its name.
    done: Names of finished runs.
    failed: {name: error} of runs that failed or can't be run.
  """

  def __init__(self, planned: Iterable[grid.Planned], out: pathlib.Path, sweep: str):
    """Reads the state of each run from its folder.

    Args:
      planned: The runs, each after the one that it starts from.
      out: The sweep's folder.
      sweep: Its name.
    """
    self.out, self.sweep = out, sweep
    self._runs = {one.name: one for one in planned}
    states = {name: ledger.state(out / name) for name in self._runs}
    self.done = {name for name, state in states.items() if state == "finished"}
    self.failed: dict[str, str] = {}
    self._under_way: set[str] = set()
    self._work = {  # in FLOPs; of a failed run, those of its logged steps
      name: 0.0 if one.spec is None else footprint.flops(one.config, one.spec)
      for name, one in self._runs.items()
    }
    self._work_done = {name: self._logged(name) for name in self._runs}
    # Runs that failed in an earlier sweep come last.
    waiting = [name for name in self._runs if name not in self.done]
    self._waiting = sorted(waiting, key=lambda name: states[name] == "failed")
    for name in list(self._waiting):
      if (mistake := self._runs[name].mistake) is not None:
        self.fail(name, mistake)
        ledger.note_failure(out / name, mistake)

  def __len__(self) -> int:
    """Returns the number of all runs."""
    return len(self._runs)

  @property
  def left(self) -> int:
    """The number of runs that are neither finished nor failed."""
    return len(self._waiting) + len(self._under_way)

  @property
  def under_way(self) -> list[str]:
    """The names of the started runs, sorted."""
    return sorted(self._under_way)

  def take(self) -> grid.Planned | None:
    """Returns the next run that can start now, None if there is none."""
    for name in self._waiting:
      one = self._runs[name]
      if one.after is None or one.after in self.done:
        self.resume(name)
        return one
    return None

  def resume(self, name: str) -> bool:
    """Records that a run is under way; returns False if it isn't waiting."""
    if name not in self._waiting:
      return False
    self._waiting.remove(name)
    self._under_way.add(name)
    return True

  def finish(self, name: str) -> None:
    """Records that a run is finished."""
    self._under_way.remove(name)
    self.done.add(name)
    self._work_done[name] = self._work[name]

  def fail(self, name: str, message: str) -> list[str]:
    """Records that a run failed; returns the names of the runs that depend on it and fail too."""
    self._under_way.discard(name)
    self._waiting = [n for n in self._waiting if n != name]
    self.failed[name] = message
    self._work[name] = self._work_done[name] = self._logged(name)
    dependent = []
    for other in [n for n in self._waiting if self._runs[n].after == name]:
      why = f"It starts from the weights of {name}, which failed."
      ledger.note_failure(self.out / other, why)
      dependent += [other, *self.fail(other, why)]
    return dependent

  def put_back(self, name: str) -> None:
    """Records that a run was stopped and comes next."""
    self._under_way.remove(name)
    self._waiting.insert(0, name)

  def work(self) -> tuple[float, float]:
    """Returns the FLOPs done, with the logged steps of runs that aren't finished, and of all."""
    for name in self._under_way:
      self._work_done[name] = self._logged(name)
    return sum(self._work_done.values()), sum(self._work.values())

  def _logged(self, name: str) -> float:
    """Returns the FLOPs of a run, or of its logged steps if it isn't finished."""
    if name in self.done or not self._work[name]:
      return self._work[name]
    steps = self._runs[name].config.total_steps
    return self._work[name] * min(1.0, ledger.last_step(self.out / name) / steps)


class Progress:
  """Prints the progress of a queue: each run that ends, and a line a minute."""

  def __init__(self, queue: Queue):
    """Starts the clock."""
    self._queue = queue
    self._before, _ = queue.work()
    self._began = self._shown = time.monotonic()

  def ended(self, name: str, outcome: str) -> None:
    """Prints the outcome of a run."""
    queue = self._queue
    number = len(queue.done) + len(queue.failed)
    left = self._time_left(*queue.work())
    text = f"[{number:>{len(str(len(queue)))}}/{len(queue)}] {name} ({left}): {outcome}"
    print(text, flush=True)

  def update(self, status: str) -> None:
    """Prints the progress once a minute. Call about every second.

    Args:
      status: What is under way.
    """
    if time.monotonic() - self._shown <= _EVERY:
      return
    self._shown = time.monotonic()
    done, total = self._queue.work()
    runs = f"{len(self._queue.done)} of {len(self._queue)} runs"
    share = f"{done / total if total else 1:.0%} of the work"
    print(f"{runs}, {share}; {self._time_left(done, total)}; {status}", flush=True)

  def _time_left(self, done: float, total: float) -> str:
    """Returns the time left at the FLOP/s since the start."""
    if done <= self._before:
      return "time left unknown"
    seconds = (time.monotonic() - self._began) * (total - done) / (done - self._before)
    return f"{clock.format_seconds(seconds)} left"
