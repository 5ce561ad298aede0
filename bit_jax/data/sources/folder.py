"""A user's own images, from a folder or a CSV: what is trained on, what is scored, reading them.

The layouts are those of `find`. A split that nobody made is drawn class by class in the order
of the files' md5: the same on every machine and for every run's seed, and files that were there
before mostly keep their side when others are added.
"""

import dataclasses
import functools
import hashlib
import itertools
import os
import pathlib
import sys
from collections import Counter
from collections.abc import Iterable
from multiprocessing import pool

import numpy as np
import tqdm

from bit_jax.data import images
from bit_jax.data.sources import arrays, class_naming, csv_list, layouts, scan
from bit_jax.runtime import errors, paths, phrases

_READERS = 8  # threads that read headers


@dataclasses.dataclass(frozen=True)
class Listing:
  """The files of one part, in a fixed order in which classes are mixed.

  Attributes:
    paths: N posix paths relative to the folder's root; from a CSV they may be absolute.
    labels: [N] int32, indices into the folder's class names.
  """

  paths: tuple[str, ...]
  labels: np.ndarray

  def __len__(self) -> int:
    """Returns N."""
    return len(self.paths)


@dataclasses.dataclass(frozen=True)
class Folder:
  """A user's images under one protocol.

  Attributes:
    root: The folder that paths are relative to.
    class_names: Sorted, as numbers if all are; a label is an index into them.
    train: What is trained on.
    test: What is scored.
    val: What weights are chosen on, apart from both; None without such a part.
    pool: `train` and `val` together, in one order: what identifies the data with `test`.
    image_size: Median (height, width) in pixels over all images whose header can be read.
    fixed_size: Whether all of these are of that one size.
    origin: Sentences on how the data was read, where the split comes from and what is left out.
    warnings: Sentences, each on something that may be a mistake.
  """

  root: pathlib.Path
  class_names: tuple[str, ...]
  train: Listing
  test: Listing
  val: Listing | None
  pool: Listing
  image_size: tuple[int, int]
  fixed_size: bool
  origin: str
  warnings: tuple[str, ...] = ()

  @property
  def num_train(self) -> int:
    """Number of images that are trained on."""
    return len(self.train)

  @property
  def num_test(self) -> int:
    """Number of images that are scored."""
    return len(self.test)


@dataclasses.dataclass(frozen=True)
class Headers:
  """What the headers of some image files say.

  Attributes:
    sizes: [M, 2] int64: height and width of those that can be read, orientation respected.
    unreadable: (relative path, reason) of the others.
  """

  sizes: np.ndarray
  unreadable: tuple[tuple[str, str], ...]

  @property
  def median(self) -> tuple[int, int]:
    """Median (height, width) in pixels; there must be a readable image."""
    height, width = np.median(self.sizes, axis=0)
    return int(height), int(width)


