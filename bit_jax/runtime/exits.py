"""How a command ends: exit statuses, errors printed as one sentence, Ctrl-C and SIGTERM.

A first Ctrl-C, a SIGTERM or a terminal that hangs up asks a run to stop after the current step; a
second Ctrl-C stops at once. After `nohup` a terminal that hangs up changes nothing.
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

from bit_jax.runtime import errors, output

USER_ERROR, INTERRUPTED = 2, 130  # exit statuses
_DEFECT = (
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
  with output.surviving(*(("stderr",) if needs_reader else ("stdout", "stderr"))):
    try:
      status = main(argv) or 0
      sys.stdout.flush()
    except errors.UserError as e:
      status, message = USER_ERROR, f"error: {e}"
    except Interrupted as e:
      status, message = INTERRUPTED, str(e)
    except KeyboardInterrupt:
      status, message = INTERRUPTED, "Interrupted; unsaved work is lost."
    except Exception as e:
      if needs_reader and isinstance(e, BrokenPipeError):  # `... | head`
        output.discard(sys.stdout)
      elif sentence := machine_error(e):
        status, message = USER_ERROR, f"error: {sentence}"
      else:
        e.add_note(_DEFECT)
        raise
    if message is not None:
      print(message, file=sys.stderr)
  output.finish()
  return status


def machine_error(error: Exception) -> str | None:
  """Returns a sentence if the machine caused an error (a disk, a device), None if this code did.

  Any other `OSError`, such as of a file that doesn't exist, is a bug.
  """
  number, file = getattr(error, "errno", None), getattr(error, "filename", None)
  if found := _TENSORSTORE_ERROR.search(str(error)):
    number = int(found[1])
    file = path[1] if (path := re.search(r'"(/[^"]+)"', str(error))) else None
  if isinstance(number, int) and number in _MACHINE_ERRORS:
    where = f"{os.fsdecode(file)}: " if isinstance(file, str | bytes) else ""
    return f"{where}{os.strerror(number)}. Fix this, then run the same command again."
  # JAX raises these where it finds no device. It takes seconds to import; most commands don't.
  if isinstance(error, AssertionError | RuntimeError) and "jax" in sys.modules:
    from bit_jax.runtime import devices

    try:
      devices.require()
    except errors.UserError as e:
      return str(e)
  return None


def leave(status: int) -> NoReturn:
  """Ends the process; after Ctrl-C without waiting for threads, which may compile or download."""
  if status == INTERRUPTED:
    output.finish()
    os._exit(status)
  sys.exit(status)


class Interrupted(Exception):  # noqa: N818 - not an error
  """A run stopped on request; the message says where, and how to resume."""


class StopRequest:
  """A context manager that records requests to stop.

  Attributes:
    requested: Whether the process was asked to stop.
  """

  def __init__(self) -> None:
    self.requested = False
    self._earlier: dict[signal.Signals, Any] = {}

  def __enter__(self) -> Self:
    """Installs the handlers; signals reach only the main thread, so elsewhere it does nothing."""
    if threading.current_thread() is threading.main_thread():
      for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
          self._earlier[number] = signal.signal(number, self._note)
    return self

  def __exit__(self, *_: object) -> None:
    """Restores the earlier handlers."""
    for number, handler in self._earlier.items():
      signal.signal(number, handler)

  def _note(self, number: int, frame: FrameType | None) -> None:
    if self.requested and number == signal.SIGINT:
      raise KeyboardInterrupt
    self.requested = True
    # The terminal may be gone, or be written to at this moment.
    with contextlib.suppress(OSError, RuntimeError):
      print("\nStopping after this step; Ctrl-C again stops at once.", file=sys.stderr, flush=True)
