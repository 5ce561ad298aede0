"""Files are replaced in one step or stay as they were."""

import contextlib
import errno
import fcntl
import os
import pathlib
import subprocess
import sys

import pytest

from bit_jax.runtime import errors, files


def test_what_was_there_is_replaced_at_the_end(tmp_path):
  path = tmp_path / "file"
  path.write_text("old")
  with files.replacing(path) as temporary:
    temporary.write_text("new")
    assert path.read_text() == "old"
  assert path.read_text() == "new"
  assert list(tmp_path.iterdir()) == [path]


def test_what_was_there_stays_if_writing_fails(tmp_path):
  path = tmp_path / "file"
  path.write_text("old")

  def fail():
    with files.replacing(path) as temporary:
      temporary.write_text("ne")
      raise OSError("full")

  with pytest.raises(OSError, match="full"):
    fail()
  assert path.read_text() == "old"
  assert list(tmp_path.iterdir()) == [path]


def test_the_content_is_on_the_disk_before_the_name(tmp_path, monkeypatch):
  path = tmp_path / "file"
  path.write_text("old")
  synced = []

  def fsync(file):
    synced.append((os.pread(file.fileno(), 10, 0), path.read_text()))

  monkeypatch.setattr(os, "fsync", fsync)
  with files.replacing(path) as temporary:
    temporary.write_text("new")
  assert synced == [(b"new", "old")]


def raising(number):
  def call(*_):
    raise OSError(number, os.strerror(number))

  return call


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_file_system_that_cannot_sync_is_no_fault(number, tmp_path, monkeypatch):
  monkeypatch.setattr(os, "fsync", raising(number))
  with files.replacing(tmp_path / "file") as temporary:
    temporary.write_text("new")
  assert (tmp_path / "file").read_text() == "new"
  assert files.can_lock_and_sync(tmp_path) == (True, False)


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC, errno.EDQUOT])
def test_content_that_did_not_reach_the_disk_is_an_error(number, tmp_path, monkeypatch):
  path = tmp_path / "file"
  path.write_text("old")

  def replace():
    with files.replacing(path) as temporary:
      temporary.write_text("new")

  monkeypatch.setattr(os, "fsync", raising(number))
  with pytest.raises(OSError, match=os.strerror(number)):
    replace()
  assert path.read_text() == "old"


def refuse():
  raise RuntimeError("busy")


def test_one_process_at_a_time_is_let_in(tmp_path):
  path = tmp_path / "lock"
  code = "import fcntl, sys; fcntl.flock(open(sys.argv[1], 'w'), fcntl.LOCK_EX | fcntl.LOCK_NB)"
  other = [sys.executable, "-c", code, path]
  with files.exclusive(path, refuse):
    assert subprocess.run(other, stderr=subprocess.DEVNULL).returncode == 1
    with pytest.raises(RuntimeError, match="busy"), files.exclusive(path, refuse):
      pass
  assert subprocess.run(other).returncode == 0


@pytest.mark.parametrize("number", [errno.EWOULDBLOCK, errno.EACCES])
def test_a_lock_that_is_held_is_waited_for(number, tmp_path, monkeypatch, capsys):
  answers, waited, told = [number, number], [], []
  lock = fcntl.flock

  def flock(descriptor, operation):
    if answers:
      raising(answers.pop())()
    lock(descriptor, operation)

  monkeypatch.setattr(fcntl, "flock", flock)
  monkeypatch.setattr(files.time, "sleep", waited.append)
  with files.exclusive(tmp_path / "lock", lambda: told.append("busy")):
    assert (len(told), len(waited)) == (1, 1)
  assert capsys.readouterr().err == ""


NO_LOCKS = ["ENOLCK", "ENOSYS", "EOPNOTSUPP", "ENOTSUP", "EINVAL", "EIO"]


@pytest.mark.parametrize("name", NO_LOCKS)
def test_a_file_system_without_locks_is_told_once(name, tmp_path, monkeypatch, capsys):
  monkeypatch.setattr(fcntl, "flock", raising(getattr(errno, name)))
  inside = []
  for path in (tmp_path / "a", tmp_path / "b"):
    with files.exclusive(path, refuse):
      inside.append(path)
  assert len(inside) == 2
  (line,) = capsys.readouterr().err.splitlines()
  assert line.startswith(f"warning: The file system of {tmp_path} has no file locks (")
  assert files.can_lock_and_sync(tmp_path) == (False, True)
  assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "b"]


def test_a_probe_that_a_killed_process_left_is_removed(tmp_path, monkeypatch):
  left = []
  monkeypatch.setattr(os, "fsync", lambda _: left.extend(tmp_path.iterdir()))
  files.can_lock_and_sync(tmp_path)
  assert not list(tmp_path.iterdir())
  for path in left:
    path.touch()  # as a kill leaves it
  files.can_lock_and_sync(tmp_path)
  assert left
  assert not list(tmp_path.iterdir())