class Files:
  """Random access to the images of a listing; may be used from several threads.

  Attributes:
    class_names: The names of the classes, in the order of their labels.
  """

  def __init__(self, folder: Folder, listing: Listing):
    """Takes a listing of the folder; reads nothing yet."""
    self._root, self._listing = folder.root, listing
    self.class_names = folder.class_names

  def __len__(self) -> int:
    """Returns the number of images."""
    return len(self._listing)

  def read(self, index: int) -> tuple[np.ndarray, int]:
    """Returns image `index`, [h, w, 3] uint8, and its label.

    Raises:
      Unreadable: It can't be decoded; the message names the file.
    """
    path = self._root / self._listing.paths[index]
    try:
      return images.decode(path), int(self._listing.labels[index])
    except images.Unreadable as e:
      raise images.Unreadable(f"The image {path} {e}.") from None

  def read_labels(self) -> np.ndarray:
    """Returns all labels, [N] int32."""
    return self._listing.labels

  def read_sizes(self) -> np.ndarray:
    """Returns height and width of every image, [N, 2] int64; -1 where the header is unreadable."""
    headers = read_headers(self._root, self._listing.paths)
    unreadable = {path for path, _ in headers.unreadable}
    sizes = np.full((len(self), 2), -1)
    sizes[[path not in unreadable for path in self._listing.paths]] = headers.sizes
    return sizes

  def fingerprint(self) -> str:
    """Returns a sha256 in hexadecimal that changes with the files, their labels or their order.

    It covers names, sizes and times of change, not the content, so that it takes no reading.
    """
    return self._digest(_stamps(self._root, self._listing.paths))

  def identity(self) -> str:
    """Returns what `fingerprint` does, but the same for a copy of the files made later."""
    return self._digest((size,) for size, _ in _stamps(self._root, self._listing.paths))

  def _digest(self, stamps: Iterable[tuple[int, ...]]) -> str:
    digest = hashlib.sha256("\0".join(self.class_names).encode("utf-8", "surrogateescape"))
    for path, label, stamp in zip(self._listing.paths, self._listing.labels, stamps, strict=True):
      row = "\0".join(["", path, str(label), *map(str, stamp)])
      digest.update(row.encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def find(path: str) -> scan.Scan:
  """Returns what lies at a path.

  Args:
    path: A folder of `<part>/<class>/*` or `<class>/*`, or a CSV file with columns of paths, labels
      and optionally parts; the names of parts are the keys of `part_names.PARTS`, in any case.

  Raises:
    UserError: There is nothing there, it is a file that is no CSV, or the CSV can't be understood.
  """
  root = pathlib.Path(os.path.abspath(paths.named(path)))
  if root.is_dir():
    return _with_warning(layouts.read(root))
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
  return _with_warning(csv_list.read(root))


def _with_warning(found: scan.Scan) -> scan.Scan:
  """Returns a scan that warns of classes which may be one."""
  alike = class_naming.differ_in_case(e.label for e in found.entries)
  if alike is None:
    return found
  warning = f"Classes of {found.source} differ only in upper and lower case: {alike}."
  return dataclasses.replace(found, warnings=(*found.warnings, warning))


def describe(path: str, protocol: str, *, val_apart: bool = False) -> Folder:
  """Returns a user's images under a protocol; of the images only the headers are read.

  'final' trains on train and val and scores test; without a test folder val is the test set;
  without either, a fifth of each class is, and at least one image of each class that has two.
  'select' never uses the test set of 'final': it trains on train and scores val where there are
  test and val, and otherwise holds out a fifth of what 'final' trains on.

  Args:
    path: A folder or a CSV, in a layout of `find`; `~` is the user's home.
    protocol: 'final' or 'select'.
    val_apart: Whether 'final' keeps val out of training where there is a test part as well.

  Raises:
    UserError: There is no such folder, its layout can't be understood, it has a class without
      images, fewer than two classes, too few images to split, or none that can be read.
  """
  found = find(path)
  for fault in faults(found):
    raise errors.UserError(fault)
  return split(found, protocol, val_apart=val_apart)


def split(found: scan.Scan, protocol: str, *, val_apart: bool = False) -> Folder:
  """Does what `describe` does for files that were scanned and in which `faults` finds nothing.

  Raises:
    UserError: There are too few images to split, or none that can be read.
  """
  pool, test, origin = _split(found, protocol)
  train, val = pool, tuple(e for e in pool if val_apart and e.part == "val")
  if val:
    train = tuple(e for e in pool if e.part == "train")
    origin = "As the data has it: train to train on, val to choose weights on, test to evaluate."
  class_names = _in_order({e.label for e in found.entries if e.part in ("", "train")})
  headers = read_headers(found.root, tuple(e.path for e in found.entries))
  if not len(headers.sizes):
    name, reason = headers.unreadable[0]
    raise errors.UserError(
      f"None of the {len(found.entries)} images in {found.source} can be read; {name}, for one, "
      f"{reason}."
    )
  return Folder(
    root=found.root,
    class_names=class_names,
    train=_listing(train, class_names),
    test=_listing(test, class_names),
    val=_listing(val, class_names) if val else None,
    pool=_listing(pool, class_names),
    image_size=headers.median,
    fixed_size=bool((headers.sizes == headers.sizes[0]).all()),
    origin=" ".join([*found.notes, origin]) + _left_out(found) + _untested(test, class_names),
    warnings=found.warnings,
  )


def faults(found: scan.Scan) -> list[str]:
  """Returns a sentence on each thing that stops a run, whatever its protocol."""
  sentences = list(found.faults)
  root = found.root
  if found.missing:
    sentences.append(
      f"The CSV {found.source} names {phrases.counted(len(found.missing), 'file')} that "
      f"{'is' if len(found.missing) == 1 else 'are'} not there: {found.missing_with_line()}."
    )
  if found.empty:
    sentences.append(
      f"In {root}, these folders hold no images: {phrases.some(found.empty)}. Fill or remove them; "
      f"images are files that end in {', '.join(sorted(images.EXTENSIONS))}."
    )
  if sentences:  # what follows would only repeat them
    return sentences
  return [s for s in (_class_fault(found), _part_fault(found)) if s]


def read_headers(root: pathlib.Path, paths: tuple[str, ...]) -> Headers:
  """Reads the headers of images; a second call takes no reading if the files are the same."""
  return _read_headers(root, paths, _stamps(root, paths))


def quotas(labels: np.ndarray, num_classes: int) -> np.ndarray:
  """Returns how many images of each class a fifth is: [C] integer, at least 1 of 2 or more."""
  counts = np.bincount(labels, minlength=num_classes)
  return np.where(counts > 1, np.maximum((counts + 2) // 5, 1), 0)


@functools.lru_cache(maxsize=4)
def _read_headers(
  root: pathlib.Path, paths: tuple[str, ...], stamps: tuple[tuple[int, int], ...]
) -> Headers:
  del stamps  # with them, a file that changes is read again

  def size(path: str) -> tuple[int, int] | str:
    try:
      return images.size(root / path)
    except images.Unreadable as e:
      return str(e)

  with pool.ThreadPool(_READERS) as threads:
    progress = tqdm.tqdm(
      threads.imap(size, paths, chunksize=64),
      total=len(paths),
      desc="Reading image sizes",
      unit=" files",
      disable=not sys.stderr.isatty(),
    )
    answers = list(progress)
  sizes = [a for a in answers if not isinstance(a, str)]
  unreadable = [(p, a) for p, a in zip(paths, answers, strict=True) if isinstance(a, str)]
  return Headers(np.array(sizes, np.int64).reshape(-1, 2), tuple(unreadable))


def _stamps(root: pathlib.Path, paths: tuple[str, ...]) -> tuple[tuple[int, int], ...]:
  """Returns (bytes, time of change in nanoseconds) of each file; -1 of one that isn't there."""
  base = str(root)

  def stamp(path: str) -> tuple[int, int]:
    try:
      status = os.stat(os.path.join(base, path))
    except OSError:  # such as a link to nowhere; `images` will say so
      return -1, -1
    return status.st_size, status.st_mtime_ns

  return tuple(map(stamp, paths))


def _renaming(name: str) -> str:
  if class_naming.decoded(name):
    return (
      "it holds a line end, a tab or another control character. Rename the folder, or the label in "
      "the CSV"
    )
  if sys.getfilesystemencoding().lower() not in ("utf-8", "utf8"):
    return "set PYTHONUTF8=1, for names are read as UTF-8 then"
  return "rename the folder (in UTF-8), or the label in the CSV"


def _class_fault(found: scan.Scan) -> str | None:
  names = sorted({e.label for e in found.entries})
  unprintable = [n for n in names if not class_naming.printable(n)]
  if unprintable:
    return (
      f"{phrases.counted(len(unprintable), 'class name')} in {found.source} can't be printed, "
      f"{unprintable[0]!r} for one: {_renaming(unprintable[0])}."
    )
  if fault := class_naming.fault(_in_order(set(names))):
    return f"In {found.source}, {fault}: rename or merge the classes."
  if not names:
    return f"There are no images in {found.root}: fill its class folders."
  if len(names) == 1:
    return (
      f"All images in {found.source} are of one class, {names[0]}; a classifier needs at least two"
      + ("." if found.csv else ": one folder a class, <class>/<image>.")
    )
  return None


def _part_fault(found: scan.Scan) -> str | None:
  parts = {e.part for e in found.entries}
  if parts in (set(), {""}, {"train"}):
    return None
  if "train" not in parts:
    return f"{found.source} has a part to score ({', '.join(sorted(parts))}) but none named train."
  trained = {e.label for e in found.entries if e.part == "train"}
  unknown = sorted({e.label for e in found.entries} - trained)
  if unknown:
    classes = phrases.counted(len(unknown), "class", "classes")
    return (
      f"In {found.source}, the train part lacks {classes} that another part has: "
      f"{phrases.some(unknown)}."
    )
  if len(trained) == 1:
    return f"All training images in {found.source} are of one class, {trained.pop()}."
  return None


def _split(
  found: scan.Scan, protocol: str
) -> tuple[tuple[scan.Entry, ...], tuple[scan.Entry, ...], str]:
  """Returns what to train on, what to score, and a sentence on where the split comes from."""
  parts = {e.part for e in found.entries}
  if not parts & {"test", "val"}:
    train, test = _fifth(found.source, found.entries, "test")
    have = "There is only a train part" if parts == {"train"} else "There are no train and test"
    origin = f"{have}: four fifths of each class, drawn with a fixed seed, train; a fifth scores"
  else:
    scored = "test" if "test" in parts else "val"
    train = tuple(e for e in found.entries if e.part != scored)
    test = tuple(e for e in found.entries if e.part == scored)
    trained = "train and val" if {"test", "val"} <= parts else "train"
    origin = f"As the data has it: {trained} to train on, {scored} to score"
  if protocol == "final":
    return train, test, f"{origin}."
  if {"test", "val"} <= parts:
    kept = tuple(e for e in train if e.part == "train")
    return (
      kept,
      tuple(e for e in train if e.part == "val"),
      ("As the data has it: train to train on, val to score; test is left for protocol=final."),
    )
  kept, held_out = _fifth(found.source, train, "select")
  unseen = f"the {scored} part" if parts & {"test", "val"} else "the fifth"
  return (
    kept,
    held_out,
    (
      f"Four fifths of each training class, drawn with a fixed seed, train and a fifth scores; "
      f"{unseen}, which protocol=final scores, stays unseen."
    ),
  )


def _fifth(
  source: pathlib.Path, entries: tuple[scan.Entry, ...], purpose: str
) -> tuple[tuple[scan.Entry, ...], tuple[scan.Entry, ...]]:
  """Holds out a fifth of each class; a purpose of its own draws another fifth."""
  names = tuple(sorted({e.label for e in entries}))
  quota = quotas(_listing(entries, names).labels, len(names))
  if not quota.any():
    raise errors.UserError(
      f"No class in {source} has 2 images, so none can be held out for evaluation: add images"
      + ("." if purpose == "test" else ", or use protocol=final.")
    )
  left = Counter(dict(zip(names, quota.tolist(), strict=True)))
  held_out = set()
  for i in scan.by_digest((e.path for e in entries), f"{arrays.SPLIT_SEED}/{purpose}/"):
    if left[entries[i].label]:
      left[entries[i].label] -= 1
      held_out.add(i)
  mask = [i in held_out for i in range(len(entries))]
  kept = tuple(itertools.compress(entries, (not m for m in mask)))
  return kept, tuple(itertools.compress(entries, mask))


def _listing(entries: tuple[scan.Entry, ...], class_names: tuple[str, ...]) -> Listing:
  numbers = {name: i for i, name in enumerate(class_names)}
  labels = np.array([numbers[e.label] for e in entries], np.int32)
  return Listing(tuple(e.path for e in entries), labels)


def _in_order(class_names: set[str]) -> tuple[str, ...]:
  if all(name.isdecimal() for name in class_names):
    return tuple(sorted(class_names, key=lambda name: (int(name), name)))
  return tuple(sorted(class_names))


def _left_out(found: scan.Scan) -> str:
  visible = [p for p in found.ignored if not p.rpartition("/")[2].startswith(".")]
  sentences = []
  for left, noun, why in (
    (found.unclassified, "image", "in no class folder"),
    (visible, "file", "of no known image type"),
  ):
    if left:
      verb = "is" if len(left) == 1 else "are"
      sentences.append(
        f" {phrases.counted(len(left), noun)} {why} {verb} left out: {phrases.some(left)}."
      )
  return "".join(sentences)


def _untested(test: tuple[scan.Entry, ...], class_names: tuple[str, ...]) -> str:
  untested = sorted(set(class_names) - {e.label for e in test})
  return f" No image to score is of {phrases.some(untested)}." if untested else ""
