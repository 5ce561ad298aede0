"""Signals that end a command, also while its main thread is in a compiler.

Python runs handlers of signals in the main thread, and only between two of its instructions: while
that thread compiles, for minutes, none runs. The operating system's own handler, though, writes the
number of each signal to a descriptor at once. A thread of a command reads it, and ends the process
where nothing would be lost.
"""

import contextlib
import functools
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

# They ask a process to end: Ctrl-C, `kill` and schedulers, a terminal that hangs up, and what
# clusters send before they preempt a job or its time is over.
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
GRACE = 10.0  # seconds in which the main thread must react, where it is the one that reacts
_AGAIN = 2.0  # as GRACE, after a second Ctrl-C
_FLUSH = 1.0  # seconds for output whose reader may not read
_POLL = 0.1
_OURS = "bit_jax.runtime."  # modules whose handlers may replace one another


def is_free(number: signal.Signals) -> bool:
  """Returns whether a handler of this package may be installed for a signal.

  Not where somebody else has installed one, such as a cluster's library. Of the ignored signals,
  only Ctrl-C and SIGTERM: `nohup` is to have its way, but shells ignore Ctrl-C for all commands in
  the background.
  """
  handler = signal.getsignal(number)
  if handler == signal.SIG_IGN:
    return number in (signal.SIGINT, signal.SIGTERM)
  is_ours = getattr(handler, "__module__", "").startswith(_OURS)
  return handler in (signal.SIG_DFL, signal.default_int_handler) or is_ours


def install(handler: Callable[[int, FrameType | None], None]) -> dict[signal.Signals, Any]:
  """Installs a handler for all signals that are free, and returns the earlier ones."""
  return {number: signal.signal(number, handler) for number in ENDING if is_free(number)}


def restore(handlers: dict[signal.Signals, Any]) -> None:
  """Installs earlier handlers again."""
  for number, handler in handlers.items():
    signal.signal(number, handler)


