"""Tests of bit_jax.runtime.signals, in processes of their own."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading

import pytest

from bit_jax.runtime import exits, signals, stopping

# C code that neither a signal nor another thread disturbs, as a compiler: a hash for hours.
IN_C = "import hashlib; hashlib.pbkdf2_hmac('sha256', b'', b'', 2**31 - 1)"
IN_PYTHON = "import time; time.sleep(600)"


@pytest.fixture
def start(monkeypatch):
  """A function that starts a command, and returns its process when it has printed a line."""
  monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
  with contextlib.ExitStack() as stack:

    def started(body, *, before="", ignored=()):
      as_started = {
        int(n): int(signal.SIG_IGN if n in ignored else signal.SIG_DFL) for n in signals.ENDING
      }
      lines = [
        "import os, signal, sys",
        f"for number, handler in {as_started}.items(): signal.signal(number, handler)",
        "from bit_jax.runtime import exits, stopping",
        before,
        "def main(argv):",
        *(f"  {line}" for line in body.splitlines()),
        "exits.leave(exits.run(main, sys.argv))",
      ]

      pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
      line = [sys.executable, "-c", "\n".join(lines)]
      process = stack.enter_context(subprocess.Popen(line, **pipes))
      stack.callback(process.kill)
      assert process.stdout.readline() == "ready\n"
      return process

    yield started


def end(process):
  out, err = process.stdout.read(), process.stderr.read()  # of the same buffers as before
  return process.wait(), out, err


READY = "os.write(1, b'ready\\n')\n"  # what was printed before stays in the buffer


@pytest.mark.parametrize("number", signals.ENDING)
@pytest.mark.parametrize("ignored", [(), (signal.SIGINT, signal.SIGTERM)], ids=["", "ignored"])
def test_a_command_unwinds_and_ends_with_a_sentence(start, number, ignored):
  body = f"print('kept')\ntry:\n  {READY}  {IN_PYTHON}\nfinally:\n  print('cleaned')"
  process = start(body, ignored=ignored)
  process.send_signal(number)
  name = "Interrupted" if number == signal.SIGINT else f"Stopped by {number.name}"
  sentence = f"{name}; unsaved work is lost.\n"
  assert end(process) == (128 + number, "kept\ncleaned\n", sentence)


@pytest.mark.parametrize("number", signals.ENDING)
def test_where_nothing_is_unsaved_a_command_ends_also_within_c_code(start, number):
  body = (
    "with stopping.StopRequest() as stop:\n"
    "  stop.nothing_unsaved(lambda: 'Stopped in C.')\n"
    f"  print('kept')\n  {READY}  {IN_C}"
  )
  process = start(body)
  process.send_signal(number)
  assert end(process) == (128 + number, "kept\n", "Stopped in C.\n")


def test_a_long_import_ends_at_once_too(start):
  process = start("pass", before=f"exits.listen('Stopped; nothing.')\n{READY}{IN_C}")
  process.send_signal(signal.SIGTERM)
  assert end(process) == (128 + signal.SIGTERM, "", "Stopped; nothing.\n")


def test_the_sentence_may_wait_for_a_write_and_a_second_sigterm_does_not_cut_it_short(start):
  body = (
    "import threading, time\n"
    "written = threading.Event()\n"
    "def write():\n"
    "  time.sleep(1)\n"
    "  written.set()\n"
    "def sentence():\n"
    "  print('waits', flush=True)\n"
    "  threading.Thread(target=write).start()\n"
    "  written.wait()\n"
    "  return 'Written.'\n"
    "with stopping.StopRequest() as stop:\n"
    "  stop.nothing_unsaved(sentence)\n"
    f"  {READY}  {IN_PYTHON}\n"
  )
  process = start(body)
  process.send_signal(signal.SIGTERM)
  assert process.stdout.readline() == "waits\n"
  process.send_signal(signal.SIGTERM)
  assert end(process) == (128 + signal.SIGTERM, "", "Written.\n")


def test_with_unsaved_state_the_command_decides(start):
  body = (
    "import time\n"
    "with stopping.StopRequest() as stop:\n"
    "  stop.nothing_unsaved(lambda: 'never')\n"
    "  stop.unsaved()\n"
    f"  {READY}"
    "  while not stop.requested:\n    time.sleep(0.01)\n"
    "raise exits.Interrupted('Saved.')"
  )
  for number in signals.ENDING:
    process = start(body)
    process.send_signal(number)
    assert end(process) == (128 + number, "", "Saved.\n")


def test_a_request_that_came_before_ends_where_nothing_is_unsaved(start):
  body = (
    "with stopping.StopRequest() as stop:\n"
    "  os.kill(os.getpid(), signal.SIGHUP)\n"
    f"  {READY}"
    "  stop.nothing_unsaved(lambda: 'Saved before.')\n"
  )
  assert end(start(body)) == (128 + signal.SIGHUP, "", "Saved before.\n")


RACE = """
import os, signal, sys, time
from bit_jax.runtime import exits, signals, stopping

def race(when, usual):
  lines = 0

  def trace(frame, event, arg):
    nonlocal lines
    if frame.f_code.co_filename not in (exits.__file__, signals.__file__):
      return None
    lines += event == "line"
    if lines == when and event == "line":
      os.kill(os.getpid(), signal.SIGTERM)
      time.sleep(0.1)  # the listener learns of it
    return trace

  def main(argv):
    sys.settrace(trace)
    with stopping.StopRequest() as stop:
      stop.nothing_unsaved(lambda: "Saved.")
      sys.settrace(None)
      time.sleep(30 if lines >= when else 0)  # compiles
      sys.settrace(trace)
      stop.unsaved()
      sys.settrace(None)
      if stop.requested:
        raise exits.Interrupted("Saved.")
    return 0 if lines >= when else 1  # it was sent, and lost

  if usual:
    exits.listen("Usual.")
  os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
  os._exit(exits.run(main, []))

