"""Commands print into streams that are closed, have no reader, or lack characters, and go on."""

import contextlib
import errno
import io
import os
import subprocess
import sys

import pytest

from bit_jax.runtime import errors, exits, output


@contextlib.contextmanager
def without_reader(encoding="utf-8"):
  """Yields a text stream into a pipe that nobody reads."""
  read, write = os.pipe()
  os.close(read)
  with open(write, "w", encoding=encoding, buffering=1) as stream:
    yield stream


def test_what_writes_files_goes_on_without_a_reader(monkeypatch):
  done = []

  def main(argv):
    for _ in range(3):
      print("step 1", flush=True)
      print("progress", file=sys.stderr, flush=True)
    os.write(sys.stdout.fileno(), b"a library's own line")  # the descriptor leads elsewhere now
    done.append(True)

  with without_reader() as out, without_reader() as err:
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    assert exits.run(main, [], needs_reader=False) == 0
    assert (sys.stdout, sys.stderr, done) == (out, err, [True])
    monkeypatch.undo()


def test_what_is_read_ends_quietly_without_a_reader(monkeypatch, capfd):
  done = []

  def main(argv):
    print("line 1", flush=True)
    done.append(True)

  with without_reader() as out:
    monkeypatch.setattr(sys, "stdout", out)
    assert exits.run(main, []) == 0
    monkeypatch.undo()
  assert done == []
  assert capfd.readouterr() == ("", "")


class Failing(io.StringIO):
  """A stream that can't be written."""

  def __init__(self, number):
    super().__init__()
    self.number = number

  def write(self, text):
    raise OSError(self.number, os.strerror(self.number))

  def flush(self):
    self.write("")


@pytest.mark.parametrize("number", [errno.EPIPE, errno.EIO, errno.ENOSPC, errno.EAGAIN])
def test_no_error_of_a_stream_ends_a_run(monkeypatch, number):
  monkeypatch.setattr(sys, "stdout", Failing(number))
  with output.surviving("stdout"):
    print("step 1", flush=True)
    sys.stdout.writelines(["step 2", "step 3"])
    with output.surviving("stdout", "stderr"):  # the trainer within a command
      print("step 4", flush=True)
  assert isinstance(sys.stdout, Failing)


def test_a_mistake_has_its_status_without_anybody_to_read_of_it(monkeypatch):
  def main(argv):
    raise errors.UserError("Say it so.")

  with without_reader() as err:
    monkeypatch.setattr(sys, "stderr", err)
    assert exits.run(main, []) == exits.USER_ERROR
    monkeypatch.undo()


@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "latin-1"])
def test_what_an_encoding_lacks_is_escaped(monkeypatch, encoding):
  printed = "猫/r\udce9sum\udce9.txt\n"
  cat = "猫" if encoding == "utf-8" else r"\u732b"
  expected = rf"{cat}/r\udce9sum\udce9.txt" + "\n"
  for of_a_command in (True, False):
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding=encoding, errors="strict"))
    if of_a_command:
      assert exits.run(lambda argv: print(printed, end=""), []) == 0
    else:
      with output.surviving("stdout"):
        print(printed, end="")
    assert raw.getvalue().decode(encoding) == expected


def test_closed_streams_end_no_command(tmp_path):
  code = (
    "import os, sys; from bit_jax.runtime import exits\n"
    "def main(argv):\n"
    "  print('lost'); print('lost', file=sys.stderr)\n"
    "  with open(argv[1], 'w') as file: os.write(1, b'lost'); file.write(str(file.fileno() > 2))\n"
    "exits.leave(exits.run(main, sys.argv, needs_reader=False))"
  )
  script = f'"{sys.executable}" -c "$0" "$1" <&- >&- 2>&-'
  done = subprocess.run(["sh", "-c", script, code, str(tmp_path / "file")], timeout=60)
  assert done.returncode == 0
  assert (tmp_path / "file").read_text() == "True"


def test_a_library_call_without_streams(monkeypatch):
  monkeypatch.setattr(sys, "stdout", None)
  with output.surviving("stdout"):
    print("lost", flush=True)
    assert not sys.stdout.isatty()
  assert sys.stdout is None
