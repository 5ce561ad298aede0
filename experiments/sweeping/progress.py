"""How a sweep tells of itself: a line for each run that ends, and the time that is left."""

import sys
import time

import tqdm

from bit_jax.runtime import clock
from experiments.sweeping import queueing

_EVERY = 60.0  # seconds between two lines of progress where there is no terminal


class Progress:
  """Shows how far a queue is, until it is closed."""

  def __init__(self, queue: queueing.Queue):
    """Starts to count."""
    self._queue = queue
    self._began = time.monotonic()
    self._told = self._began
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

  def ended(self, name: str, told: str) -> None:
    """Tells what became of a run."""
    queue = self._queue
    number = len(queue.done) + len(queue.failed)
    left = self._left(queue.work())
    self.say(f"[{number:>{len(str(len(queue)))}}/{len(queue)}] {name} ({left}): {told}")

  def update(self, more: str = "") -> None:
    """Shows how far it is now, and what else there is to tell; to be called every second or so."""
    if self._bar.disable and time.monotonic() - self._told <= _EVERY:
      return
    work = self._queue.work()
    share = self._share(work)
    text = f"{len(self._queue.done)} of {len(self._queue)} runs, {share:.0%} of the work; "
    text += f"{more}; " if more else ""
    if not self._bar.disable:
      self._bar.n = share
      self._bar.set_description_str(text + self._left(work))
    else:
      self._told = time.monotonic()
      now = ", ".join(self._queue.under_way)
      self.say(f"{text}{self._left(work)}{f'; now {now}' if now and not more else ''}")

  def close(self) -> None:
    """Takes the bar away."""
    self._bar.close()

  def _share(self, work: queueing.Work) -> float:
    total = self._queue.total_work
    return work.done / total if total else 1.0

  def _left(self, work: queueing.Work) -> str:
    """Returns how long it will take, by the speed since the beginning, counted in operations."""
    seconds = time.monotonic() - self._began
    if work.made <= 0:
      return "time left not known yet"
    rest = (self._queue.total_work - work.done) * seconds / work.made
    return f"{clock.format_seconds(rest)} left"
