"""Fatal errors of JAX's own threads: their traces go to a file, and Python ends the process.

JAX's client of the coordinator ends a process with a C++ stack trace where it loses the
connection, which happens as soon as the first process is gone. No callback of Python's prevents it.
"""

import contextlib
import ctypes
import os
import re
import select
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator

# Lines of C++ after which the process ends, in the format of absl: level, date, time, thread, file.
# Other fatal errors, such as of unknown XLA_FLAGS, end it without a call of `on_abort`: they show.
# Errors after which it goes on show, too, as does all that follows them.
_FATAL = re.compile(
  rb"F\d{4} \d\d:.*\bdistributed service|terminate called|\*\*\* Check failure"
  rb"|E\d{4} \d\d:.*\bPolled an error from coordination service"
)
_PAUSE = 0.1  # seconds after which a line without an end is shown


class Filter:
  """Standard error without the last words of C++.

  Attributes:
    log: The file that holds them; None if there were none.
  """

  def __init__(self, prefix: str):
    """Takes the first part of the log's name."""
    self.log: str | None = None
    self._prefix, self._file = prefix, -1
    self._stopped = threading.Event()
    self._idle = threading.Event()
    self._real, (self._source, self._sink) = os.dup(2), os.pipe()
    self._thread = threading.Thread(target=self._copy, name="standard error", daemon=True)

  def start(self) -> None:
    """Takes over the descriptor of standard error."""
    sys.stderr.flush()
    os.dup2(self._sink, 2)
    os.close(self._sink)
    self._thread.start()

  def stop(self) -> None:
    """Shows what is left, and gives the descriptor back."""
    with contextlib.suppress(OSError, ValueError):
      sys.stderr.flush()
    os.dup2(self._real, 2)
    self._stopped.set()
    self._thread.join(2)

  def settle(self) -> None:
    """Waits until all that was written is where it belongs."""
    with contextlib.suppress(OSError, ValueError):
      sys.stderr.flush()
    self._idle.clear()
    self._idle.wait(2)

  def say(self, text: str) -> None:
    """Prints a line after all that was written so far."""
    self.settle()
    self._write(self._real, f"{text}\n".encode(errors="backslashreplace"))

  def first_line(self) -> str:
    """Returns the first line of the log, without what absl puts before it."""
    self.settle()
    if self.log is None:
      return "no reason is given"
    with open(self.log, encoding="utf-8", errors="replace") as file:
      text = file.readline().strip()
    return re.sub(r"^[EF]\d{4} \S+ +\d+ ", "", text)[:300]

  def _copy(self) -> None:
    rest = b""
    while True:
      if not select.select([self._source], [], [], _PAUSE)[0]:
        rest = self._pass_on(rest, whole=True)
        self._idle.set()
        if self._stopped.is_set():
          return
        continue
      data = os.read(self._source, 2**16)
      rest = self._pass_on(rest + data, whole=not data)
      if not data:
        self._idle.set()
        return

  def _pass_on(self, text: bytes, *, whole: bool) -> bytes:
    """Writes lines where they belong; returns an unfinished one, unless all is to be written."""
    *lines, rest = text.split(b"\n")
    lines = [line + b"\n" for line in lines]
    if whole and rest:
      lines, rest = [*lines, rest], b""
    for line in lines:
      if self._file < 0 and _FATAL.match(line):
        self._file, self.log = tempfile.mkstemp(prefix=self._prefix, suffix=".log")
      self._write(self._real if self._file < 0 else self._file, line)
    return rest

  def _write(self, descriptor: int, data: bytes) -> None:
    with contextlib.suppress(OSError):  # the terminal may be gone
      while data:
        data = data[os.write(descriptor, data) :]


@contextlib.contextmanager
def filtered(prefix: str) -> Iterator[Filter]:
  """Within this context, C++'s last words are kept from standard error; see `Filter`."""
  found = Filter(prefix)
  found.start()
  try:
    yield found
  finally:
    found.stop()


_handlers: list[object] = []  # C calls them until the process ends


def on_abort(react: Callable[[], object]) -> None:
  """Calls a function, in the thread that fails, before C++ aborts the process.

  The function ends the process. Python's own handlers of signals run too late for it.

  Args:
    react: The function.
  """
  kind = ctypes.CFUNCTYPE(None, ctypes.c_int)
  handler = kind(lambda _: react() and None)
  _handlers.append(handler)
  library = ctypes.CDLL(None)
  library.signal.argtypes, library.signal.restype = [ctypes.c_int, kind], ctypes.c_void_p
  library.signal(signal.SIGABRT, handler)
