"""Files that are replaced in one step, folders to write to, and locks of one process at a time."""

import contextlib
import errno
import fcntl
import functools
import os
import pathlib
import re
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from typing import IO, Any

from bit_jax.runtime import errors

_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{32}")  # names that `replacing` gives
_PROBE = ".bit_jax-probe"  # always the same: what a killed process left is replaced and deleted
_POLL = 0.5  # seconds between two tries of a lock that another process holds
_HELD = (errno.EAGAIN, errno.EACCES)  # EACCES: on some network file systems
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS)
_NO_SYNC = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP)


@contextlib.contextmanager
def replacing(path: pathlib.Path) -> Iterator[pathlib.Path]:
  """Yields a temporary path; the file written there replaces the one at `path` in one step.

  If the block raises, the file at `path` stays unchanged; after a crash either the old or the
  new file exists.
  """
  temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
  try:
    with named(path):
      yield temporary
      with temporary.open("rb") as file:  # else the name may reach the disk before the content does
        sync(file)
    temporary.replace(path)
  finally:
    temporary.unlink(missing_ok=True)


def remove_temporaries(folder: pathlib.Path) -> None:
  """Deletes what `replacing` left in a folder when its process was killed.

  No other process may write there.
  """
  for path in folder.iterdir():
    if _TEMPORARY.fullmatch(path.name):
      path.unlink(missing_ok=True)


@contextlib.contextmanager
def named(path: pathlib.Path) -> Iterator[None]:
  """Gives each `OSError` of the block that names no file, such as of a full disk, this path."""
  try:
    yield
  except OSError as e:
    if e.errno is not None and e.filename is None:
      e.filename = str(path)
    raise


def require_writable(path: pathlib.Path, flag: str, extension: str) -> None:
  """Raises a `UserError` unless a file can be written; creates its folder.

  Args:
    path: The file.
    flag: The flag that names it.
    extension: Its type, such as '.png', which its name must end in.
  """
  what, advice = f"{flag}={path}", "choose another file"
  if os.path.isdir(path):
    raise errors.UserError(f"{what} can't be written ({os.strerror(errno.EISDIR)}): {advice}.")
  if path.suffix.lower() != extension:
    raise errors.UserError(f"{what} must end in {extension}, the format that is written.")
  open_folder(path.parent, what, advice)


def open_folder(folder: pathlib.Path, what: str, advice: str) -> None:
  """Creates a folder, unless it exists, and checks that files can be written in it.

  Args:
    folder: The folder.
    what: What can't be written otherwise, at the start of the message.
    advice: What the user can do then.

  Raises:
    UserError: Files can't be written in it.
  """
  with _writing(what, advice):
    if not folder.exists():  # of a file, `mkdir` says only that it exists
      folder.mkdir(parents=True, exist_ok=True)
    tempfile.TemporaryFile(dir=folder).close()


def require_folder(folder: pathlib.Path, what: str, advice: str) -> None:
  """Checks that files can be written in a folder, or that it can be created; leaves no trace.

  Args:
    folder: The folder.
    what: As in `open_folder`.
    advice: As in `open_folder`.

  Raises:
    UserError: Files can't be written in it.
  """
  with _writing(what, advice):
    folder = folder.absolute()
    there = next(place for place in (folder, *folder.parents) if place.exists())
    tempfile.TemporaryFile(dir=there).close()


@contextlib.contextmanager
def _writing(what: str, advice: str) -> Iterator[None]:
  try:
    yield
  except OSError as e:
    raise errors.UserError(f"{what} can't be written ({e.strerror or e}): {advice}.") from e


@contextlib.contextmanager
def optional(
  name: str, say: Callable[[str], None], *, if_there_is_room: bool = False
) -> Iterator[None]:
  """Turns any exception of the block into a warning of one line.

  Args:
    name: The file that the block writes, and that a run can do without.
    say: Gets the warning.
    if_there_is_room: Raises the error of a full or failing disk: the file can be written later.
  """
  try:
    yield
  except Exception as e:
    if if_there_is_room and isinstance(e, OSError) and e.errno in _NO_ROOM:
      raise
    say(f"warning: {name} was not written ({errors.reason(e)}).")


def sync(file: IO[Any] | int) -> bool:
  """Waits until a file's content is on the disk; returns False if its file system can't do that.

  Raises:
    OSError: The content can't be written.
  """
  try:
    os.fsync(file)
  except OSError as e:
    if e.errno not in _NO_SYNC:
      raise
    return False
  return True


@contextlib.contextmanager
def exclusive(
  path: pathlib.Path, busy: Callable[[], None], advice: str = "make its folder writable"
) -> Iterator[IO[str]]:
  """Lets one process at a time into the block; the lock of a process that dies is released.

  On a file system without locks the block runs without one, after one warning per folder.

  Args:
    path: The lock file. It and its folder are created if needed, and the file is not deleted.
    busy: Called once if another process holds the lock. If it returns, this process waits.
    advice: What the user can do where the lock file can't be written.

  Yields:
    The open lock file. A process that inherits it holds the lock too.

  Raises:
    UserError: The lock file can't be written.
  """
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    file = path.open("w")
  except OSError as e:
    reason = e.strerror or str(e)
    raise errors.UserError(f"The lock file {path} can't be written ({reason}): {advice}.") from e
  with file:
    try:
      if not _lock(file):
        busy()
        while not _lock(file):
          time.sleep(_POLL)
    except OSError as e:
      _warn_without_locks(path.parent, e.strerror or str(e))
    yield file


def can_lock_and_sync(folder: pathlib.Path) -> tuple[bool, bool]:
  """Returns whether the file system of a folder has locks, and whether it can sync files to disk.

  One process at a time may ask.

  Raises:
    OSError: The folder can't be written.
  """
  probe = folder / _PROBE
  try:
    with probe.open("wb") as file:
      try:
        locks = _lock(file)
      except OSError:
        locks = False
      return locks, sync(file) and _sync_folder(folder)
  finally:
    probe.unlink(missing_ok=True)


def _sync_folder(folder: pathlib.Path) -> bool:
  try:
    descriptor = os.open(folder, os.O_RDONLY)
  except OSError:  # some file systems open no folders
    return False
  try:
    return sync(descriptor)
  finally:
    os.close(descriptor)


def _lock(file: IO[Any]) -> bool:
  """Takes the lock of an open file; returns False if another process holds it.

  Raises:
    OSError: The file system has no locks.
  """
  try:
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
  except OSError as e:
    if e.errno not in _HELD:
      raise
    return False
  return True


@functools.cache
def _warn_without_locks(folder: pathlib.Path, reason: str) -> None:
  print(
    f"warning: The file system of {folder} has no file locks ({reason}). Use the folder from one "
    f"process at a time.",
    file=sys.stderr,
    flush=True,
  )
