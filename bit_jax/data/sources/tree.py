"""The folder tree below a root, without the folders of operating systems and tools."""

import dataclasses
import functools
import os
import pathlib
import re
from collections.abc import Iterator

from bit_jax.data import images
from bit_jax.runtime import errors

# Never the user's images: thumbnails, resource forks, recycle bins, snapshots; nor hidden folders.
_HOUSEKEEPING = frozenset(
  {"__macosx", "__pycache__", "ipynb_checkpoints", "$recycle.bin", "recycler", "$extend"}
  | {"system volume information", "lost+found", "lost.dir", "#recycle", "#snapshot", "@eadir"}
  | {"@recycle", "@recently-snapshot", "@tmp", "@__thumb", "~snapshot", "network trash folder"}
  | {"temporary items"}
)
_RECOVERED = re.compile(r"found\.\d{3}", re.IGNORECASE)  # by chkdsk


@dataclasses.dataclass(frozen=True)
class Folder:
  """A folder; paths are posix and relative to the root.

  Attributes:
    path: '' for the root.
    images: The files directly in it with the extension of an image, and links to nowhere.
    ignored: The other files directly in it; also pipes and devices, whatever their names.
    folders: The folders directly in it, sorted by name.
    count: Number of images in it, at any depth.
  """

  path: str
  images: tuple[str, ...]
  ignored: tuple[str, ...]
  folders: tuple["Folder", ...]
  count: int

  @property
  def name(self) -> str:
    """The last part of its path."""
    return self.path.rpartition("/")[2]

  @functools.cached_property
  def full(self) -> tuple["Folder", ...]:
    """Its folders with an image at any depth."""
    return tuple(f for f in self.folders if f.count)

  def all(self) -> Iterator["Folder"]:
    """Yields it and all folders below it."""
    yield self
    for folder in self.folders:
      yield from folder.all()

  def all_images(self) -> list[str]:
    """Returns the images in it, at any depth."""
    return [path for folder in self.all() for path in folder.images]

  def all_ignored(self) -> list[str]:
    """Returns the other files in it, at any depth."""
    return [path for folder in self.all() for path in folder.ignored]


def read(root: pathlib.Path, unreadable: list[str] | None = None) -> Folder:
  """Returns the tree below a root. Links are followed, except those that lead back up.

  Args:
    root: A folder.
    unreadable: Gets a sentence for each folder that can't be read, which is then empty; None: it
      raises an error.

  Raises:
    UserError: A folder can't be read.
  """
  return _read(str(root), "", frozenset(), unreadable)


def is_housekeeping(name: str) -> bool:
  """Returns whether operating systems and tools, not users, create folders of a name."""
  return name.lower() in _HOUSEKEEPING or _RECOVERED.fullmatch(name) is not None


def _kind(entry: os.DirEntry[str]) -> tuple[bool, bool]:
  """Returns whether it is a folder, and whether it is a file or a link to nowhere.

  Reading a pipe would wait for a writer for ever.
  """
  if entry.is_symlink():  # a link to itself raises an error in `is_dir` and `is_file`
    return os.path.isdir(entry), os.path.isfile(entry) or not os.path.exists(entry)
  return entry.is_dir(), entry.is_file()


def _read(root: str, path: str, above: frozenset[str], unreadable: list[str] | None) -> Folder:
  folders, found, ignored = [], [], []
  here = os.path.join(root, path) if path else root
  above |= {os.path.realpath(here)}
  try:
    with os.scandir(here) as contents:
      children = sorted((c.name, *_kind(c)) for c in contents)
  except OSError as e:
    fault = f"The folder {here} can't be read: {e.strerror}. Make it readable or move it out."
    if unreadable is None:
      raise errors.UserError(fault) from None
    unreadable.append(fault)
    children = []
  prefix = f"{path}/" if path else ""
  for name, is_folder, is_file in children:
    hidden = name.startswith(".")
    if is_folder:
      circular = os.path.realpath(os.path.join(here, name)) in above
      if not (hidden or is_housekeeping(name) or circular):
        folders.append(_read(root, prefix + name, above, unreadable))
    elif is_file and not hidden and name[name.rfind(".") :].lower() in images.EXTENSIONS:
      found.append(prefix + name)
    else:
      ignored.append(prefix + name)
  count = len(found) + sum(f.count for f in folders)
  return Folder(path, tuple(found), tuple(ignored), tuple(folders), count)
