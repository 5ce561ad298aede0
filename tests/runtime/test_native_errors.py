"""Fatal errors of C++ in a process of its own."""

import os
import subprocess
import sys

import running

PROGRAM = """
import os, sys
from bit_jax.runtime import native_errors
with native_errors.filtered("prefix-") as shown:
  native_errors.on_abort(lambda: (shown.say(f"the end: {shown.first_line()}"), os._exit(7)))
  print("before", file=sys.stderr)
  if sys.argv[1] == "goes on":
    os.write(2, b"E1130 20:18:28.780416 6011 coordination_service_agent.cc:1] Failed to cancel\\n")
    print("warning: the user must see this", file=sys.stderr)
  os.write(2, b"[Gloo] an unfinished line")
  if sys.argv[1] == "polled":
    line = "agent.cc:289] Polled an error from coordination service (of this or another task)."
    os.write(2, f"\\nE1201 20:18:28.780416    6011 {line}\\n".encode())
  if sys.argv[1] in ("fatal", "polled"):
    os.write(2, b"\\nF1130 20:18:28.780416    6011 client.h:80] distributed service failed\\n")
    os.write(2, b"    @ 0x7f  trace()\\n")
    os.abort()
print(" and after", file=sys.stderr)
"""


def run(tmp_path, *arguments):
  line = [sys.executable, "-c", PROGRAM, *arguments]
  variables = {**os.environ, "TMPDIR": str(tmp_path)}
  done = subprocess.run(line, cwd=running.ROOT, env=variables, capture_output=True, text=True)
  return done.returncode, done.stderr


def test_a_trace_goes_to_a_file_and_python_ends_the_process(tmp_path):
  status, err = run(tmp_path, "fatal")
  assert status == 7
  assert (
    err == "before\n[Gloo] an unfinished line\nthe end: client.h:80] distributed service failed\n"
  )
  (log,) = tmp_path.glob("prefix-*.log")
  assert "trace()" in log.read_text()


def test_what_comes_before_a_trace_goes_there_too(tmp_path):
  status, err = run(tmp_path, "polled")
  said = "agent.cc:289] Polled an error from coordination service (of this or another task)."
  assert (status, err) == (7, f"before\n[Gloo] an unfinished line\nthe end: {said}\n")


def test_after_an_error_that_is_not_fatal_all_is_shown(tmp_path):
  status, err = run(tmp_path, "goes on")
  assert status == 0
  assert "] Failed to cancel\nwarning: the user must see this\n[Gloo]" in err
  assert not list(tmp_path.iterdir())


def test_everything_else_is_shown(tmp_path):
  assert run(tmp_path, "fine") == (0, "before\n[Gloo] an unfinished line and after\n")
  assert not list(tmp_path.iterdir())
