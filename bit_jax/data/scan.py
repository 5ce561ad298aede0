"""Which image files a user's folder or CSV names, with which class and in which part.

Nothing is opened here but the CSV. What is wrong is collected rather than raised where the rest can
still be told, so that `check` can list all of it and `folder` can stop at the first.
"""

import csv
import dataclasses
import hashlib
import os
import pathlib
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from bit_jax import errors, paths
from bit_jax.data import images

PARTS = {
  "train": "train",
  "training": "train",
  "test": "test",
  "testing": "test",
  "val": "val",
  "valid": "val",
  "validation": "val",
  "eval": "val",
}
PATH_COLUMNS = ("path", "file", "filename", "image")
LABEL_COLUMNS = ("label", "class")

_SYSTEM_FOLDERS = ("__MACOSX", "@eaDir")  # thumbnails and resource forks, never the user's images
_SHOWN = 5  # names in a message


class Entry(NamedTuple):
  """One labelled image file: its path below the root, its class's name, and its part.

  The path is posix and relative to the root; from a CSV it may be absolute. The part is 'train',
  'test', 'val', or '' where nothing tells.
  """

  path: str
  label: str
  part: str


@dataclasses.dataclass(frozen=True)
class Scan:
  """What was found.

  Attributes:
    root: The folder that paths are relative to.
    entries: The labelled images, in the fixed order of `by_digest`.
    empty: Class folders and parts without an image.
    unclassified: Images that lie in no class folder.
    ignored: Files that are no images by their extension, or hidden.
    missing: Files that the CSV names and that aren't there.
    faults: Sentences, each on something that stops a run.
  """

  root: pathlib.Path
  entries: tuple[Entry, ...]
  empty: tuple[str, ...] = ()
  unclassified: tuple[str, ...] = ()
  ignored: tuple[str, ...] = ()
  missing: tuple[str, ...] = ()
  faults: tuple[str, ...] = ()


def scan(path: str) -> Scan:
  """Returns what lies at a path.

  Args:
    path: A folder of `<part>/<class>/*` or `<class>/*`, or a CSV file with columns of paths, labels
      and, if it likes, parts; the names of parts are the keys of `PARTS`, in any case.

  Raises:
    UserError: There is nothing there, it is a file that is no CSV, or the CSV can't be understood.
  """
  root = pathlib.Path(os.path.abspath(paths.named(path)))
  if root.is_dir():
    return _scan_folder(root)
  if not root.exists():
    before = path.partition(",")[0]
    hint = ""
    if before != path and os.path.exists(paths.expanded(before)):
      hint = " path= takes all that follows it: put other arguments before it (shots=5,path=...)."
    raise errors.UserError(f"There is no folder or CSV file {path}.{hint}")
  if root.suffix.lower() == ".npz":
    raise errors.UserError(
      f"{path} is an npz file: train on it with --config=configs/npz.py:path={path}."
    )
  if root.suffix.lower() not in (".csv", ".tsv"):
    raise errors.UserError(
      f"{path} is neither a folder nor a CSV file; give a folder of <class>/<image> files, or a "
      f".csv with the columns path and label."
    )
  return _scan_csv(root)


def by_digest(paths: Iterable[str], salt: str = "") -> list[int]:
  """Returns the indices of `paths` in the order of the md5 of `salt` + path.

  An order that looks random, is the same on every machine, and in which the files that were there
  before keep their order when others are added.
  """
  digests = [
    hashlib.md5((salt + p).encode("utf-8", "surrogateescape"), usedforsecurity=False).digest()
    for p in paths
  ]
  return sorted(range(len(digests)), key=digests.__getitem__)


def some(names: Sequence[str]) -> str:
  """Returns the first of the names, comma-separated, and how many more there are."""
  more = len(names) - _SHOWN
  return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


def counted(n: int, singular: str, plural: str = "") -> str:
  """Returns e.g. '1 file' or '2 files'; the plural is given where it takes more than an s."""
  return f"{n:,} {singular if n == 1 else plural or singular + 's'}"


@dataclasses.dataclass
class _Found:
  """The files below a folder, by kind, relative to the root."""

  images: list[str] = dataclasses.field(default_factory=list)
  ignored: list[str] = dataclasses.field(default_factory=list)
  folders: list[str] = dataclasses.field(default_factory=list)


def _look(root: pathlib.Path, folder: str) -> _Found:
  """Returns what lies right in a folder, which is given relative to the root ('' is the root)."""
  found = _Found()
  prefix = f"{folder}/" if folder else ""
  try:
    with os.scandir(root / folder) as contents:
      children = sorted(contents, key=lambda c: c.name)
  except OSError as e:
    raise errors.UserError(f"The folder {root / folder} can't be read: {e.strerror}.") from None
  for child in children:
    hidden = child.name.startswith(".") or child.name in _SYSTEM_FOLDERS
    if child.is_dir():
      if not hidden:
        found.folders.append(prefix + child.name)
    elif not hidden and os.path.splitext(child.name)[1].lower() in images.EXTENSIONS:
      found.images.append(prefix + child.name)
    else:
      found.ignored.append(prefix + child.name)
  return found


