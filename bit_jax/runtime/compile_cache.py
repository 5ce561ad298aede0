"""Keeps compiled programs on disk, so that a later run with the same shapes compiles nothing.

JAX's persistent compilation cache, set up to keep every program, small ones included, in the
project's cache directory. JAX_COMPILATION_CACHE_DIR names another place;
JAX_ENABLE_COMPILATION_CACHE=0 turns it off.
"""

import contextlib
import glob
import os
import pathlib
import re
import sys
import traceback
import warnings
from typing import Any

import jax

from bit_jax.runtime import cache, errors

MAX_BYTES = 4 * 2**30  # of the folder; JAX's own limit fails for good after a killed write
_SUFFIX = "-cache"  # JAX's
_CACHE_WARNING = re.compile(
  r"Error (reading|writing) persistent compilation cache entry for '([^']*)': (.*)", re.DOTALL
)
_REMARKS = {
  "reading": "A compiled program in {folder} can't be loaded ({reason}). It is deleted and "
  "compiled again. If this happens at every start, machines of different kinds may share the "
  "folder: set JAX_COMPILATION_CACHE_DIR to a separate folder on each.",
  "writing": "Compiled programs can't be stored in {folder} ({reason}).",
}
# Every program is kept: a run has some ten small ones that take longer to compile than to load.
_THRESHOLDS = {
  "jax_persistent_cache_min_compile_time_secs": 0,
  "jax_persistent_cache_min_entry_size_bytes": -1,
}


def keep() -> str | None:
  """Sets up JAX to store compiled programs and to load stored ones.

  Call once, before the first computation. Programs that can't be loaded are deleted and
  compiled again, which is printed once; of several processes only the first writes.

  Returns:
    A sentence if the folder can't be used, which only costs time; else None.
  """
  settings: Any = jax.config  # it declares no types
  if not settings.jax_enable_compilation_cache:
    return None
  named = settings.jax_compilation_cache_dir
  try:
    folder = named or str(cache.directory() / "compiled")
    if "://" not in folder:
      pathlib.Path(folder).mkdir(parents=True, exist_ok=True)
  except (OSError, errors.UserError) as e:
    settings.update("jax_compilation_cache_dir", None)
    return f"Compiled programs can't be stored: each run compiles again. {e}"
  if not named:
    limit(pathlib.Path(folder), MAX_BYTES)
    settings.update("jax_compilation_cache_dir", folder)
  for name, value in _THRESHOLDS.items():
    if name.upper() not in os.environ:
      settings.update(name, value)
  _handle_warnings(pathlib.Path(folder))
  return None


def limit(folder: pathlib.Path, max_bytes: int) -> None:
  """Deletes the least recently used entries until the others take at most `max_bytes`."""
  entries = []
  for path in folder.glob(f"*{_SUFFIX}"):
    with contextlib.suppress(OSError):  # another process does the same
      status = path.stat()
      # Many file systems don't record when a file was read, or once a day.
      entries.append((max(status.st_atime, status.st_mtime), status.st_size, path))
  total = 0
  for _, size, path in sorted(entries, reverse=True):
    total += size
    if total > max_bytes:
      with contextlib.suppress(OSError):
        path.unlink()


def _handle_warnings(folder: pathlib.Path) -> None:
  """Replaces JAX's warnings about the cache, which it raises before it compiles the program."""
  show_others = warnings.showwarning
  reported: set[str] = set()

  def show(message: Warning | str, *args: Any, **kwargs: Any) -> None:
    found = _CACHE_WARNING.match(str(message))
    if found is None:
      show_others(message, *args, **kwargs)
      return
    kind, name, reason = found.groups()
    if kind == "reading":  # JAX would not replace a damaged entry
      # The warning names only the program; the function that raises it knows the entry.
      callers = (frame.f_locals for frame, _ in traceback.walk_stack(None))
      keys = (caller["cache_key"] for caller in callers if "cache_key" in caller)
      key = next((glob.escape(key) for key in keys), f"{glob.escape(name)}-*")
      for path in folder.glob(f"{key}{_SUFFIX}"):
        with contextlib.suppress(OSError):
          path.unlink()
    if kind not in reported:
      reported.add(kind)
      line = " ".join(reason.split())
      short = line if len(line) <= 200 else f"{line[:200]} ..."
      print(_REMARKS[kind].format(folder=folder, reason=short), file=sys.stderr)

  # Python shows a warning of the same text once, and the programs of all steps have one name.
  warnings.filterwarnings("always", message=_CACHE_WARNING.pattern, category=UserWarning)
  warnings.showwarning = show
