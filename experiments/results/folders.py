"""Run folders: finding them, and reading their JSON files.

A user's folder may hold runs of other versions, damaged files, and JSON files of other programs.
"""

import dataclasses
import os
import pathlib
from collections.abc import Iterable
from typing import Any

from bit_jax.runs import run_folder
from bit_jax.runtime import errors
from experiments import ledger

_FILES = (run_folder.CONFIG, run_folder.ENVIRONMENT, run_folder.RESULT, ledger.SWEEP, ledger.ERROR)


@dataclasses.dataclass(frozen=True)
class Folder:
  """A folder that holds at least one file of a run.

  Attributes:
    name: Path relative to the searched folder, with slashes; '.' is the searched folder itself.
    path: Path of the folder.
    contents: {file name: JSON object in it}, for the files that can be read.
    faults: {file name: why it can't be read}, such as 'is damaged'.
  """

  name: str
  path: pathlib.Path
  contents: dict[str, dict[str, Any]]
  faults: dict[str, str]


def find(root: pathlib.Path) -> tuple[list[Folder], list[tuple[str, str]]]:
  """Returns the folders at and below `root` that hold a file of a run, sorted by name.

  Links to folders are not followed.

  Returns:
    The folders; and (path below `root`, reason) of each subfolder that was not searched.

  Raises:
    UserError: `root` is not a folder.
  """
  if not root.is_dir():
    raise errors.UserError(f"Folder {root} not found: give the folder that contains the runs.")
  found: list[Folder] = []
  skipped: list[tuple[str, str]] = []

  def note(error: OSError) -> None:
    skipped.append((_name(root, pathlib.Path(error.filename)), f"can't be read ({error.strerror})"))

  for parent, subfolders, files in os.walk(root, onerror=note):
    path = pathlib.Path(parent)
    links = [name for name in subfolders if (path / name).is_symlink()]
    skipped += [(_name(root, path / name), "is a link; links are not followed") for name in links]
    if any(name in files for name in _FILES):
      found.append(_read(root, path))
  return sorted(found, key=lambda folder: folder.name), sorted(skipped)


def _read(root: pathlib.Path, path: pathlib.Path) -> Folder:
  folder = Folder(_name(root, path), path, {}, {})
  for name in _FILES:
    try:
      if (value := run_folder.read_json(path / name)) is not None:
        folder.contents[name] = value
    except errors.UserError:
      folder.faults[name] = "is damaged"
    except OSError as e:
      folder.faults[name] = f"can't be read ({e.strerror})"
  return folder


def _name(root: pathlib.Path, path: pathlib.Path) -> str:
  return path.relative_to(root).as_posix().encode(errors="replace").decode()


def grouped(pairs: Iterable[tuple[Any, Any]]) -> dict[Any, list[Any]]:
  """Returns the values of each key, all in order of appearance."""
  groups: dict[Any, list[Any]] = {}
  for key, value in pairs:
    groups.setdefault(key, []).append(value)
  return groups
