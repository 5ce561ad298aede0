"""Reads inputs of one kind, each within limits of time and memory, and notes every bad end.

An input ends well if it is accepted, or refused with the error that users get, in one sentence. Any
other exception is a finding, and so are a sentence of several lines or with characters that control
a terminal, a wrong value, too much memory, and too long a time.
"""

import contextlib
import dataclasses
import hashlib
import pathlib
import resource
import signal
import traceback
import unicodedata
import warnings
from collections.abc import Iterator
from types import FrameType

import psutil

from bit_jax.runtime import errors
from bit_jax.weights import download
from experiments.reliability.fuzz import target

_ROOT = pathlib.Path(__file__).parents[3]
_SECONDS = 20  # of the processor, for one input
_LONGEST = 2000  # characters of a sentence
# Categories of Unicode: control characters, invisible ones, halves of pairs, and line breaks.
_UNPRINTABLE = ("Cc", "Cf", "Cs", "Zl", "Zp")


class TooLong(BaseException):
  """An input that takes too long; no code that is tested catches this."""


@dataclasses.dataclass(frozen=True)
class Finding:
  """A bad end.

  Attributes:
    place: The exception's type and where this project's code raised or passed it.
    text: The traceback.
    data: The input.
  """

  place: str
  text: str
  data: bytes

  @property
  def name(self) -> str:
    """The start of the input's SHA-256."""
    return hashlib.sha256(self.data).hexdigest()[:12]


def attempt(kind: target.Target, data: bytes, folder: pathlib.Path) -> bool | Finding:
  """Reads one input; returns whether it was accepted, or the finding.

  Args:
    kind: Its kind.
    data: The input.
    folder: For files; the same for all inputs.
  """
  try:
    with warnings.catch_warnings():
      warnings.simplefilter("ignore")
      return kind.check(data, folder)
  except (errors.UserError, download.DownloadError) as e:
    return _finding(e, data, f"{fault}: ") if (fault := unlike_a_sentence(str(e))) else False
  except (Exception, TooLong) as e:
    return _finding(e, data)


def unlike_a_sentence(text: str) -> str | None:
  """Returns what keeps a message from being one sentence for a terminal; None if it is one."""
  if not text.strip():
    return "empty"
  if len(text) > _LONGEST:
    return "too long"
  if any(unicodedata.category(c) in _UNPRINTABLE for c in text):
    return "unprintable"
  return None


def _finding(error: BaseException, data: bytes, fault: str = "") -> Finding:
  """Returns the finding of an error; `fault` says what is wrong with its message."""
  frames = traceback.extract_tb(error.__traceback__)
  own = [f for f in frames if f.filename.startswith(f"{_ROOT / 'bit_jax'}/")] or frames
  where = f"{own[-1].filename.removeprefix(f'{_ROOT}/')}:{own[-1].name}"
  text = "".join(traceback.format_exception(error))
  return Finding(f"{fault}{type(error).__name__} in {where}", text, data)


@contextlib.contextmanager
def limited(memory: int) -> Iterator[None]:
  """Limits the address space of this process to `memory` bytes more than it has now."""
  soft, hard = resource.getrlimit(resource.RLIMIT_AS)
  resource.setrlimit(resource.RLIMIT_AS, (psutil.Process().memory_info().vms + memory, hard))
  try:
    yield
  finally:
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


@contextlib.contextmanager
def timed() -> Iterator[None]:
  """Raises `TooLong` in the main thread where the block takes too long."""

  def stop(number: int, frame: FrameType | None) -> None:
    raise TooLong(f"longer than {_SECONDS} s of the processor")

  earlier = signal.signal(signal.SIGPROF, stop)
  signal.setitimer(signal.ITIMER_PROF, _SECONDS)
  try:
    yield
  finally:
    signal.setitimer(signal.ITIMER_PROF, 0)
    signal.signal(signal.SIGPROF, earlier)
