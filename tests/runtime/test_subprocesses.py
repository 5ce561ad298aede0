"""Other programs: what they leave, and those that don't end."""

import os
import signal
import sys
import time

import pytest

from bit_jax.runtime import subprocesses


def test_status_and_output():
  code = "import os, sys; print(os.environ['A']); print('no', file=sys.stderr); sys.exit(3)"
  ended = subprocesses.run([sys.executable, "-c", code], 60, {**os.environ, "A": "yes"})
  assert ended == (3, "yes\n", "no\n")
  killed = subprocesses.run([sys.executable, "-c", "import os; os.abort()"], 60)
  assert killed.status == -signal.SIGABRT


def test_a_program_that_does_not_end_is_killed_with_those_that_it_started(tmp_path):
  inner = "import time; time.sleep(600)"
  code = (
    "import pathlib, subprocess, sys, time; "
    f"child = subprocess.Popen([sys.executable, '-c', {inner!r}]); "
    f"pathlib.Path({str(tmp_path / 'pid')!r}).write_text(str(child.pid)); time.sleep(600)"
  )
  assert subprocesses.run([sys.executable, "-c", code], 5) is None
  child = int((tmp_path / "pid").read_text())
  deadline = time.monotonic() + 60
  while time.monotonic() < deadline:
    try:
      with open(f"/proc/{child}/stat") as file:
        if file.read().rpartition(")")[2].split()[0] == "Z":
          return
    except OSError:
      return
    time.sleep(0.05)
  pytest.fail("the second program still runs")


def test_a_program_that_is_not_there():
  with pytest.raises(FileNotFoundError):
    subprocesses.run(["no-such-program-here"], 5)