class Listener:
  """What a process does about signals; at most one in a process.

  Where it ends the process at once, it says so with a sentence. Else the main thread is to react:
  by default with a KeyboardInterrupt, within `GRACE` seconds.

  Attributes:
    received: The first signal, None before.
    usual: What `react` takes while the command runs.
  """

  def __init__(self, usual: Callable[[], str] | None = None):
    """Takes the usual reaction; until `react` is called, a signal ends the process at once."""
    self.received: int | None = None
    self.usual = usual
    self._at_once: Callable[[], str] | None = usual or self._unsaved
    self._looks = False
    self._lock, self._is_ending, self._is_over = threading.Lock(), False, False
    self._before_end: list[Callable[[int, str], None]] = []

  def start(self) -> None:
    """Installs the handlers, and starts the thread; call in the main thread."""
    self._read, self._write = os.pipe()
    os.set_blocking(self._write, False)
    self._earlier_descriptor = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
    self._earlier = install(self._interrupt)
    self._thread = threading.Thread(target=self._listen, daemon=True, name="signals")
    self._thread.start()

  def note(self, number: int) -> None:
    """Notes a signal; handlers call it, since the thread may learn of it later than they."""
    self.received = self.received or number

  def before_end(self, tell: Callable[[int, str], None]) -> None:
    """Sets what is called before a signal ends the process at once: with exit status, sentence."""
    self._before_end = [tell]

  @property
  def ends_at_once(self) -> bool:
    """Returns whether a signal ends the process at once."""
    return self._at_once is not None

  def finish(self) -> None:
    """From now on signals change nothing: the command is over."""
    self.react(None, looks=True)
    self._is_over = True

  def stop(self) -> None:
    """Restores the earlier handlers, and ends the thread."""
    self.finish()
    restore(self._earlier)
    signal.set_wakeup_fd(self._earlier_descriptor)
    os.write(self._write, b"\0")
    self._thread.join()
    os.close(self._read)
    os.close(self._write)

  def react(self, at_once: Callable[[], str] | None, *, looks: bool = False) -> None:
    """Sets the reaction; does not return if the process is about to end.

    Args:
      at_once: The process ends at once, with the sentence that this returns. It is called in
        another thread, and may wait for what is being written; its error is printed instead.
      looks: Whether the main thread looks for requests itself, and may take its time.
    """
    with self._lock:
      self._at_once, self._looks = at_once, looks
    while self._is_ending:
      time.sleep(_POLL)

  @contextlib.contextmanager
  def reacting(self, at_once: Callable[[], str] | None, *, looks: bool = False) -> Iterator[None]:
    """Within this context there is another reaction, which `react` may change."""
    earlier = self._at_once, self._looks
    self.react(at_once, looks=looks)
    try:
      yield
    finally:
      self.react(earlier[0], looks=earlier[1])

  def _interrupt(self, number: int, frame: FrameType | None) -> None:
    """Handles a signal in the main thread."""
    self.note(number)
    if self._at_once is None and not self._looks:
      raise KeyboardInterrupt

  def _unsaved(self) -> str:
    return unsaved(self.received or signal.SIGINT)

  def _listen(self) -> None:
    interrupts, numbers = 0, frozenset(self._earlier)
    while number := os.read(self._read, 1)[0]:
      if number not in numbers:  # it has another handler
        continue
      self.note(number)
      interrupts += number == signal.SIGINT
      with self._lock:
        sentence, is_ending = self._at_once, self._is_ending
        self._is_ending = is_ending or sentence is not None
      if sentence is not None and not is_ending:
        self._end_in(0, number, sentence)
      elif interrupts > 1:  # after a moment for the main thread
        self._end_in(_AGAIN, number, functools.partial(unsaved, number))
      elif sentence is None and not self._looks:
        self._end_in(GRACE, number, functools.partial(unsaved, number))

  def _end_in(self, seconds: float, number: int, sentence: Callable[[], str]) -> None:
    thread = threading.Timer(seconds, self._end, (number, sentence))
    thread.daemon = True
    thread.start()

  def _end(self, number: int, sentence: Callable[[], str]) -> None:
    """Ends the process, whatever its other threads do."""
    try:
      text = sentence()
    except Exception as e:  # what was being written can't be
      text = f"error: {e}"
    if self._is_over:
      return
    writer = threading.Thread(target=_say, args=(text,), daemon=True)  # nobody may read it
    writer.start()
    writer.join(_FLUSH)
    for tell in self._before_end:
      tell(128 + number, text)
    os._exit(128 + number)


_listeners: list[Listener] = []  # that of this process, if it is a command


def current() -> Listener | None:
  """Returns the listener of this process; None if it is not a command."""
  return _listeners[0] if _listeners else None


def begin(usual: Callable[[], str] | None = None) -> Listener:
  """Makes this process a command, which reacts as `Listener` says until it ends."""
  _listeners.append(Listener(usual))
  _listeners[0].start()
  return _listeners[0]


def end() -> None:
  """Restores the handlers that were there before `begin`, if it was called."""
  if _listeners:
    _listeners.pop().stop()


@contextlib.contextmanager
def listening() -> Iterator[Listener | None]:
  """Within this context the process is a command; yields None in other than the main thread."""
  if (earlier := current()) or threading.current_thread() is not threading.main_thread():
    yield earlier
    return
  try:
    yield begin()
  finally:
    end()


def reacting(
  at_once: Callable[[], str] | None, *, looks: bool = False
) -> contextlib.AbstractContextManager[None]:
  """Returns a context in which the command, if this process is one, reacts as `Listener.react`."""
  listener = current()
  return listener.reacting(at_once, looks=looks) if listener else contextlib.nullcontext()


def unsaved(number: int) -> str:
  """Returns the sentence with which a command ends that saves nothing."""
  how = "Interrupted" if number == signal.SIGINT else f"Stopped by {signal.Signals(number).name}"
  return f"{how}; unsaved work is lost."


def _say(text: str) -> None:
  with contextlib.suppress(OSError, ValueError):
    sys.stdout.flush()
  with contextlib.suppress(OSError):
    os.write(2, f"{text}\n".encode(errors="backslashreplace"))
