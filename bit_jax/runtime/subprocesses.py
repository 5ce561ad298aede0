"""Other programs whose answer is wanted, but not waited for endlessly.

A program that waits for a broken driver or file system can't even be killed, so it is left behind.
"""

import contextlib
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from typing import IO, NamedTuple

_POLL = 0.02  # seconds


class Ended(NamedTuple):
  """What a program left.

  Attributes:
    status: Its exit status; negative, the signal that ended it.
    output: Its standard output.
    errors: Its error output.
  """

  status: int
  output: str
  errors: str


def run(
  command: Sequence[str], seconds: float, environment: Mapping[str, str] | None = None
) -> Ended | None:
  """Runs a program without input; returns None if it doesn't end in time, and kills it.

  Args:
    command: The program and its arguments.
    seconds: How long to wait.
    environment: Its environment; default: that of this process.

  Raises:
    OSError: The program can't be started.
  """
  # Files, not pipes: the program, or one that it started, may keep a pipe open.
  with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
    process = subprocess.Popen(
      command,
      env=environment,
      stdin=subprocess.DEVNULL,
      stdout=output,
      stderr=errors,
      start_new_session=True,
    )
    deadline = time.monotonic() + seconds
    while (status := process.poll()) is None:
      if time.monotonic() > deadline:
        with contextlib.suppress(ProcessLookupError):
          os.killpg(process.pid, signal.SIGKILL)
        process.returncode = -signal.SIGKILL  # else Python warns of a process that still runs
        return None
      time.sleep(_POLL)
    return Ended(status, _text(output), _text(errors))


def _text(file: IO[bytes]) -> str:
  file.seek(0)
  return os.fsdecode(file.read())