def _walk(root: pathlib.Path, folder: str) -> _Found:
  """Returns all that lies below a folder, at any depth; links that lead in a circle are left."""
  total = _Found()
  pending: list[tuple[str, frozenset[str]]] = [(folder, frozenset())]
  while pending:
    current, above = pending.pop()
    real = os.path.realpath(root / current)
    if real in above:
      continue
    found = _look(root, current)
    total.images += found.images
    total.ignored += found.ignored
    pending += [(f, above | {real}) for f in found.folders]
  return total


def _scan_folder(root: pathlib.Path) -> Scan:
  top = _look(root, "")
  inside = {name: _look(root, name) for name in top.folders if name.lower() in PARTS}
  if any(found.folders for found in inside.values()):
    return _scan_parts(root, top, inside)
  entries, empty, ignored = _scan_classes(root, top.folders, "")
  faults: tuple[str, ...] = ()
  flat = [name for name, found in inside.items() if found.images]
  if flat and {e.label for e in entries} <= set(flat):
    faults = (_no_classes(root, flat),)
  if not top.folders:
    faults = (
      f"The folder {root} holds no class folders: put the images into one folder a class, "
      f"<class>/<image>, or list them in a CSV with the columns path and label.",
    )
  return _finish(root, entries, empty, top.images, top.ignored + ignored, faults)


def _scan_parts(root: pathlib.Path, top: _Found, inside: dict[str, _Found]) -> Scan:
  """Scans a root whose folders are parts: train, test and so on."""
  faults, entries, empty, unclassified, ignored = [], [], [], list(top.images), list(top.ignored)
  for name, found in inside.items():
    of_part, empty_classes, ignored_below = _scan_classes(root, found.folders, PARTS[name.lower()])
    entries += of_part
    empty += empty_classes if found.folders or found.images else [name]
    unclassified += found.images
    ignored += found.ignored + ignored_below
  if flat := [name for name, found in inside.items() if found.images and not found.folders]:
    faults.append(_no_classes(root, flat))
  for part in sorted(set(PARTS.values())):
    same = [name for name in inside if PARTS[name.lower()] == part]
    if len(same) > 1:
      faults.append(
        f"The folder {root} holds {' and '.join(same)}, which mean the same part: keep one."
      )
  for name in sorted(set(top.folders) - set(inside)):
    beside = _walk(root, name)
    unclassified += beside.images
    ignored += beside.ignored
    if beside.images:
      faults.append(
        f"The folder {root} holds parts ({', '.join(inside)}) and beside them {name}, with "
        f"{counted(len(beside.images), 'image')}: move it out, or rename the parts if they are "
        f"classes."
      )
  return _finish(root, entries, empty, unclassified, ignored, tuple(faults))


def _no_classes(root: pathlib.Path, flat: list[str]) -> str:
  return (
    f"In {root}, {' and '.join(flat)} hold images but no class folders: sort the images into "
    f"<class>/<image> folders, or move the folder out if its images have no labels."
  )


def _scan_classes(
  root: pathlib.Path, folders: list[str], part: str
) -> tuple[list[Entry], list[str], list[str]]:
  """Returns the entries below class folders, the classes without any, and the ignored files."""
  entries, empty, ignored = [], [], []
  for folder in folders:
    found = _walk(root, folder)
    entries += [Entry(p, folder.rsplit("/", 1)[-1], part) for p in found.images]
    ignored += found.ignored
    if not found.images:
      empty.append(folder)
  return entries, empty, ignored


def _finish(
  root: pathlib.Path,
  entries: list[Entry],
  empty: list[str],
  unclassified: list[str],
  ignored: list[str],
  faults: tuple[str, ...],
) -> Scan:
  ordered = tuple(entries[i] for i in by_digest(e.path for e in entries))
  if parted := sorted({name for e in entries for name in _parts_below(e)}):
    faults = (
      *faults,
      f"In {root}, {some(parted)} {'is' if len(parted) == 1 else 'are'} inside a class folder: if "
      f"{'it is a part' if len(parted) == 1 else 'they are parts'} of a data set, give the path of "
      f"the folder above; otherwise give another name.",
    )
  return Scan(
    root=root,
    entries=ordered,
    empty=tuple(empty),
    unclassified=tuple(unclassified),
    ignored=tuple(ignored),
    faults=faults,
  )


