"""Tests of bit_jax.runtime.exits."""

import errno
import os
import signal
import subprocess
import sys

import pytest

from bit_jax.runtime import errors, exits


def test_exit_statuses(capsys):
  def raising(error):
    def main(argv):
      assert argv == ["x", "y"]
      raise error

    return main

  assert exits.run(lambda argv: None, ["x"]) == 0
  assert exits.run(raising(errors.UserError("Say it so.")), ["x", "y"]) == 2
  assert capsys.readouterr().err == "error: Say it so.\n"
  assert exits.run(raising(KeyboardInterrupt()), ["x", "y"]) == 128 + signal.SIGINT
  assert exits.run(raising(exits.Interrupted("Saved.")), ["x", "y"]) == 130
  assert capsys.readouterr().err.splitlines() == ["Interrupted; unsaved work is lost.", "Saved."]
  for defect in (
    ZeroDivisionError(),
    FileNotFoundError(errno.ENOENT, "No such file", "x"),
    OSError(),
  ):
    with pytest.raises(type(defect)) as e:  # a defect keeps its traceback
      exits.run(raising(defect), ["x", "y"])
    (note,) = e.value.__notes__
    assert "please report it with the lines above" in note
  assert capsys.readouterr().err == ""


def test_an_empty_home_is_none(monkeypatch):
  monkeypatch.setenv("HOME", "")
  homes = []
  assert exits.run(lambda _: homes.append(os.path.expanduser("~/x")), ["command"]) == 0
  assert homes != ["/x"]


@pytest.mark.parametrize(
  ("last", "status"),
  [
    ("raise KeyboardInterrupt", exits.INTERRUPTED),
    ("raise errors.UserError('No.')", exits.USER_ERROR),
    ("return 3", 3),
  ],
)
def test_after_an_error_or_ctrl_c_a_command_waits_for_no_thread(last, status):
  """A thread may compile, download or read for minutes; here it waits for ever."""
  code = (
    "import sys, threading; from bit_jax.runtime import errors, exits\n"
    "def main(argv):\n"
    "  threading.Thread(target=threading.Event().wait).start()\n"
    "  print('said')\n"
    f"  {last}\n"
    "exits.leave(exits.run(main, sys.argv))"
  )
  done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
  assert (done.returncode, done.stdout) == (status, "said\n")
  assert "Traceback" not in done.stderr


def test_the_sentence_on_a_machine_error_is_one_line(capsys):
  def main(argv):
    raise OSError(errno.ENOSPC, "No space left on device", "a\n\x1b[2J.npz")

  assert exits.run(main, ["command"]) == 2
  assert capsys.readouterr().err.startswith(r"error: a\n\x1b[2J.npz: No space left on device. ")
