"""Clocks of training steps and of images that leave out everything else, and durations as text."""

import contextlib
import time
from collections.abc import Iterator

from bit_jax.runtime import phrases


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


class Pace:
  """Counts images, and the seconds they take after the first batch, which compiles.

  Attributes:
    images: Their number so far.
  """

  def __init__(self) -> None:
    """Starts the clock."""
    self.images = self._first = 0
    self._began = time.monotonic()
    self._after_first: float | None = None

  def add(self, count: int) -> None:
    """Call with the number of images of each batch."""
    self.images += count
    if self._after_first is None:
      self._first, self._after_first = count, time.monotonic()

  def __str__(self) -> str:
    """Returns e.g. '1,000 images in 7s, 160 images/s', without the rate of a single batch."""
    now = time.monotonic()
    text = f"{phrases.counted(self.images, 'image')} in {format_seconds(now - self._began)}"
    later = self.images - self._first
    if self._after_first is None or not later:
      return text
    return f"{text}, {later / max(now - self._after_first, 1e-9):,.0f} images/s"


def format_seconds(seconds: float) -> str:
  """Returns e.g. '2h 05m', '5m 07s' or '7s'."""
  minutes, rest = divmod(round(seconds), 60)
  hours, minutes = divmod(minutes, 60)
  if hours:
    return f"{hours}h {minutes:02}m"
  return f"{minutes}m {rest:02}s" if minutes else f"{rest}s"
