"""Which run of a sweep comes next, and how far the sweep is."""

import pathlib
from collections.abc import Iterable
from typing import NamedTuple

from experiments import ledger
from experiments.cost import footprint
from experiments.sweeping import grid


class Work(NamedTuple):
  """How far a queue is, in FLOPs.

  Attributes:
    done: What needn't be done any more, steps of runs under way included.
    made: What was made since the queue began, of whatever became of it: what today's speed is known
      by.
  """

  done: float
  made: float


class Queue:
  """The runs of a sweep that are to be made.

  Attributes:
    done: Names of finished runs.
    failed: {name: what went wrong} of runs that failed, or can't be made.
    total_work: FLOPs of all runs.
  """

  def __init__(self, planned: Iterable[grid.Planned], out: pathlib.Path):
    """Looks at what is in the folders already.

    Args:
      planned: The runs, each after the one that it waits for.
      out: The sweep's folder.
    """
    self._out = out
    self._runs = {one.name: one for one in planned}
    self._work = {name: _work(one) for name, one in self._runs.items()}
    self.total_work = sum(self._work.values())
    states = {name: ledger.state(out / name) for name in self._runs}
    self.done = {name for name, state in states.items() if state == "finished"}
    self.failed: dict[str, str] = {}
    self._under_way: dict[str, float] = {}  # and the work that was done before each was taken
    self._made = 0.0
    # What failed in an earlier sweep comes last: what can be had is had first.
    again = [name for name, state in states.items() if state == "failed"]
    rest = [name for name in self._runs if name not in self.done and name not in again]
    self._waiting = rest + again
    for name in [n for n in self._waiting if self._runs[n].mistake is not None]:
      mistake = str(self._runs[name].mistake)
      self.fail(name, mistake)
      ledger.note_failure(out / name, mistake)

  def __len__(self) -> int:
    """Returns the number of all runs."""
    return len(self._runs)

  @property
  def left(self) -> int:
    """Returns the number of runs that are neither finished nor failed."""
    return len(self._waiting) + len(self._under_way)

  @property
  def under_way(self) -> list[str]:
    """Returns the names of the runs that are being made, sorted."""
    return sorted(self._under_way)

  def take(self) -> grid.Planned | None:
    """Returns the next run that can be made now, None if there is none."""
    for name in self._waiting:
      one = self._runs[name]
      if one.after is None or one.after in self.done:
        self._begin(name)
        return one
    return None

  def resume(self, name: str) -> bool:
    """Notes that a run is under way already; returns whether it is one of those to be made."""
    if name not in self._waiting:
      return False
    self._begin(name)
    return True

  def finish(self, name: str) -> None:
    """Notes that a run is finished."""
    self._made += self._work[name] - self._under_way.pop(name, self._work[name])
    self.done.add(name)

  def fail(self, name: str, message: str) -> list[str]:
    """Notes that a run failed; returns the names of those that needed it, which fail with it."""
    self._leave(name)
    self._waiting = [n for n in self._waiting if n != name]
    self.failed[name] = message
    fallen = []
    for other in [n for n in self._waiting if self._runs[n].after == name]:
      why = f"It starts from the weights of {name}, which failed."
      ledger.note_failure(self._out / other, why)
      fallen += [other, *self.fail(other, why)]
    return fallen

  def put_back(self, name: str) -> None:
    """Notes that a run was stopped and is to be made later."""
    self._leave(name)
    self._waiting.insert(0, name)

  def work(self) -> Work:
    """Returns how far it is; looks at what the runs under way have told."""
    done = sum(self._work[name] for name in self.done | self.failed.keys())
    made = self._made
    for name, before in self._under_way.items():
      steps = self._steps_done(name)
      done += steps
      made += max(0.0, steps - before)
    return Work(done, made)

  def _begin(self, name: str) -> None:
    self._waiting.remove(name)
    self._under_way[name] = self._steps_done(name)

  def _leave(self, name: str) -> None:
    """Notes that a run isn't under way any more, if it was, with what was made of it."""
    if name in self._under_way:
      # Fewer where it went on from its last save, and was stopped before it told of more.
      self._made += max(0.0, self._steps_done(name) - self._under_way.pop(name))

  def _steps_done(self, name: str) -> float:
    """Returns the FLOPs of the steps of which a run has told."""
    steps = self._runs[name].config.total_steps
    return self._work[name] * min(1.0, ledger.last_step(self._out / name) / steps)


def _work(one: grid.Planned) -> float:
  return 0.0 if one.spec is None else footprint.flops(one.config, one.spec)
