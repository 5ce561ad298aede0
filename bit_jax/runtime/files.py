"""Files that are there as a whole or not at all, and locks that one process at a time holds."""

import contextlib
import errno
import fcntl
import functools
import os
import pathlib
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from typing import IO, Any

from bit_jax.runtime import errors

_LOOK = 0.5  # seconds between two tries of a lock that another process holds
_HELD = (errno.EAGAIN, errno.EACCES)  # EACCES: on some network file systems
_NO_SYNC = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP)


@contextlib.contextmanager
def replacing(path: pathlib.Path) -> Iterator[pathlib.Path]:
  """Yields a path to write to, whose file takes the place of the one at `path` in one step.

  Where the block raises, what was at `path` stays as it was; after a power cut one of the two is
  there.
  """
  temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
  try:
    yield temporary
    with temporary.open("rb") as file:  # else the name may reach the disk before the content does
      sync(file)
    temporary.replace(path)
  finally:
    temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def optional(name: str, tell: Callable[[str], None]) -> Iterator[None]:
  """Turns whatever the block raises into a warning of one line.

  Args:
    name: The file that the block writes, and that a run can do without.
    tell: Gets the warning.
  """
  try:
    yield
  except Exception as e:
    tell(f"warning: {name} was not written ({errors.reason(e)}).")


def sync(file: IO[Any]) -> bool:
  """Waits until a file's content is on the disk; returns False if its file system can't do that.

  Raises:
    OSError: The content can't be written.
  """
  return _sync(file.fileno())


@contextlib.contextmanager
def exclusive(path: pathlib.Path, busy: Callable[[], None]) -> Iterator[IO[str]]:
  """Lets one process at a time into the block; the lock of a process that dies is free again.

  On a file system without locks the block runs without one, after one warning per folder.

  Args:
    path: The lock file, which is created in an existing folder and stays there.
    busy: Called once if another process holds the lock. If it returns, this process waits.

  Yields:
    The open lock file. A process that inherits it holds the lock too.

  Raises:
    OSError: The lock file can't be opened for writing.
  """
  with path.open("w") as file:
    try:
      if not _lock(file.fileno()):
        busy()
        while not _lock(file.fileno()):
          time.sleep(_LOOK)
    except OSError as e:
      _warn_without_locks(path.parent, e.strerror or str(e))
    yield file


def can_lock_and_sync(folder: pathlib.Path) -> tuple[bool, bool]:
  """Returns whether the file system of a folder has locks, and whether it can sync files to disk.

  Raises:
    OSError: The folder can't be written.
  """
  with tempfile.NamedTemporaryFile(dir=folder, prefix=".probe-") as file:
    try:
      locks = _lock(file.fileno())
    except OSError:
      locks = False
    return locks, sync(file) and _sync_folder(folder)


def _sync_folder(folder: pathlib.Path) -> bool:
  try:
    descriptor = os.open(folder, os.O_RDONLY)
  except OSError:  # some file systems open no folders
    return False
  try:
    return _sync(descriptor)
  finally:
    os.close(descriptor)


def _sync(descriptor: int) -> bool:
  try:
    os.fsync(descriptor)
  except OSError as e:
    if e.errno not in _NO_SYNC:
      raise
    return False
  return True


def _lock(descriptor: int) -> bool:
  """Takes the lock of an open file; returns False if another process holds it.

  Raises:
    OSError: The file system has no locks.
  """
  try:
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
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
