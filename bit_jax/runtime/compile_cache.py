"""Keeps compiled programs on disk, so that a later run of the same shapes compiles nothing.

JAX's own persistent compilation cache, set up to keep every program, small ones included, below the
project's cache directory. JAX_COMPILATION_CACHE_DIR names another place;
JAX_ENABLE_COMPILATION_CACHE=0 turns it off.
"""

import contextlib
import glob
import os
import pathlib
import re
import sys
import tempfile
import warnings
from typing import Any

import jax

from bit_jax.runtime import cache, errors

MAX_BYTES = 4 * 2**30  # of the folder; JAX's own limit fails for good after a killed write
_SUFFIX = "-cache"  # JAX's
_TROUBLE = re.compile(
  r"Error (reading|writing) persistent compilation cache entry for '([^']*)': (.*)", re.DOTALL
)
_REMARKS = {
  "reading": "A program that was kept in {folder} can't be loaded ({reason}). Such programs are "
  "deleted and compiled again. If this happens at every start, machines of different kinds may "
  "share the folder: give each its own by JAX_COMPILATION_CACHE_DIR.",
  "writing": "Compiled programs can't be kept in {folder} ({reason}).",
}
# Every program is kept: a run has some ten small ones, each compiled in longer than it is loaded.
_THRESHOLDS = {
  "jax_persistent_cache_min_compile_time_secs": 0,
  "jax_persistent_cache_min_entry_size_bytes": -1,
}


def keep() -> str | None:
  """Has JAX keep what it compiles from now on, and load what was kept.

  To be called once, before the first computation. Programs that can't be loaded are deleted and
  compiled again, which is printed once; of several processes only the first writes.

  Returns:
    A sentence if the folder can't be used, which costs nothing but time; else None.
  """
  settings: Any = jax.config  # it declares none of its own
  if not settings.jax_enable_compilation_cache:
    return None
  named = settings.jax_compilation_cache_dir
  if named and "://" not in named and (trouble := _unusable(pathlib.Path(named), write=False)):
    settings.update("jax_compilation_cache_dir", None)
    return trouble
  if not named:
    try:
      folder = cache.directory() / "compiled"
    except errors.UserError as e:
      return f"Compiled programs aren't kept: each run compiles anew. {e}"
    if trouble := _unusable(folder, write=True):
      return trouble
    limit(folder, MAX_BYTES)
    settings.update("jax_compilation_cache_dir", str(folder))
  for name, value in _THRESHOLDS.items():
    if name.upper() not in os.environ:
      settings.update(name, value)
  _catch_warnings(pathlib.Path(settings.jax_compilation_cache_dir))
  return None


def _unusable(folder: pathlib.Path, write: bool) -> str | None:
  """Returns a sentence if a folder can't be made or, with `write`, written into."""
  try:
    folder.mkdir(parents=True, exist_ok=True)
    if write:
      with tempfile.TemporaryFile(dir=folder):
        pass
  except OSError as e:
    return f"Compiled programs can't be kept in {folder} ({e.strerror}): each run compiles anew."
  return None


def limit(folder: pathlib.Path, max_bytes: int) -> None:
  """Deletes the entries that were used the longest time ago, until the rest is no larger."""
  entries = []
  for path in folder.glob(f"*{_SUFFIX}"):
    with contextlib.suppress(OSError):  # another process does the same
      status = path.stat()
      # Many file systems don't note when a file was read, or once a day.
      entries.append((max(status.st_atime, status.st_mtime), status.st_size, path))
  total = 0
  for _, size, path in sorted(entries, reverse=True):
    total += size
    if total > max_bytes:
      with contextlib.suppress(OSError):
        path.unlink()


def _catch_warnings(folder: pathlib.Path) -> None:
  """Deals with JAX's warnings of the cache, which it raises before it compiles the program."""
  show_others = warnings.showwarning
  reported: set[str] = set()

  def show(message: Warning | str, *args: Any, **kwargs: Any) -> None:
    trouble = _TROUBLE.match(str(message))
    if trouble is None:
      show_others(message, *args, **kwargs)
      return
    kind, name, reason = trouble.groups()
    if kind == "reading":  # JAX would not write in the place of a damaged entry
      _delete(folder, name)
    if kind not in reported:
      reported.add(kind)
      print(_REMARKS[kind].format(folder=folder, reason=_short(reason)), file=sys.stderr)

  # Python shows a warning of the same text once, and the programs of all steps have one name.
  warnings.filterwarnings("always", message=_TROUBLE.pattern, category=UserWarning)
  warnings.showwarning = show


def _delete(folder: pathlib.Path, name: str) -> None:
  """Deletes the entry that JAX is reading; all of the program's name if that isn't known."""
  key = _key_being_read()
  entries = folder.glob(f"{glob.escape(name)}*{_SUFFIX}") if key is None else [folder / key]
  for path in entries:
    with contextlib.suppress(OSError):
      path.unlink()


def _key_being_read() -> str | None:
  """Returns the file name of the entry that a caller of this function is reading.

  JAX's warning names the program only.
  """
  frame = sys._getframe()
  while frame.f_back is not None:
    frame = frame.f_back
    if isinstance(key := frame.f_locals.get("cache_key"), str):
      return f"{key}{_SUFFIX}"
  return None


def _short(reason: str) -> str:
  line = " ".join(reason.split())
  return line if len(line) <= 200 else f"{line[:200]} ..."
