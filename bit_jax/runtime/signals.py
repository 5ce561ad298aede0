"""Signals ask a run to stop after the step it is at: Ctrl-C, SIGTERM, and a terminal that hangs up.

A second Ctrl-C stops at once. After `nohup`, a terminal that hangs up is no request.
"""

import contextlib
import signal
import sys
import threading
from types import FrameType, TracebackType
from typing import Any, Self


class Interrupted(Exception):  # noqa: N818 - not an error
  """A run stopped when it was asked to; its message says where and how to go on."""


class StopRequest:
  """Within this context, `requested` tells whether the process was asked to stop."""

  def __init__(self) -> None:
    """Starts with no request."""
    self.requested = False
    self._earlier: dict[signal.Signals, Any] = {}

  def __enter__(self) -> Self:
    """Starts to listen; signals reach only the main thread, so elsewhere nothing is done."""
    if threading.current_thread() is threading.main_thread():
      for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if number == signal.SIGHUP and signal.getsignal(number) == signal.SIG_IGN:
          continue
        self._earlier[number] = signal.signal(number, self._note)
    return self

  def __exit__(
    self,
    kind: type[BaseException] | None,
    error: BaseException | None,
    traceback: TracebackType | None,
  ) -> None:
    """Restores what listened before."""
    for number, handler in self._earlier.items():
      signal.signal(number, handler)

  def _note(self, number: int, frame: FrameType | None) -> None:
    if self.requested and number == signal.SIGINT:
      raise KeyboardInterrupt
    self.requested = True
    # The terminal may be gone, or be written to at this moment.
    with contextlib.suppress(OSError, RuntimeError):
      print("\nStopping after this step; Ctrl-C again stops at once.", file=sys.stderr, flush=True)
