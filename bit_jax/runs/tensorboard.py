"""TensorBoard's events and profiles, through clu and TensorFlow where they can be imported.

Whatever goes wrong here, at the import or later, costs the events and never the run.
"""

import contextlib
import pathlib
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from bit_jax.runtime import errors, imports


class Events:
  """The events of a run; a step or an evaluation without them costs one line in all."""

  def __init__(
    self,
    folder: pathlib.Path,
    *,
    total_steps: int,
    log_every: int,
    profiled: int | None,
    say: Callable[[str], None],
  ):
    """Imports TensorFlow and clu (some 8 s), and opens the writer.

    Args:
      folder: The run folder.
      total_steps: Steps of the whole run.
      log_every: Steps between two progress reports of clu.
      profiled: The first of five steps to trace; None: none are.
      say: Gets a line of text for the user.
    """
    self._say = say
    self._writer: Any = None  # None: events are not written, or no longer
    self._traced: _Trapping | None = None
    self._progress: Any = None
    self._actions: list[Callable[[int], Any]] = []
    if "tensorflow" not in sys.modules:
      say("Importing TensorFlow, for TensorBoard's events (some 8 s).")
    try:
      with imports.explained():
        imports.tensorflow()  # before clu imports it with its own settings
        from clu import metric_writers, periodic_actions
    except ImportError as e:
      say(f"Without TensorBoard events and profiles: {e}.")
      return
    with self._guarded():
      self._traced = _Trapping(metric_writers.SummaryWriter(str(folder)))
      self._writer = metric_writers.AsyncWriter(self._traced)
      self._progress = periodic_actions.ReportProgress(
        num_train_steps=total_steps, writer=self._writer, every_steps=log_every, every_secs=None
      )
      self._actions.append(self._progress)
    if profiled is not None:
      with self._guarded():
        # Not by duration: that would write nothing if the run ended within three seconds.
        trace = periodic_actions.Profile(
          logdir=str(folder), profile_duration_ms=None, first_profile=profiled, every_secs=None
        )
        self._actions.append(trace)

  @contextlib.contextmanager
  def waiting_for_input(self) -> Iterator[None]:
    """Counts the time inside as spent on waiting for input."""
    if self._writer is None:
      yield
      return
    with self._progress.timed("input", wait_jax_async_dispatch=False):  # a clock, no more
      yield

  def step(self, step: int) -> None:
    """To be called after each step, with the number of steps done."""
    for action in list(self._actions):
      with self._guarded():
        action(step)

  def write(self, step: int, values: Mapping[str, float]) -> None:
    """Writes numbers by their names."""
    if self._writer is not None:
      with self._guarded():
        self._writer.write_scalars(step, values)

  def close(self) -> None:
    """Waits until all events are written."""
    if self._writer is not None:
      with self._guarded():
        self._writer.close()

  @contextlib.contextmanager
  def _guarded(self) -> Iterator[None]:
    """Gives the events up if the block, or a write before it, went wrong."""
    error: Exception | None = None
    try:
      yield
    except Exception as e:
      error = e
    if self._traced is not None and error is None:
      error = self._traced.error
    if error is not None:
      self._writer = None
      self._actions.clear()
      self._say(f"No more TensorBoard events ({errors.reason(error)}); the run goes on.")


class _Trapping:
  """A writer for clu's `AsyncWriter`, which would log a traceback for every write that fails.

  Attributes:
    error: The first that was raised.
  """

  def __init__(self, writer: Any):
    self._writer = writer
    self.error: Exception | None = None

  def write_scalars(self, step: int, scalars: Mapping[str, Any]) -> None:
    """Writes numbers by their names."""
    self._trapped(lambda: self._writer.write_scalars(step, scalars))

  def flush(self) -> None:
    """Writes what is not written yet."""
    self._trapped(self._writer.flush)

  def close(self) -> None:
    """Ends the file."""
    self._trapped(self._writer.close)

  def _trapped(self, call: Callable[[], Any]) -> None:
    try:
      call()
    except Exception as e:
      self.error = self.error or e
