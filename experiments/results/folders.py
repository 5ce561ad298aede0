"""Finds run folders below a folder, and reads what they hold, whoever made them."""

import dataclasses
import os
import pathlib
from typing import Any

from bit_jax.runs import run_folder
from bit_jax.runtime import errors
from experiments import ledger

_FILES = (run_folder.CONFIG, run_folder.ENVIRONMENT, run_folder.RESULT, ledger.SWEEP, ledger.ERROR)


@dataclasses.dataclass(frozen=True)
class Folder:
  """A folder that holds a run, or at least looks like it.

  Attributes:
    name: Its path below the folder that was searched, with slashes; '.' is that folder itself.
    path: Where it lies.
    contents: {file name: what the JSON object in it holds}, of those that can be read.
    faults: {file name: why it can't be read}, such as 'is damaged'.
  """

  name: str
  path: pathlib.Path
  contents: dict[str, dict[str, Any]]
  faults: dict[str, str]


def find(root: pathlib.Path) -> tuple[list[Folder], list[tuple[str, str]]]:
  """Returns the folders at and below `root` that hold a file of a run, in the order of their names.

  Links to folders are not followed.

  Returns:
    The folders; and (path below `root`, reason) of what could not be looked into.

  Raises:
    UserError: There is no such folder.
  """
  if not root.is_dir():
    raise errors.UserError(f"There is no folder {root}: give the one that holds the run folders.")
  found: list[Folder] = []
  closed: list[tuple[str, str]] = []

  def note(error: OSError) -> None:
    closed.append((_name(root, pathlib.Path(error.filename)), f"can't be read ({error.strerror})"))

  for parent, subfolders, files in os.walk(root, onerror=note):
    path = pathlib.Path(parent)
    links = [name for name in subfolders if (path / name).is_symlink()]
    closed += [(_name(root, path / name), "a link, which isn't followed") for name in links]
    if any(name in files for name in _FILES):
      found.append(_read(root, path))
  return sorted(found, key=lambda folder: folder.name), sorted(closed)


def num_classes(folder: Folder) -> int | None:
  """Returns how many classes a run's list of them has, or None if there is none."""
  try:
    lines = (folder.path / "classes.txt").read_bytes().splitlines()
  except OSError:
    return None
  return len(lines) or None


def _read(root: pathlib.Path, path: pathlib.Path) -> Folder:
  folder = Folder(_name(root, path), path, {}, {})
  for name in _FILES:
    try:
      if (path / name).exists() and not (path / name).is_file():
        folder.faults[name] = "is no file"  # to read a pipe might never end
        continue
      value = run_folder.read_json(path / name)
    except errors.UserError:
      folder.faults[name] = "is damaged"
    except OSError as e:
      folder.faults[name] = f"can't be read ({e.strerror})"
    else:
      if value is not None:
        folder.contents[name] = value
  return folder


def _name(root: pathlib.Path, path: pathlib.Path) -> str:
  return path.relative_to(root).as_posix().encode(errors="replace").decode()
