"""The images that a command line names: files, folders, patterns and lists of paths.

found = inputs.find(["photos", "cat.jpg", "scans"])
found.files.paths, found.files.read(0)
"""

import dataclasses
import fnmatch
import glob
import hashlib
import os
import pathlib
import re
import sys
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from bit_jax.data import datasets, headers, images
from bit_jax.data.sources import tree
from bit_jax.runtime import errors, paths, phrases

LIST = "-"  # stands for a list of paths on standard input
_ESCAPED = ("Cc", "Zl", "Zp")  # Unicode categories: control characters, line ends
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


@dataclasses.dataclass(frozen=True, eq=False)
class Files:
  """Image files without labels, with random access from several threads; a `stream.Source`.

  Attributes:
    paths: N paths as the user named them, or below a folder that the user named. Bytes of a name
      that are not UTF-8 are surrogates, as in `os.fsdecode`.
  """

  paths: tuple[str, ...]

  def __len__(self) -> int:
    """Returns N."""
    return len(self.paths)

  def read(self, index: int) -> tuple[np.ndarray, int]:
    """Returns image `index`, [h, w, 3] uint8, and 0 in place of a label.

    Raises:
      Unreadable: It can't be decoded; the message names the file.
    """
    path = self.paths[index]
    try:
      return images.decode(pathlib.Path(path)), 0
    except images.Unreadable as e:
      raise images.Unreadable(f"The image {escaped(path)} {e}.") from None

  def kept_size(self, side: int) -> tuple[int, int] | None:
    """Returns `datasets.kept_size` of the images, as in the evaluation of labelled files.

    Headers are read until one decides; files that have no readable one don't count. None if there
    are pipes, which can be read only once.
    """
    if any(os.path.exists(path) and not os.path.isfile(path) for path in self.paths):
      return None
    return datasets.kept_size(headers.sizes(self.paths), side)

  def fingerprint(self) -> str:
    """Returns a sha256 in hexadecimal that changes with the files or their order.

    It covers paths, sizes and modification times, not the content, so no file is read.
    """
    digest = hashlib.sha256()
    for path in self.paths:
      try:
        status = os.stat(path)
        stamp = f"{status.st_size} {status.st_mtime_ns}"
      except OSError:
        stamp = "-"
      digest.update(f"{os.path.abspath(path)}\0{stamp}\0".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


@dataclasses.dataclass(frozen=True)
class Found:
  """The images that a command line names.

  Attributes:
    files: Each once, at the place of its first mention; at least one. A file that is named itself
      may not exist.
    faults: Sentences on inputs without an image and on folders that can't be read.
    repeated: How many further mentions of the files there were.
  """

  files: Files
  faults: tuple[str, ...]
  repeated: int

  def remarks(self) -> Iterator[str]:
    """Yields the faults, and a sentence if files were named several times."""
    yield from self.faults
    if self.repeated:
      yield f"Ignored {phrases.counted(self.repeated, 'repeated path')}."


def find(named: Sequence[str], read_list: Callable[[], bytes] | None = None) -> Found:
  """Returns the images that inputs name.

  An input is a file, which may have any extension; a folder, in which all files with the extension
  of an image are found at any depth, without hidden files and the folders of operating systems; a
  pattern such as `photos/**/*.jpg`, which finds what a folder would; or '-' for a list of files and
  folders.

  Args:
    named: The inputs; a `~` stands for the home folder.
    read_list: Returns the content of the list: one path a line, or each followed by a zero byte.

  Raises:
    UserError: No input names an existing file.
  """
  search = _Search()
  listed = False
  for text in named:
    if text == LIST and read_list is not None:
      if not listed:
        for path in _lines(read_list()):
          search.add_listed(path)
        listed = True
    else:
      search.add_argument(text)
  if not search.exists:
    raise errors.UserError(_nothing(search, named))
  return Found(Files(tuple(search.found.values())), tuple(search.faults), search.repeated)


def standard_input() -> bytes:
  """Returns the content of standard input, for `find`."""
  if sys.stdin is None:  # it was closed
    return b""
  if sys.stdin.isatty():
    print("Reading paths from the terminal; end the list with Ctrl-D.", file=sys.stderr)
  return sys.stdin.buffer.read()


def escaped(path: str) -> str:
  """Returns a path in one line: line ends and other control characters are escaped."""
  return "".join(
    c.encode("unicode_escape").decode() if unicodedata.category(c) in _ESCAPED else c for c in path
  )


class _Search:
  """Collects images.

  Attributes:
    found: {the path from the root folder: the path as named}.
    exists: Whether any of them exists.
    faults: As in `Found`.
    repeated: As in `Found`.
  """

  def __init__(self) -> None:
    self.found: dict[str, str] = {}
    self.exists = False
    self.faults: list[str] = []
    self.repeated = 0
    self._here = pathlib.PurePath(os.getcwd())

  def add_argument(self, text: str) -> None:
    """Adds a file, a folder, or what a pattern finds."""
    try:
      path = paths.expanded(text)
    except errors.UserError as e:
      self.faults.append(str(e))
      return
    if not os.path.lexists(path) and glob.has_magic(path):
      self._add_pattern(path)
    else:
      self.add(path)

  def add_listed(self, text: str) -> None:
    """Adds a file or a folder of a list, in which `~` is a letter of a name."""
    try:
      self.add(paths.expanded(text) if paths.is_url(text) else text)
    except errors.UserError as e:
      self.faults.append(str(e))

  def add(self, path: str) -> None:
    """Adds a file or a folder."""
    if os.path.isdir(path):
      found = tree.read(pathlib.Path(path), self.faults).all_images()
      if not found:
        self.faults.append(
          f"The folder {escaped(path)} contains no images; image files end in {_extensions()}."
        )
      self._take(os.path.join(path, below) for below in found)
    else:
      self._take([path], exist=os.path.exists(path))

  def _add_pattern(self, pattern: str) -> None:
    matches = dict.fromkeys(_matches(pattern, self.faults))
    found: dict[str, None] = {}
    for path in matches:
      if os.path.isdir(path):
        below = tree.read(pathlib.Path(path), self.faults).all_images()
        found.update((os.path.join(path, name), None) for name in below)
      elif os.path.splitext(path)[1].lower() in images.EXTENSIONS:
        found[path] = None
    if not found:
      kind = f"with the extension of an image ({_extensions()})" if matches else "or folder"
      self.faults.append(f"No file {kind} matches the pattern {escaped(pattern)}.")
    self._take(found)

  def _take(self, found: Iterable[str], *, exist: bool = True) -> None:
    for path in found:
      self.exists |= exist
      key = str(self._here / path)
      self.repeated += key in self.found
      self.found.setdefault(key, path)


def _lines(content: bytes) -> Iterator[str]:
  """Yields the paths of a list."""
  content = content.removeprefix(_BYTE_ORDER_MARK)
  zeros = b"\0" in content
  for line in content.split(b"\0" if zeros else b"\n"):
    if path := line if zeros else line.removesuffix(b"\r"):
      yield os.fsdecode(path)


def _matches(pattern: str, faults: list[str]) -> Iterator[str]:
  """Yields the files and folders that a pattern matches, without housekeeping folders."""
  pattern = re.sub("/+", "/", pattern)
  parts = pattern.rstrip("/").split("/")
  if "**" not in parts:
    for path in sorted(glob.glob(pattern.rstrip("/"))):
      names = zip(parts, path.split("/"), strict=True)
      if not any(glob.has_magic(part) and tree.is_housekeeping(name) for part, name in names):
        yield path
    return
  # Below the first `**` the tree is walked: `glob` would follow links round in circles.
  first = parts.index("**")
  above, below = "/".join(parts[:first]), parts[first:]
  top = "/" if first and not above else above
  for root in sorted(filter(os.path.isdir, glob.glob(top))) if first else [""]:
    for folder in tree.read(pathlib.Path(root or "."), faults).all():
      if folder.path and _fits(folder.path.split("/"), below):
        found: Iterable[str] = folder.all_images()
      else:
        found = (path for path in folder.images if _fits(path.split("/"), below))
      yield from (os.path.join(root, path) for path in found)


def _fits(names: Sequence[str], parts: Sequence[str]) -> bool:
  """Returns whether the parts of a path match those of a pattern; '**' matches any number."""
  if not parts or not names:
    return not parts and not names
  if parts[0] == "**":
    return len(parts) == 1 or any(_fits(names[i:], parts[1:]) for i in range(len(names)))
  return fnmatch.fnmatchcase(names[0], parts[0]) and _fits(names[1:], parts[1:])


def _extensions() -> str:
  return ", ".join(sorted(images.EXTENSIONS))


def _nothing(search: _Search, named: Sequence[str]) -> str:
  """Returns the error where no input names an existing file."""
  sentences = list(search.faults)
  if missing := list(map(escaped, search.found.values())):
    sentences.append(f"File or folder not found: {phrases.some(missing)}.")
  if not sentences:
    only_list = list(named) == [LIST]
    sentences.append(
      "The list on standard input is empty: write one path a line."
      if only_list
      else "No images given: name files, folders or patterns in quotes, or - for a list."
    )
  return " ".join(sentences)