def test_an_error_inside_is_not_taken_for_a_file_system_without_locks(tmp_path, capsys):
  with pytest.raises(OSError, match="full"), files.exclusive(tmp_path / "lock", refuse):
    raise OSError(errno.ENOSPC, "full")
  assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
  ("fault", "reason"),
  [
    (OSError(errno.ENOSPC, "No space left on device", "/x"), "OSError: No space left on device"),
    (MemoryError(), "MemoryError"),
    (ValueError("two\n lines"), "ValueError: two lines"),
    (ValueError("x" * 400), "ValueError: " + "x" * 300),
  ],
)
def test_what_fails_in_an_optional_file_is_told_in_one_line(fault, reason):
  told = []
  with files.optional("a.png", told.append):
    raise fault
  assert told == [f"warning: a.png was not written ({reason})."]


def test_a_request_to_stop_ends_an_optional_file():
  with pytest.raises(KeyboardInterrupt), files.optional("a.png", pytest.fail):
    raise KeyboardInterrupt


def test_a_file_that_can_be_written(tmp_path):
  path = tmp_path / "new" / "file.npz"
  files.require_writable(path, "--out", ".npz")
  assert list(path.parent.iterdir()) == []


def test_a_file_that_cannot_be_written_is_named_with_its_flag(tmp_path):
  (tmp_path / "file").touch()
  for path, reason in ((tmp_path, "Is a directory"), (tmp_path / "file/x.npz", "Not a directory")):
    with pytest.raises(errors.UserError, match=rf"--out={path} can't be written \({reason}\)"):
      files.require_writable(path, "--out", ".npz")


def test_a_folder_that_can_be_written(tmp_path):
  for _ in range(2):  # it is created, then there
    files.open_folder(tmp_path / "a" / "b", "The folder", "choose another")
  assert list((tmp_path / "a" / "b").iterdir()) == []


@pytest.mark.parametrize("name", ["file", "file/below", "file/below/it"])
def test_a_folder_that_cannot_be_written_is_named_with_advice(tmp_path, name):
  (tmp_path / "file").touch()
  message = r"^My folder can't be written \(Not a directory\): choose another\.$"
  with pytest.raises(errors.UserError, match=message):
    files.open_folder(tmp_path / name, "My folder", "choose another")
  with pytest.raises(errors.UserError, match=message):
    files.require_folder(tmp_path / name, "My folder", "choose another")


def test_a_folder_that_could_be_created_is_not(tmp_path, monkeypatch):
  (tmp_path / "there").mkdir()
  monkeypatch.chdir(tmp_path)
  for name in ("there", "a/b", pathlib.Path.cwd() / "c"):
    files.require_folder(pathlib.Path(name), "My folder", "choose another")
  assert list(tmp_path.rglob("*")) == [tmp_path / "there"]


@pytest.mark.parametrize("name", ["x", "x.txt", "x.npz.png", ".npz"])
def test_a_file_of_another_type_is_refused(tmp_path, name):
  with pytest.raises(errors.UserError, match=r"--out=.* must end in \.npz"):
    files.require_writable(tmp_path / name, "--out", ".npz")
  files.require_writable(tmp_path / "X.NPZ", "--out", ".npz")


def test_what_a_killed_process_left_is_removed_and_nothing_else(tmp_path):
  with files.replacing(tmp_path / "model.npz") as temporary:
    temporary.write_text("half")
    left = temporary.name
  (tmp_path / "model.npz").rename(tmp_path / left)  # as a kill leaves it
  others = (".lock", ".model.npz", ".model.npz.0123", "model.npz.0123456789abcdef0123456789abcdef")
  for name in others:
    (tmp_path / name).touch()
  files.remove_temporaries(tmp_path)
  assert {p.name for p in tmp_path.iterdir()} == set(others)


def test_an_error_of_writing_names_the_file(tmp_path):
  path = tmp_path / "a.csv"
  with pytest.raises(OSError, match="No space left") as raised, files.replacing(path):
    raise OSError(errno.ENOSPC, "No space left on device")
  assert raised.value.filename == str(path)
  with pytest.raises(OSError, match="No such file") as raised, files.named(path):
    (tmp_path / "missing").read_bytes()
  assert raised.value.filename == str(tmp_path / "missing")


@pytest.mark.parametrize(("number", "raised"), [(errno.ENOSPC, True), (errno.EACCES, False)])
def test_a_file_that_can_be_written_once_there_is_room_is_awaited(number, raised):
  said = []
  expected = pytest.raises(OSError, match="x") if raised else contextlib.nullcontext()
  with expected, files.optional("a.csv", said.append, if_there_is_room=True):
    raise OSError(number, "x")
  assert said == ([] if raised else ["warning: a.csv was not written (PermissionError: x)."])