def _parts_below(entry: Entry) -> list[str]:
  """Returns the folders of an entry that are named like a part but lie below its class."""
  folders = entry.path.split("/")[:-1]
  first = folders.index(entry.label) + 1
  return [
    "/".join(folders[: i + 1]) for i in range(first, len(folders)) if folders[i].lower() in PARTS
  ]


class _Columns(NamedTuple):
  path: int
  label: int
  part: int | None
  has_header: bool


def _scan_csv(file: pathlib.Path) -> Scan:
  rows = list(_rows(file))
  if not rows:
    raise errors.UserError(f"The CSV {file} is empty; it needs rows of path,label.")
  columns = _columns(file, rows[0][1])
  rows = rows[columns.has_header :]
  if not rows:
    raise errors.UserError(f"The CSV {file} has a header but no rows; it needs rows of path,label.")
  entries = [_entry(file, number, row, columns) for number, row in rows]
  parts = {e.part for e in entries}
  if "" in parts and len(parts) > 1:
    number = next(n for (n, _), e in zip(rows, entries, strict=True) if not e.part)
    raise errors.UserError(
      f"Line {number} of {file} names no split although others do: fill in train, val or test, or "
      f"leave the column out."
    )
  unique = dict.fromkeys(e.path for e in entries)
  missing = {p for p in unique if not (file.parent / p).is_file()}
  ordered = [entries[i] for i in by_digest(e.path for e in entries)]
  return Scan(
    root=file.parent,
    entries=tuple(e for e in ordered if e.path not in missing),
    missing=tuple(p for p in unique if p in missing),
    faults=_repeated(file, [e.path for e in entries]),
  )


def _rows(file: pathlib.Path) -> Iterator[tuple[int, list[str]]]:
  """Yields (line number, cells) of each row that isn't blank."""
  try:
    with file.open(encoding="utf-8-sig", newline="") as text:
      first = text.readline()
      text.seek(0)
      delimiter = next((d for d in ",;\t" if d in first), ",")
      reader = csv.reader(text, delimiter=delimiter)
      for row in reader:
        cells = [cell.strip() for cell in row]
        if any(cells):
          yield reader.line_num, cells
  except UnicodeDecodeError:
    raise errors.UserError(f"The CSV {file} is not text in UTF-8: save it as UTF-8.") from None
  except csv.Error as e:
    raise errors.UserError(f"The CSV {file} can't be read: {e}.") from None
  except OSError as e:
    raise errors.UserError(f"The CSV {file} can't be read: {e.strerror}.") from None


def _columns(file: pathlib.Path, first: list[str]) -> _Columns:
  """Finds the columns by the header; without one, they are path, label and, if any, split."""
  names = [cell.lower() for cell in first]
  path = next((i for i, n in enumerate(names) if n in PATH_COLUMNS), None)
  label = next((i for i, n in enumerate(names) if n in LABEL_COLUMNS), None)
  if path is not None and label is not None:
    return _Columns(path, label, names.index("split") if "split" in names else None, True)
  is_image = os.path.splitext(first[0])[1].lower() in images.EXTENSIONS
  if len(first) < 2 or not is_image:
    raise errors.UserError(
      f"The CSV {file} has no columns of paths and labels; its first row is {','.join(first)!r}. "
      f"Name one column path ({', '.join(PATH_COLUMNS[1:])} are fine too) and one label (or class)."
    )
  return _Columns(0, 1, 2 if len(first) > 2 and names[2] in PARTS else None, False)


def _entry(file: pathlib.Path, number: int, row: list[str], columns: _Columns) -> Entry:
  cells = dict(enumerate(row))
  path, label = cells.get(columns.path), cells.get(columns.label)
  if not path or not label:
    raise errors.UserError(f"Line {number} of {file} has no {'label' if path else 'path'}.")
  name = cells.get(columns.part, "") if columns.part is not None else ""
  if name and name.lower() not in PARTS:
    raise errors.UserError(
      f"Line {number} of {file} names the split {name!r}; it is one of {', '.join(PARTS)}."
    )
  return Entry(_relative(file.parent, path), label, PARTS.get(name.lower(), ""))


def _relative(root: pathlib.Path, path: str) -> str:
  """Returns a path relative to the root where it lies below it, otherwise absolute; posix."""
  full = os.path.abspath(root / paths.expanded(path))
  below = pathlib.Path(full).is_relative_to(root)
  return (pathlib.Path(full).relative_to(root) if below else pathlib.Path(full)).as_posix()


def _repeated(file: pathlib.Path, paths: list[str]) -> tuple[str, ...]:
  seen: set[str] = set()
  repeated = dict.fromkeys(p for p in paths if p in seen or seen.add(p))  # type: ignore[func-returns-value]
  if not repeated:
    return ()
  files = counted(len(repeated), "file")
  return (f"The CSV {file} lists {files} more than once: {some(list(repeated))}.",)
