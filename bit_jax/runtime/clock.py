"""A clock for training steps that leaves out everything else, and durations as text."""

import contextlib
import time
from collections.abc import Iterator


class StepClock:
  """Counts steps and their seconds, without evaluations, saves and the compiling first step.

  Attributes:
    steps: Timed steps, those of earlier parts of the run included.
  """

  def __init__(self, seconds: float = 0.0, steps: int = 0):
    """Continues from the seconds and steps of earlier parts of the run."""
    self._before, self.steps = seconds, steps
    self._steps_before = steps
    self._started: float | None = None

  @property
  def is_running(self) -> bool:
    """Returns whether the first step is done."""
    return self._started is not None

  @property
  def seconds(self) -> float:
    """Returns the seconds that the timed steps took."""
    running = 0.0 if self._started is None else time.monotonic() - self._started
    return self._before + running

  @property
  def seconds_a_step(self) -> float | None:
    """Returns the mean over the timed steps of this part of the run; None before the first."""
    timed = self.steps - self._steps_before
    return (self.seconds - self._before) / timed if timed else None

  def step_done(self) -> None:
    """Call after each step; the first call starts the clock."""
    if self._started is None:
      self._started = time.monotonic()
    else:
      self.steps += 1

  @contextlib.contextmanager
  def paused(self) -> Iterator[None]:
    """Excludes the time inside the context."""
    began = time.monotonic()
    yield
    if self._started is not None:
      self._started += time.monotonic() - began


def format_seconds(seconds: float) -> str:
  """Returns e.g. '2h 05m', '5m 07s' or '7s'."""
  minutes, rest = divmod(round(seconds), 60)
  hours, minutes = divmod(minutes, 60)
  if hours:
    return f"{hours}h {minutes:02}m"
  return f"{minutes}m {rest:02}s" if minutes else f"{rest}s"
