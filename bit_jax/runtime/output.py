"""Standard output and error without which a command goes on.

A stream may be closed from the start, lose its reader (`| head`, a terminal that hangs up), lie on
a full disk, or have an encoding that lacks a character.
"""

import contextlib
import errno
import io
import os
import sys
from collections.abc import Iterator
from typing import Any

_GONE = (errno.EPIPE, errno.EIO, errno.ENXIO, errno.EBADF, errno.ECONNRESET, errno.ESTALE)


def prepare() -> None:
  """Gives the process both streams, and has them escape what their encoding lacks.

  File names needn't be text, and a terminal needn't show all of Unicode.
  """
  for descriptor in range(3):  # else the next file that is opened gets what libraries print
    try:
      os.fstat(descriptor)
    except OSError:
      _discard(descriptor)
  for name in ("stdout", "stderr"):
    stream = getattr(sys, name)
    if stream is None:
      setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
    elif isinstance(stream, io.TextIOWrapper):
      with contextlib.suppress(OSError):  # it flushes
        stream.reconfigure(errors="backslashreplace")


@contextlib.contextmanager
def surviving(*names: str) -> Iterator[None]:
  """Lets what is printed inside get lost where it can't be written, instead of raising.

  Once its reader is gone, a stream's descriptor leads to the null device: for libraries and child
  processes as well, and for what the interpreter flushes at its end.

  Args:
    names: 'stdout', 'stderr' or both.
  """
  with contextlib.ExitStack() as stack:
    for name in names:
      stack.enter_context(_replaced(name))
    yield


@contextlib.contextmanager
def _replaced(name: str) -> Iterator[None]:
  stream = getattr(sys, name)
  if isinstance(stream, _Surviving):
    yield
    return
  with contextlib.ExitStack() as stack:
    if (taken := stream) is None:
      taken = stack.enter_context(open(os.devnull, "w", encoding="utf-8"))
    survivor = _Surviving(taken)
    setattr(sys, name, survivor)
    try:
      yield
    finally:
      survivor.flush()
      if getattr(sys, name) is survivor:
        setattr(sys, name, stream)


def discard(stream: Any) -> None:
  """Sends what a stream gets from now on, and what it has not written yet, to the null device."""
  with contextlib.suppress(OSError, ValueError, AttributeError):  # it has no descriptor
    _discard(stream.fileno())


def finish() -> None:
  """Flushes both streams; drops what can't be written, which the interpreter would fail at."""
  for stream in (sys.stdout, sys.stderr):
    try:
      stream.flush()
    except OSError:
      discard(stream)


def _discard(descriptor: int) -> None:
  null = os.open(os.devnull, os.O_RDWR)
  if null != descriptor:
    os.dup2(null, descriptor)
    os.close(null)


class _Surviving:
  """A text stream whose writes don't fail; all else is the stream's own."""

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

  def writelines(self, lines: Any) -> None:
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
    """Returns what the stream has of this name."""
    return getattr(self._stream, name)

  def _lose(self, error: OSError) -> None:
    if error.errno in _GONE:  # a full disk may have room again
      discard(self._stream)
