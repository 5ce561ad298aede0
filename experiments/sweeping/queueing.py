"""Order of a sweep's runs, and its progress."""

import pathlib
import sys
import time
from collections.abc import Iterable
from typing import NamedTuple

import tqdm

from bit_jax.runtime import clock
from experiments import ledger
from experiments.cost import footprint
from experiments.sweeping import grid

_EVERY = 60.0  # seconds between two lines of progress without a terminal


class Work(NamedTuple):
  """Progress of a queue in FLOPs.

  Attributes:
    done: Of runs that ended, and of the logged steps of runs under way.
    computed: Since the queue was created, whatever the outcome: the measure of its speed.
  """

  done: float
  computed: float


class Queue:
  """The runs of a sweep.

  Attributes:
    out: The sweep's folder.
    sweep: Its name.
    done: Names of finished runs.
    failed: {name: error} of runs that failed or can't be run.
    total_work: FLOPs of all runs.
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
    self._work = {
      name: 0.0 if one.spec is None else footprint.flops(one.config, one.spec)
      for name, one in self._runs.items()
    }
    self.total_work = sum(self._work.values())
    states = {name: ledger.state(out / name) for name in self._runs}
    self.done = {name for name, state in states.items() if state == "finished"}
    self.failed: dict[str, str] = {}
    self._under_way: set[str] = set()
    self._before: dict[str, float] = {}  # {name: FLOPs done before it was first started here}
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
    self._before.setdefault(name, self._work_done(name))
    return True

  def finish(self, name: str) -> None:
    """Records that a run is finished."""
    self._under_way.remove(name)
    self.done.add(name)

  def fail(self, name: str, message: str) -> list[str]:
    """Records that a run failed; returns the names of the runs that depend on it and fail too."""
    self._under_way.discard(name)
    self._waiting = [n for n in self._waiting if n != name]
    self.failed[name] = message
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

  def work(self) -> Work:
    """Returns the progress, with the steps that started runs have logged."""
    now = {name: self._work_done(name) for name in self._before}
    ended = sum(self._work[name] for name in self.done | self.failed.keys())
    # Less than before if a run resumed from its last save and hasn't logged more yet.
    computed = sum(max(0.0, now[name] - before) for name, before in self._before.items())
    return Work(ended + sum(now[name] for name in self._under_way), computed)

  def _work_done(self, name: str) -> float:
    """Returns the FLOPs of a run, or of its logged steps if it isn't finished."""
    if name in self.done:
      return self._work[name]
    steps = self._runs[name].config.total_steps
    return self._work[name] * min(1.0, ledger.last_step(self.out / name) / steps)


class Progress:
  """Shows the progress of a queue until it is closed: a bar, or a line a minute."""

  def __init__(self, queue: Queue):
    """Starts the clock."""
    self._queue = queue
    self._began = self._shown = time.monotonic()
    self._bar = tqdm.tqdm(
      total=1.0,
      bar_format="{desc}|{bar}|",
      leave=False,
      dynamic_ncols=True,
      disable=not sys.stderr.isatty(),
    )

  def say(self, text: str) -> None:
    """Prints a line, above the bar if there is one."""
    tqdm.tqdm.write(text, file=sys.stdout)
    sys.stdout.flush()

  def ended(self, name: str, outcome: str) -> None:
    """Prints the outcome of a run."""
    queue = self._queue
    number = len(queue.done) + len(queue.failed)
    left = self._time_left(queue.work())
    self.say(f"[{number:>{len(str(len(queue)))}}/{len(queue)}] {name} ({left}): {outcome}")

  def update(self, status: str = "") -> None:
    """Shows the progress; to be called every second or so.

    Args:
      status: What is under way; by default the names of the runs.
    """
    if self._bar.disable and time.monotonic() - self._shown <= _EVERY:
      return
    work, total = self._queue.work(), self._queue.total_work
    share = work.done / total if total else 1.0
    text = f"{len(self._queue.done)} of {len(self._queue)} runs, {share:.0%} of the work; "
    if self._bar.disable:
      self._shown = time.monotonic()
      status = status or f"running: {', '.join(self._queue.under_way)}"
      self.say(f"{text}{self._time_left(work)}; {status}")
    else:
      self._bar.n = share
      self._bar.set_description_str(
        f"{text}{status}{'; ' if status else ''}{self._time_left(work)}"
      )

  def close(self) -> None:
    """Removes the bar."""
    self._bar.close()

  def _time_left(self, work: Work) -> str:
    """Returns the time left at the FLOP/s since the start."""
    if work.computed <= 0:
      return "time left unknown"
    seconds = time.monotonic() - self._began
    rest = (self._queue.total_work - work.done) * seconds / work.computed
    return f"{clock.format_seconds(rest)} left"
