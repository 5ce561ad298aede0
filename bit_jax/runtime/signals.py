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
from typing import Any, NamedTuple

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


class _Reaction(NamedTuple):
  """What a process does about a signal.

  Attributes:
    at_once: The process ends at once, with the sentence that this returns.
    looks: Whether the main thread looks for requests itself, and may take its time.
    status: The command is over, and the process ends with this exit status.
  """

  at_once: Callable[[], str] | None = None
  looks: bool = False
  status: int | None = None

  @property
  def raises(self) -> bool:
    """Returns whether the main thread gets a KeyboardInterrupt."""
    return self == _Reaction()


class Listener:
  """What a process does about signals; at most one in a process.

  Where it ends the process at once, it says so with a sentence. Else the main thread is to react:
  by default with a KeyboardInterrupt, within `GRACE` seconds.

  Attributes:
    received: The first signal, None before.
    usual: What `react` takes while the command runs.
    before_end: Called with the exit status and the sentence before a signal ends the process.
  """

  def __init__(self, usual: Callable[[], str] | None = None):
    """Takes the usual reaction; until `react` is called, a signal ends the process at once."""
    self.received: int | None = None
    self.usual = usual
    self.before_end: Callable[[int, str], None] = lambda status, sentence: None
    self._reaction = _Reaction(usual or self._unsaved)
    self._is_ending = False
    self._has_lost = False
    self._lock = threading.Lock()  # of the reaction and the end
    self._stopped = threading.Event()

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

  @property
  def ends_at_once(self) -> bool:
    """Returns whether a signal ends the process at once."""
    return self._reaction.at_once is not None

  def finish(self, status: int) -> None:
    """Says that the command is over: a signal now ends only what hangs, with the same status."""
    self._change(_Reaction(looks=True, status=status))

  def stop(self) -> None:
    """Restores the earlier handlers, and ends the thread."""
    self._change(_Reaction(looks=True))
    self._stopped.set()
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
    self._change(_Reaction(at_once, looks))

  def end_at_once(self, sentence: Callable[[], str]) -> bool:
    """Sets `sentence` as `react` does, unless a signal came before; returns whether it did.

    The caller answers an earlier signal, and this thread a later one: none is lost in between.
    """
    return self._change(_Reaction(sentence), unless_received=True)

  def lose(self) -> None:
    """Says that unsaved work is given up: no later sentence may say that nothing is lost."""
    self._has_lost = True

  @contextlib.contextmanager
  def reacting(self, at_once: Callable[[], str] | None, *, looks: bool = False) -> Iterator[None]:
    """Within this context there is another reaction, which `react` may change."""
    earlier = self._reaction
    self.react(at_once, looks=looks)
    try:
      yield
    finally:
      self._change(earlier)

  def _change(self, reaction: _Reaction, *, unless_received: bool = False) -> bool:
    """Sets the reaction unless the process is about to end; returns whether it did."""
    with self._lock:
      changes = not (self._is_ending or (unless_received and self.received))
      if changes:
        self._reaction = reaction
    while self._is_ending:
      time.sleep(_POLL)
    return changes

  def _interrupt(self, number: int, frame: FrameType | None) -> None:
    """Handles a signal in the main thread."""
    self.note(number)
    if self._reaction.raises:
      raise KeyboardInterrupt

  def _unsaved(self) -> str:
    return unsaved(self.received or signal.SIGINT)

  def _listen(self) -> None:
    interrupts, numbers = 0, frozenset(self._earlier)
    while number := os.read(self._read, 1)[0]:
      if number not in numbers:  # it has another handler
        continue
      lost = functools.partial(unsaved, number)
      self.note(number)  # before the look at the reaction, as `end_at_once` expects
      interrupts += number == signal.SIGINT
      with self._lock:
        reaction, is_ending = self._reaction, self._is_ending
        self._is_ending = is_ending or reaction.at_once is not None
      if reaction.status is not None:  # Python may be ending, where no thread can be started
        self._leave(reaction.status)
      elif reaction.at_once is not None and not is_ending:
        self._end_in(0, number, lost if self._has_lost else reaction.at_once)
      elif interrupts > 1:  # after a moment for the main thread
        self._end_in(_AGAIN, number, lost)
      elif reaction.raises:
        self._end_in(GRACE, number, lost)

  def _end_in(self, seconds: float, number: int, sentence: Callable[[], str]) -> None:
    threading.Thread(target=self._end, args=(seconds, number, sentence), daemon=True).start()

  def _end(self, seconds: float, number: int, sentence: Callable[[], str]) -> None:
    """Ends the process after some seconds, whatever its other threads do."""
    if self._stopped.wait(seconds):
      return
    try:
      text = sentence()
    except Exception as e:  # what was being written can't be
      text = f"error: {e}"
    with self._lock:
      status = self._reaction.status
      self._is_ending = status is None
    if status is not None:
      self._leave(status)
      return
    writer = threading.Thread(target=_say, args=(text,), daemon=True)  # nobody may read it
    writer.start()
    writer.join(_FLUSH)
    self.before_end(128 + number, text)
    os._exit(128 + number)

  def _leave(self, status: int) -> None:
    """Ends the process once the command had the time to write its last words."""
    if not self._stopped.wait(_FLUSH):
      os._exit(status)


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


def received() -> int:
  """Returns the number of the signal that a command ends by; Ctrl-C's if none is known."""
  listener = current()
  return (listener and listener.received) or signal.SIGINT


def unsaved(number: int) -> str:
  """Returns the sentence with which a command ends that saves nothing."""
  how = "Interrupted" if number == signal.SIGINT else f"Stopped by {signal.Signals(number).name}"
  return f"{how}; unsaved work is lost."


def _say(text: str) -> None:
  with contextlib.suppress(OSError, ValueError):
    sys.stdout.flush()
  with contextlib.suppress(OSError):
    os.write(2, f"{text}\n".encode(errors="backslashreplace"))
