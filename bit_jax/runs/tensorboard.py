"""TensorBoard events and profiles, through clu and TensorFlow where they can be imported.

An error here, at the import or later, ends the events and never the run.
"""

import contextlib
import pathlib
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from bit_jax.runtime import errors, imports

_ROOM = 1 << 16  # bytes that events need at first


class Events:
  """The events of a run; without them, a step or an evaluation does nothing here."""

  def __init__(self, folder: pathlib.Path, *, profiled: int | None, say: Callable[[str], None]):
    """Imports TensorFlow and clu (about 8 s), and opens the writer.

    Args:
      folder: The run folder.
      profiled: The first of five steps to trace; None for no trace.
      say: Gets a line of text for the user.
    """
    self._say = say
    self._writer: Any = None  # None: events are not written, or no longer
    self._profile: Callable[[int], Any] | None = None
    if "tensorflow" not in sys.modules:
      say("Importing TensorFlow for TensorBoard events (about 8 s).")
    try:
      with imports.explained("tensorboard"):
        imports.tensorflow()  # before clu imports it with its own settings
        from clu import metric_writers, periodic_actions
    except ImportError as e:
      say(f"TensorBoard logging is disabled: {e}.")
      return
    with self._guarded():
      with tempfile.TemporaryFile(dir=folder) as file:  # TensorFlow prints lines of its own
        file.write(bytes(_ROOM))
      self._writer = metric_writers.SummaryWriter(str(folder))
      if profiled is not None:
        # Not by duration: that would write nothing if the run ended within three seconds.
        self._profile = periodic_actions.Profile(
          logdir=str(folder), profile_duration_ms=None, first_profile=profiled, every_secs=None
        )

  def step(self, step: int) -> None:
    """Call after each step, with the number of steps done."""
    if self._profile is not None:
      with self._guarded():
        self._profile(step)

  def write(self, step: int, values: Mapping[str, float]) -> None:
    """Writes numbers by their names."""
    if self._writer is not None:
      with self._guarded():
        # TensorFlow keeps every Python number that it was ever given, about 0.9 kB each.
        numbers = {name: np.float32(x) for name, x in values.items()}
        self._writer.write_scalars(np.int64(step), numbers)

  def close(self) -> None:
    """Writes the remaining events."""
    if self._writer is not None:
      with self._guarded():
        self._writer.close()

  @contextlib.contextmanager
  def _guarded(self) -> Iterator[None]:
    """Ends the events if the block fails."""
    try:
      yield
    except Exception as e:
      self._writer = self._profile = None
      self._say(f"TensorBoard events end here ({errors.reason(e)}); the run continues.")
