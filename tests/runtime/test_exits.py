"""Tests of bit_jax.runtime.exits."""

import errno
import os
import signal
import subprocess
import sys
import threading

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


@pytest.mark.parametrize(
  ("error", "beginning"),
  [
    (
      OSError(errno.ENOSPC, "No space left on device", "runs/x/model.npz"),
      "runs/x/model.npz: No sp",
    ),
    (OSError(errno.ENOSPC, "No space left on device"), "No space left on device. Fix this"),
    (OSError(errno.EDQUOT, "Disk quota exceeded", b"r\xe9"), "r\udce9: Disk quota exceeded. Fix"),
    (PermissionError(errno.EACCES, "Permission denied", "a", None, "b"), "a: Permission denied. F"),
    (OSError(errno.ESTALE, "Stale file handle", 3), "Stale file handle. Fix this"),
    (OSError(errno.EMFILE, "Too many open files", "f"), "f: Too many open files. Fix this"),
    (
      ValueError(
        'RESOURCE_EXHAUSTED: Error writing "opt_state" in OCDBT database at local file "/r/d/": '
        "Failed to write 3158016 bytes to file 7: No space left on device [os_error_code='28']"
      ),
      "/r/d/: No space left on device. Fix this",
    ),
    (MemoryError(), "Cannot allocate memory. Fix this"),
    (MemoryError("Unable to allocate 9 GiB"), "Unable to allocate 9 GiB. Fix this"),
    (RuntimeError("can't start new thread"), "can't start new thread. Fix this"),
    (RuntimeError("Resource temporarily unavailable"), "Resource temporarily unavailable. Fix"),
    (ValueError("RESOURCE_EXHAUSTED: Out of memory"), "RESOURCE_EXHAUSTED: Out of memory. Fix"),
  ],
)
def test_an_error_of_the_machine_is_a_sentence_that_says_how_to_resume(error, beginning):
  sentence = exits.machine_error(error)
  assert sentence.startswith(beginning)
  assert sentence.endswith("Fix this, then run the same command again.")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_a_request(number):
  with exits.StopRequest() as stop:
    assert not stop.requested
    os.kill(os.getpid(), number)
    assert stop.requested


def test_a_second_ctrl_c_stops_at_once():
  with exits.StopRequest() as stop:
    os.kill(os.getpid(), signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
      os.kill(os.getpid(), signal.SIGINT)
    assert stop.requested


def test_a_second_sigterm_does_not():
  with exits.StopRequest() as stop:
    os.kill(os.getpid(), signal.SIGTERM)
    os.kill(os.getpid(), signal.SIGTERM)
    assert stop.requested


def test_earlier_handlers_return_also_after_an_error():
  numbers = (signal.SIGINT, signal.SIGTERM)
  before = [signal.getsignal(n) for n in numbers]

  def fail():
    with exits.StopRequest():
      assert [signal.getsignal(n) for n in numbers] != before
      raise ZeroDivisionError

  with pytest.raises(ZeroDivisionError):
    fail()
  assert [signal.getsignal(n) for n in numbers] == before


def test_other_threads_only_never_see_a_request():
  seen = []

  def listen():
    with exits.StopRequest() as stop:
      seen.append(stop.requested)

  thread = threading.Thread(target=listen)
  thread.start()
  thread.join()
  assert seen == [False]


def test_a_terminal_that_hangs_up_is_a_request_unless_told_otherwise():
  before = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the tests themselves may run under nohup
  try:
    with exits.StopRequest() as stop:
      os.kill(os.getpid(), signal.SIGHUP)
      assert stop.requested
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    with exits.StopRequest() as stop:
      os.kill(os.getpid(), signal.SIGHUP)
      assert not stop.requested
  finally:
    signal.signal(signal.SIGHUP, before)


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
