"""How a command ends: exit statuses, errors printed as one sentence, Ctrl-C and other signals.

A signal of `signals.ENDING` asks a run to stop, at once where nothing is unsaved; a second Ctrl-C
stops at once anywhere. After `nohup` a terminal that hangs up changes nothing.
"""

import contextlib
import errno
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any, NoReturn, Self

from bit_jax.runtime import errors, output, signals

# Exit statuses; after another signal than Ctrl-C it is 128 and the signal's number.
USER_ERROR, INTERRUPTED = 2, 130
_DEFECT = 1  # Python's own, after a traceback
_REPORT_IT = (
  "This is a bug in bit_jax or in a library: please report it with the lines above and the output "
  "of `python -m bit_jax.env`."
)
# Errors of disks, file systems, permissions, limits and network storage.
_MACHINE_ERROR_NAMES = (
  "EACCES EBUSY EDQUOT EFBIG EHOSTDOWN EIO EISDIR ELOOP EMFILE EMLINK ENAMETOOLONG ENFILE ENODEV "
  "ENOLCK ENOMEM ENOSPC ENOTCONN ENXIO EPERM EREMOTEIO EROFS ESTALE ETIMEDOUT EUCLEAN"
)
_MACHINE_ERRORS = frozenset(getattr(errno, n, None) for n in _MACHINE_ERROR_NAMES.split()) - {None}
_TENSORSTORE_ERROR = re.compile(r"os_error_code='(\d+)'")  # the library that writes checkpoints
# Texts of Python, C++ and libraries where memory or threads are lacking.
_LACK = re.compile("^RESOURCE_EXHAUSTED|can't start new thread|Resource temporarily unavailable")
_QUOTED = 200  # characters of them


def run(
  main: Callable[[Sequence[str]], int | None], argv: Sequence[str], *, needs_reader: bool = True
) -> int:
  """Calls `main(argv)` and returns the exit status; prints user errors without a traceback.

  Args:
    main: Returns the exit status; None is 0.
    argv: The program's name, then its arguments.
    needs_reader: Whether the command's only purpose is its output: it then ends silently when
      nobody reads that any more. Other commands, which write files, continue.
  """
  status, message = 0, None
  if os.environ.get("HOME") == "":  # as good as none; Python would take it for the root folder
    del os.environ["HOME"]
  output.prepare()
  with (
    output.surviving(*(("stderr",) if needs_reader else ("stdout", "stderr"))),
    signals.listening() as listener,
  ):
    try:
      if listener is not None:
        listener.react(listener.usual)
      status = main(argv) or 0
      sys.stdout.flush()
    except errors.UserError as e:
      status, message = USER_ERROR, f"error: {e}"
    except Interrupted as e:
      status, message = 128 + _received(listener), str(e)
    except KeyboardInterrupt:
      number = _received(listener)
      status, message = 128 + number, signals.unsaved(number)
    except Exception as e:
      if needs_reader and isinstance(e, BrokenPipeError):  # `... | head`
        output.discard(sys.stdout)
      elif sentence := machine_error(e):
        status, message = USER_ERROR, f"error: {errors.one_line(sentence)}"
      else:
        status = _DEFECT
        e.add_note(_REPORT_IT)
        output.finish()  # threads may keep Python from doing so
        raise
    finally:
      if listener is not None:
        listener.finish(status)
    if message is not None:
      print(message, file=sys.stderr)
  output.finish()
  return status


def _received(listener: signals.Listener | None) -> int:
  """Returns the number of the signal that a command ends by."""
  return (listener and listener.received) or signal.SIGINT


def machine_error(error: Exception) -> str | None:
  """Returns a sentence if the machine caused an error (a disk, a device), None if this code did.

  Any other `OSError`, such as of a file that doesn't exist, is a bug.
  """
  if cause := machine_cause(error):
    where = f"{cause.filename}: " if cause.filename else ""
    return f"{where}{cause.strerror}. Fix this, then run the same command again."
  # JAX raises these where it finds no device. It takes seconds to import; most commands don't.
  if isinstance(error, AssertionError | RuntimeError) and "jax" in sys.modules:
    from bit_jax.runtime import devices

    try:
      devices.require()
    except errors.UserError as e:
      return str(e)
  return None


def listen(sentence: str | None = None) -> None:
  """Lets a signal end this process at once; call before long imports.

  Args:
    sentence: Printed then, also when `run` is called, until a `StopRequest` says otherwise. Without
      one, `run` lets signals raise a KeyboardInterrupt.
  """
  output.prepare()
  signals.begin(None if sentence is None else lambda: sentence)


def machine_cause(error: Exception) -> OSError | None:
  """Returns the error of the disk, file system, memory or limit behind an error; None without one.

  Its `filename` is None or text. tensorstore reports such errors as texts.
  """
  number, file = getattr(error, "errno", None), getattr(error, "filename", None)
  if found := _TENSORSTORE_ERROR.search(str(error)):
    number = int(found[1])
    file = path[1] if (path := re.search(r'"(/[^"]+)"', str(error))) else None
  elif isinstance(error, MemoryError) or _LACK.search(str(error)):
    what = errors.first_line(error) if str(error) else os.strerror(errno.ENOMEM)
    return OSError(errno.ENOMEM, what[:_QUOTED])
  if not isinstance(number, int) or number not in _MACHINE_ERRORS:
    return None
  named = (os.fsdecode(file),) if isinstance(file, str | bytes) else ()
  return OSError(number, os.strerror(number), *named)


def leave(status: int) -> NoReturn:
  """Ends the process; after an error or a signal without waiting for anything.

  Threads may compile, download, or read from a disk that doesn't answer, and JAX's shutdown waits
  for other processes.
  """
  if status:
    output.finish()
    os._exit(status)
  sys.exit()


class Interrupted(Exception):  # noqa: N818 - not an error
  """A run stopped on request; the message says where, and how to resume."""


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
      raise Interrupted(sentence())

  def unsaved(self) -> None:
    """Says that there is something to save, from now on."""
    if self._earlier and (listener := signals.current()):
      listener.react(None, looks=True)

  def _note(self, number: int, frame: FrameType | None) -> None:
    if listener := signals.current():
      listener.note(number)
    if self.requested and number == signal.SIGINT:
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
  raise Interrupted("Stopped before the first step.")
