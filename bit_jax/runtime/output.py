"""Standard output and error whose failures don't end a command.

A stream may be closed from the start, lose its reader (`| head`, a terminal that hangs up), be on a
full disk, or have an encoding that lacks a character.
"""

import contextlib
import errno
import io
import os
import sys
from collections.abc import Iterable, Iterator
from typing import Any

_GONE = (errno.EPIPE, errno.EIO, errno.ENXIO, errno.EBADF, errno.ECONNRESET, errno.ESTALE)


def prepare() -> None:
  """Opens both streams if they are closed, and makes them escape what their encoding lacks.

  File names may not be text, and a terminal may not show all of Unicode.
  """
  for descriptor in range(3):  # else the next file that is opened gets what libraries print
    try:
      os.fstat(descriptor)
    except OSError:
      _redirect_to_null(descriptor)
  for name in ("stdout", "stderr"):
    stream = getattr(sys, name)
    if stream is None:
      setattr(sys, name, _null())
    elif isinstance(stream, io.TextIOWrapper):
      with contextlib.suppress(OSError):  # it flushes
        stream.reconfigure(errors="backslashreplace")


@contextlib.contextmanager
def surviving(*names: str) -> Iterator[None]:
  """Within this context, text that can't be printed is lost, and nothing is raised.

  Once its reader is gone, a stream's descriptor leads to the null device: for libraries and child
  processes as well, and for what the interpreter flushes when it ends.

  Args:
    names: 'stdout', 'stderr' or both.
  """
  redirect = {"stdout": contextlib.redirect_stdout, "stderr": contextlib.redirect_stderr}
  with contextlib.ExitStack() as stack:
    for name in names:
      stream = getattr(sys, name)
      if not isinstance(stream, _Surviving):
        survivor = _Surviving(stack.enter_context(_null()) if stream is None else stream)
        stack.enter_context(redirect[name](survivor))
        stack.callback(survivor.flush)
    yield


def discard(stream: Any) -> None:
  """Sends a stream's coming and unwritten output to the null device."""
  with contextlib.suppress(OSError, ValueError, AttributeError):  # it has no descriptor
    _redirect_to_null(stream.fileno())


def finish() -> None:
  """Flushes both streams; drops what can't be written, which would fail when Python ends."""
  for stream in (sys.stdout, sys.stderr):
    try:
      stream.flush()
    except OSError:
      discard(stream)


def _null() -> io.TextIOWrapper:
  return open(os.devnull, "w", encoding="utf-8")


def _redirect_to_null(descriptor: int) -> None:
  null = os.open(os.devnull, os.O_RDWR)
  if null != descriptor:
    os.dup2(null, descriptor)
    os.close(null)


class _Surviving:
  """A text stream whose writes don't fail; all other attributes are the stream's."""

  def __init__(self, stream: Any):
    self._stream = stream

  def write(self, text: str) -> int:
    """Writes a text, with escapes for what the stream's encoding lacks."""
    try:
      self._stream.write(text)
    except UnicodeEncodeError:
      encoding = getattr(self._stream, "encoding", None) or "ascii"
      return self.write(text.encode(encoding, "backslashreplace").decode(encoding))
    except OSError as e:
      self._lose(e)
    return len(text)

  def writelines(self, lines: Iterable[str]) -> None:
    """Writes one text after the other."""
    for line in lines:
      self.write(line)

  def flush(self) -> None:
    """Flushes the stream if it can be."""
    try:
      self._stream.flush()
    except OSError as e:
      self._lose(e)

  def __getattr__(self, name: str) -> Any:
    """Returns an attribute of the stream."""
    return getattr(self._stream, name)

  def _lose(self, error: OSError) -> None:
    if error.errno in _GONE:  # a full disk may have room again
      discard(self._stream)