for usual in (True, False):
  children, statuses = [], []
  for when in range(1, 100):
    if not (child := os.fork()):
      race(when, usual)
    children.append(child)
  print(*(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children))
"""


def test_no_request_is_lost_on_whichever_line_of_the_package_it_comes():
  done = subprocess.run([sys.executable, "-c", RACE], capture_output=True, text=True, timeout=300)
  assert done.returncode == 0, done.stderr
  for line in done.stdout.splitlines():
    statuses = [int(word) for word in line.split()]
    count = statuses.index(1)  # so many lines are executed
    assert count > 30
    assert statuses[:count] == [128 + signal.SIGTERM] * count
    assert {*statuses[count:]} == {1}


def test_a_second_ctrl_c_ends_a_command_within_c_code(start):
  process = start(f"with stopping.StopRequest():\n  {READY}  {IN_C}")
  process.send_signal(signal.SIGINT)
  with pytest.raises(subprocess.TimeoutExpired):
    process.wait(1)
  process.send_signal(signal.SIGINT)
  assert end(process) == (130, "", "Interrupted; unsaved work is lost.\n")


def test_after_a_second_ctrl_c_no_sentence_says_that_nothing_is_lost(start):
  """The thread may learn of it when the main thread has left its work already."""
  body = (
    "try:\n  with stopping.StopRequest() as stop:\n"
    "    for _ in range(2): stop._note(signal.SIGINT, None)\n"
    f"except KeyboardInterrupt:\n  {READY}  {IN_PYTHON}"
  )
  process = start(body, before="exits.listen('Nothing is lost.')")
  process.send_signal(signal.SIGINT)
  assert end(process) == (130, "", "Interrupted; unsaved work is lost.\n")


@pytest.mark.parametrize(
  ("number", "last", "status"),
  [(signal.SIGTERM, "pass", 0), (signal.SIGINT, "raise ZeroDivisionError", 1)],
)
def test_what_hangs_after_a_command_ends_by_a_signal_with_its_status(start, number, last, status):
  body = (
    "import threading\n"
    "def hang():\n"
    "  threading.main_thread().join()\n"
    "  os.write(1, b'over\\n')\n"
    "  threading.Event().wait()\n"
    "threading.Thread(target=hang).start()\n"
    f"print('ready')\n{last}"
  )
  process = start(body, before="exits.listen()")
  assert process.stdout.readline() == "over\n"
  process.send_signal(number)
  assert process.wait(30) == status
  error = process.stderr.read()
  assert len(re.findall("^ZeroDivisionError", error, re.M)) == status
  assert "unsaved" not in error


def test_a_signal_in_the_last_moment_suppresses_no_last_words(start):
  before = (
    "exits.listen()\n"
    "from bit_jax.runtime import errors\n"
    "class Stream:\n"
    "  def write(self, text):\n"
    "    os.kill(os.getpid(), signal.SIGTERM)\n"
    "    import time; time.sleep(0.2)\n"
    "    return os.write(2, text.encode())\n"
    "  def flush(self):\n"
    "    pass\n"
  )
  process = start(f"{READY}sys.stderr = Stream()\nraise errors.UserError('Why.')", before=before)
  assert end(process) == (2, "", "error: Why.\n")


def test_ignored_signals_stay_ignored(start):
  """As `nohup` ignores SIGHUP."""
  body = (
    f"{READY}"
    "with stopping.StopRequest() as stop:\n"
    "  for number in (signal.SIGHUP, signal.SIGUSR1):\n    os.kill(os.getpid(), number)\n"
    "  print(stop.requested)\n"
  )
  process = start(body, ignored=(signal.SIGHUP, signal.SIGUSR1))
  assert end(process) == (0, "False\n", "")


def test_the_handler_of_a_cluster_is_left_alone(start):
  before = "signal.signal(signal.SIGUSR2, lambda *_: print('requeued', flush=True))"
  body = (
    "with stopping.StopRequest() as stop:\n"
    "  os.kill(os.getpid(), signal.SIGUSR2)\n"
    "  print(stop.requested)\n"
    "  os.kill(os.getpid(), signal.SIGUSR1)\n"
    "  print(stop.requested)\n"
  )
  process = start(f"{READY}{body}", before=before)
  assert end(process) == (0, "requeued\nFalse\nTrue\n", "")


def test_a_command_gives_the_handlers_back():
  numbers = [n for n in signals.ENDING if signals.is_free(n)]  # under nohup not SIGHUP
  earlier = [signal.getsignal(n) for n in numbers]
  seen = []

  def main(argv):
    seen.append(([signal.getsignal(n) for n in numbers], signals.current()))

  assert exits.run(main, []) == 0
  ((within, listener),) = seen
  assert listener is not None
  assert all(a != b for a, b in zip(earlier, within, strict=True))
  assert [signal.getsignal(n) for n in numbers] == earlier
  assert signals.current() is None
  assert signal.set_wakeup_fd(-1) == -1


def test_in_another_thread_a_command_does_not_listen(start):
  seen = []
  thread = threading.Thread(target=exits.run, args=(lambda _: seen.append(signals.current()), []))
  thread.start()
  thread.join()
  assert seen == [None]


def test_a_request_in_a_program_of_somebody_else_ends_nothing():
  """As in a notebook: there is no listener."""
  with stopping.StopRequest() as stop:
    stop.nothing_unsaved(lambda: "Saved.")
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
      os.kill(os.getpid(), number)
    assert stop.requested
    with pytest.raises(exits.Interrupted, match="Saved"):
      stop.nothing_unsaved(lambda: "Saved.")
