"""Reads inputs of one kind, each within limits of time and memory, and notes every bad end.

An input ends well if it is accepted or refused with the error that users get. Any other exception
is a finding, and so are a wrong value, too much memory, and too long a time.
"""

import contextlib
import dataclasses
import hashlib
import pathlib
import resource
import signal
import traceback
import warnings
from collections.abc import Iterator
from types import FrameType

import psutil

from bit_jax.runtime import errors, exits
from experiments.reliability.fuzz import target

_ROOT = pathlib.Path(__file__).parents[3]
_SECONDS = 20  # of the processor, for one input


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
  except errors.UserError:
    return False
  except (Exception, TooLong) as e:
    if isinstance(e, OSError) and exits.machine_error(e):  # a sentence for the user
      return False
    frames = traceback.extract_tb(e.__traceback__)
    own = [f for f in frames if f.filename.startswith(f"{_ROOT / 'bit_jax'}/")] or frames
    where = f"{own[-1].filename.removeprefix(f'{_ROOT}/')}:{own[-1].name}"
    text = "".join(traceback.format_exception(e))
    return Finding(f"{type(e).__name__} in {where}", text, data)


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
