"""The folders and files below a root, without what operating systems and tools leave there."""

import dataclasses
import functools
import os
import pathlib
import re
from collections.abc import Iterator

from bit_jax.data import images
from bit_jax.runtime import errors

# Never the user's images: thumbnails, resource forks, bins, snapshots; hidden folders likewise.
_HOUSEKEEPING = frozenset(
  {
    "__macosx",
    "__pycache__",
    "$recycle.bin",
    "recycler",
    "$extend",
    "system volume information",
    "lost+found",
    "lost.dir",
    "#recycle",
    "#snapshot",
    "@eadir",
    "@recycle",
    "@recently-snapshot",
    "@tmp",
    "@__thumb",
    "~snapshot",
    "network trash folder",
    "temporary items",
    "ipynb_checkpoints",
  }
)
_RECOVERED = re.compile(r"found\.\d{3}", re.IGNORECASE)  # by chkdsk


@dataclasses.dataclass(frozen=True)
class Folder:
  """A folder; paths are posix and relative to the root.

  Attributes:
    path: Its path; '' of the root.
    images: The files right in it that are images by their extension.
    ignored: The other files right in it.
    folders: The folders right in it, sorted by name.
    count: Number of images in it, at any depth.
  """

  path: str
  images: tuple[str, ...]
  ignored: tuple[str, ...]
  folders: tuple["Folder", ...]
  count: int

  @property
  def name(self) -> str:
    """Its own name."""
    return self.path.rpartition("/")[2]

  @functools.cached_property
  def full(self) -> tuple["Folder", ...]:
    """Those of its folders that hold an image, at any depth."""
    return tuple(f for f in self.folders if f.count)

  def all(self) -> Iterator["Folder"]:
    """Yields it and every folder below it."""
    yield self
    for folder in self.folders:
      yield from folder.all()

  def all_images(self) -> list[str]:
    """Returns the images in it, at any depth."""
    return [path for folder in self.all() for path in folder.images]

  def all_ignored(self) -> list[str]:
    """Returns the other files in it, at any depth."""
    return [path for folder in self.all() for path in folder.ignored]


def read(root: pathlib.Path) -> Folder:
  """Returns what lies below a root; links are followed, but those that lead in a circle are left.

  Raises:
    UserError: A folder can't be read.
  """
  return _read(root, "", frozenset())


def _read(root: pathlib.Path, path: str, above: frozenset[str]) -> Folder:
  folders, found, ignored = [], [], []
  above |= {os.path.realpath(root / path)}
  try:
    with os.scandir(root / path) as contents:
      children = sorted(contents, key=lambda c: c.name)
  except OSError as e:
    raise errors.UserError(
      f"The folder {root / path} can't be read: {e.strerror}. Make it readable or move it out."
    ) from None
  for child in children:
    inside = f"{path}/{child.name}" if path else child.name
    hidden = child.name.startswith(".")
    if _is_folder(child):
      if not (hidden or _is_housekeeping(child.name) or os.path.realpath(root / inside) in above):
        folders.append(_read(root, inside, above))
    elif not hidden and os.path.splitext(child.name)[1].lower() in images.EXTENSIONS:
      found.append(inside)
    else:
      ignored.append(inside)
  count = len(found) + sum(f.count for f in folders)
  return Folder(path, tuple(found), tuple(ignored), tuple(folders), count)


def _is_folder(child: "os.DirEntry[str]") -> bool:
  try:
    return child.is_dir()
  except OSError:  # such as a link to itself
    return False


def _is_housekeeping(name: str) -> bool:
  return name.lower() in _HOUSEKEEPING or bool(_RECOVERED.fullmatch(name))
