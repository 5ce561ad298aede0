"""Requests to stop a run, which it follows where its state can be saved."""

import contextlib
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any, Self

from bit_jax.runtime import exits, signals


class StopRequest:
  """A context manager that records requests to stop.

  A command looks for them where its state can be saved. Where nothing is unsaved, they end it at
  once. In a process that isn't a command of this package, such as a notebook, they only set
  `requested`.

  Attributes:
    requested: Whether the process was asked to stop.
  """

  def __init__(self) -> None:
    self.requested = False
    self._earlier: dict[signal.Signals, Any] = {}
    self._stack = contextlib.ExitStack()

  def __enter__(self) -> Self:
    """Installs the handlers; signals reach only the main thread, so elsewhere it does nothing."""
    if threading.current_thread() is threading.main_thread():
      self._stack.enter_context(signals.reacting(None, looks=True))
      self._earlier = signals.install(self._note)
      if (listener := signals.current()) and listener.received:  # just before
        self.requested = True
    return self

  def __exit__(self, *_: object) -> None:
    """Restores the earlier handlers."""
    signals.restore(self._earlier)
    self._stack.close()

  def nothing_unsaved(self, sentence: Callable[[], str]) -> None:
    """Says that nothing is unsaved, until `unsaved` is called.

    Args:
      sentence: Returns how the command ends if it is asked to. It is called in another thread, and
        may wait for what is being written.

    Raises:
      Interrupted: A stop is requested already.
    """
    listener = signals.current() if self._earlier else None
    if self.requested or (listener and not listener.end_at_once(sentence)):
      raise exits.Interrupted(sentence())

  def unsaved(self) -> None:
    """Says that there is something to save, from now on."""
    if self._earlier and (listener := signals.current()):
      listener.react(None, looks=True)

  def _note(self, number: int, frame: FrameType | None) -> None:
    if listener := signals.current():
      listener.note(number)
    if self.requested and number == signal.SIGINT:
      if listener and not listener.ends_at_once:
        listener.lose()  # its thread may learn of this signal after this context
      raise KeyboardInterrupt
    self.requested = True
    if listener and listener.ends_at_once:
      return
    # The terminal may be gone, or be written to at this moment.
    with contextlib.suppress(OSError, RuntimeError):
      if sys.stderr.isatty():  # elsewhere the sentence at the end is enough
        print(
          "\nStopping after this step; Ctrl-C again stops at once.", file=sys.stderr, flush=True
        )


def stop_at_once(number: int, frame: FrameType | None) -> None:
  """A handler for a process of runs, while a `StopRequest` doesn't listen: nothing is unsaved."""
  raise exits.Interrupted("Stopped before the first step.")
