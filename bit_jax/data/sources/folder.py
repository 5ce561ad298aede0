"""The user's own images, from a folder or a CSV: train and test parts, and reading the files.

Where the data has no split, a fifth of each class is held out in the order of the md5 of the paths:
the same on every machine and for every seed, and adding files moves few of the others.
"""

import dataclasses
import hashlib
import os
import pathlib
from collections import Counter

import numpy as np

from bit_jax.data import headers, images
from bit_jax.data.sources import arrays, class_naming, csv_list, layouts, scan
from bit_jax.runtime import errors, paths, phrases


@dataclasses.dataclass(frozen=True, eq=False)
class Files:
  """Labelled image files with random access, from several threads; an `opening.Source`.

  Attributes:
    root: The folder that relative paths are relative to.
    class_names: The names of the classes, in the order of their labels.
    paths: N posix paths, in a fixed order in which classes are mixed; absolute ones only from a
      CSV.
    labels: [N] int32.
    sizes: [N, 2] int64: height and width; -1 where the header is unreadable.
    stamps: [N, 2] int64: bytes and modification time at the time of the scan (`headers.Header`).
    header_marks: [N] int64 (`headers.Headers.marks`).
  """

  root: pathlib.Path
  class_names: tuple[str, ...]
  paths: tuple[str, ...]
  labels: np.ndarray
  sizes: np.ndarray
  stamps: np.ndarray
  header_marks: np.ndarray

  def __len__(self) -> int:
    """Returns N."""
    return len(self.paths)

  def take(self, indices: np.ndarray) -> "Files":
    """Returns the files at `indices`, [M] integer, in that order."""
    return dataclasses.replace(
      self,
      paths=tuple(self.paths[i] for i in indices.tolist()),
      labels=self.labels[indices],
      sizes=self.sizes[indices],
      stamps=self.stamps[indices],
      header_marks=self.header_marks[indices],
    )

  def read(self, index: int) -> tuple[np.ndarray, int]:
    """Returns image `index`, [h, w, 3] uint8, and its label.

    Raises:
      Unreadable: It can't be decoded; the message names the file.
    """
    path = self.root / self.paths[index]
    try:
      return images.decode(path), int(self.labels[index])
    except images.Unreadable as e:
      raise images.Unreadable(f"The image {path} {e}.") from None

  def read_labels(self) -> np.ndarray:
    """Returns all labels, [N] int32."""
    return self.labels

  def read_sizes(self) -> np.ndarray:
    """Returns height and width of every image, [N, 2] int64; -1 where the header is unreadable."""
    return self.sizes

  def marks(self, indices: np.ndarray) -> np.ndarray:
    """Returns [M] int64 for the files at `indices`, equal for files of equal content."""
    found: np.ndarray = self.header_marks[indices]
    return found

  def content(self, index: int) -> bytes | None:
    """Returns a digest of the bytes of a file; None if it can't be read."""
    try:
      with (self.root / self.paths[index]).open("rb") as file:
        return hashlib.file_digest(file, "blake2b").digest()
    except OSError:
      return None

  def common_size(self) -> tuple[tuple[int, int], bool]:
    """Returns the median (height, width) in pixels, and whether all images have that size.

    Images with an unreadable header don't count; there must be others.
    """
    readable = self.sizes[self.sizes[:, 0] > 0]
    height, width = np.median(readable, axis=0)
    return (int(height), int(width)), bool((readable == readable[0]).all())

  def fingerprint(self) -> str:
    """Returns a sha256 in hexadecimal that changes with the files, their labels or their order.

    It covers names, sizes and modification times, not the content, so no file is read.
    """
    return self._digest(self.stamps)

  def identity(self) -> str:
    """Returns a `fingerprint` without modification times: copies of the files have the same."""
    return self._digest(self.stamps[:, :1])

  def content_mark(self) -> str:
    """Returns a sha256 in hexadecimal of `header_marks`: copies of the files have the same."""
    return hashlib.sha256(self.header_marks.astype("<i8").tobytes()).hexdigest()

  def _digest(self, stamps: np.ndarray) -> str:
    rows = zip(self.paths, self.labels.tolist(), *stamps.T.tolist(), strict=True)
    text = "\0".join(self.class_names) + "".join("\0" + "\0".join(map(str, row)) for row in rows)
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


@dataclasses.dataclass(frozen=True)
class Folder:
  """The user's images under one protocol.

  Attributes:
    class_names: Sorted, as numbers if all are; a label is an index into them.
    train: The training images.
    test: The evaluated images.
    val: The images on which weights are chosen, apart from both; None without such a part.
    pool: `train` and `val` together, in one order: with `test` it identifies the data.
    image_size: Median (height, width) in pixels over all images with a readable header.
    fixed_size: Whether all of these have that size.
    origin: Sentences on how the data was read, on the split and on what is left out.
    warnings: Sentences, each on a possible mistake in the data.
  """

  class_names: tuple[str, ...]
  train: Files
  test: Files
  val: Files | None
  pool: Files
  image_size: tuple[int, int]
  fixed_size: bool
  origin: str
  warnings: tuple[str, ...] = ()


def find(path: str) -> scan.Scan:
  """Scans a folder or a CSV file.

  Args:
    path: A folder of `<part>/<class>/*` or `<class>/*`, or a CSV file with columns of paths, labels
      and optionally parts; the names of parts are the keys of `part_names.PARTS`, in any case.

  Raises:
    UserError: The path doesn't exist, is a file but no CSV, or the CSV can't be understood.
  """
  root = pathlib.Path(os.path.abspath(paths.named(path)))
  if root.is_dir():
    found = layouts.read(root)
  elif root.exists() and root.suffix.lower() in (".csv", ".tsv"):
    found = csv_list.read(root)
  else:
    raise errors.UserError(_unusable(path, root))
  if alike := class_naming.differ_in_case({e.label for e in found.entries}):
    found.warnings.append(
      f"Class names in {found.source} differ only in upper and lower case: {alike}."
    )
  return found


def _unusable(path: str, root: pathlib.Path) -> str:
  if root.exists() and root.suffix.lower() == ".npz":
    return f"{path} is an npz file: train on it with --config=configs/npz.py:path={path}."
  if root.exists():
    return (
      f"{path} is neither a folder nor a CSV file. Give a folder of <class>/<image> files, or a "
      f".csv file with the columns path and label."
    )
  before = path.partition(",")[0]
  hint = ""
  if before != path and os.path.exists(paths.named(before)):
    hint = " path= takes everything after it: put other arguments first (shots=5,path=...)."
  return f"Folder or CSV file not found: {path}.{hint}"


def describe(
  path: str, protocol: str, *, val_apart: bool = False, found: scan.Scan | None = None
) -> Folder:
  """Returns the user's images under a protocol; of the files only the headers are read.

  'final' trains on train and val and evaluates test; without a test part it evaluates val; without
  either, a fifth of each class, and at least one image of each class with two. 'select' never uses
  the test set of 'final': it trains on train and evaluates val where the data has test and val, and
  otherwise holds out a fifth of what 'final' trains on.

  Args:
    path: A folder or a CSV, in a layout of `find`; `~` is the user's home.
    protocol: 'final' or 'select'.
    val_apart: Whether 'final' keeps val out of training where the data has a test part as well.
    found: What `find` has returned for the path; None: it is scanned here.

  Raises:
    UserError: The path or its layout can't be used, a class has no images, or there are fewer than
      two classes, too few images to split, or no readable image.
  """
  found = found or find(path)
  for fault in scan.faults(found):
    raise errors.UserError(fault)
  return split(found, protocol, val_apart=val_apart)


def split(found: scan.Scan, protocol: str, *, val_apart: bool = False) -> Folder:
  """Does what `describe` does, for a scan in which `scan.faults` finds nothing.

  Raises:
    UserError: There are too few images to split, or no readable image.
  """
  parts = np.array([e.part for e in found.entries])
  class_names = class_naming.in_order({e.label for e in found.entries if e.part in ("", "train")})
  numbers = {name: i for i, name in enumerate(class_names)}
  labels = np.array([numbers[e.label] for e in found.entries], np.int32)
  whole = files(found, class_names, labels)
  image_size, fixed_size = whole.common_size()
  pool, test, origin = _split(found, labels, parts, protocol)
  train, val = pool, pool[(parts[pool] == "val") & val_apart]
  if len(val):
    train = pool[parts[pool] == "train"]
    origin = "Split of the data: train for training, val for choosing weights, test for evaluation."
  return Folder(
    class_names=class_names,
    train=whole.take(train),
    test=whole.take(test),
    val=whole.take(val) if len(val) else None,
    pool=whole.take(pool),
    image_size=image_size,
    fixed_size=fixed_size,
    origin=" ".join([*found.notes, origin, *left_out(found)]),
    warnings=(*found.warnings, *_untested(whole, test)),
  )


def files(found: scan.Scan, class_names: tuple[str, ...], labels: np.ndarray) -> Files:
  """Returns the files of a scan, with what their headers say, which are read once for a scan.

  Args:
    found: A scan of one image or more.
    class_names: The names of the classes, in the order of their labels.
    labels: [N] int32, of the scan's entries.

  Raises:
    UserError: No header is readable.
  """
  listed = tuple(e.path for e in found.entries)
  if found.known_headers is None:
    found.known_headers = headers.read_all(found.root, listed)
  sizes, stamps, marks, faults = found.known_headers
  if not (sizes[:, 0] > 0).any():
    raise errors.UserError(
      f"None of the {len(listed)} images in {found.source} can be read. For example, {listed[0]} "
      f"{faults[0]}."
    )
  return Files(found.root, class_names, listed, labels, sizes, stamps, marks)


def _split(
  found: scan.Scan, labels: np.ndarray, parts: np.ndarray, protocol: str
) -> tuple[np.ndarray, np.ndarray, str]:
  """Returns the indices of training and evaluated images, and a sentence about the split."""
  named = set(parts.tolist())
  both = {"test", "val"} <= named
  if both and protocol == "select":
    origin = "Split of the data: train for training, val for evaluation; test is not used."
    return np.flatnonzero(parts == "train"), np.flatnonzero(parts == "val"), origin
  if named & {"test", "val"}:
    evaluated = "test" if "test" in named else "val"
    train, test = np.flatnonzero(parts != evaluated), np.flatnonzero(parts == evaluated)
    trained, unused = "train and val" if both else "train", f"the {evaluated} part"
    origin = f"Split of the data: {trained} for training, {evaluated} for evaluation."
  else:
    train, test = _hold_out(found, labels, np.arange(len(labels)), "test")
    have, unused = "Only a train part" if named == {"train"} else "No train/test split", "the fifth"
    origin = f"{have} found: using a fixed random 80/20 split of each class."
  if protocol == "select":
    train, test = _hold_out(found, labels, train, "select")
    origin = (
      f"protocol=select: using a fixed random 80/20 split of each training class; {unused} that "
      f"protocol=final evaluates is not used."
    )
  return train, test, origin


def _hold_out(
  found: scan.Scan, labels: np.ndarray, indices: np.ndarray, purpose: str
) -> tuple[np.ndarray, np.ndarray]:
  """Splits indices 80 : 20 within each class; each purpose holds out another fifth."""
  quota = quotas(labels[indices], int(labels.max()) + 1)
  if not quota.any():
    raise errors.UserError(
      f"No class in {found.source} has 2 images, so none can be held out for evaluation: add images"
      + ("." if purpose == "test" else ", or use protocol=final.")
    )
  left = Counter(dict(enumerate(quota.tolist())))
  held_out = np.zeros(len(indices), bool)
  listed = (found.entries[i].path for i in indices.tolist())
  of_class = labels[indices].tolist()
  for i in scan.by_digest(listed, f"{arrays.SPLIT_SEED}/{purpose}/"):
    if left[of_class[i]]:
      left[of_class[i]] -= 1
      held_out[i] = True
  return indices[~held_out], indices[held_out]


def quotas(labels: np.ndarray, num_classes: int) -> np.ndarray:
  """Returns how many images of each class a fifth is: [C] integer, at least 1 of 2 or more."""
  counts = np.bincount(labels, minlength=num_classes)
  return np.where(counts > 1, np.maximum((counts + 2) // 5, 1), 0)


def _untested(whole: Files, test: np.ndarray) -> list[str]:
  """Returns a sentence if classes are not evaluated."""
  untested = set(whole.class_names) - {whole.class_names[i] for i in whole.labels[test]}
  if not untested:
    return []
  return [f"Classes without evaluated images: {phrases.some(sorted(untested))}."]


def left_out(found: scan.Scan) -> list[str]:
  """Returns sentences on files in a folder that are left out, as they have no class or no image."""
  visible = [p for p in found.ignored if not p.rpartition("/")[2].startswith(".")]
  return [
    f"Left out: {phrases.counted(len(left), noun)} {where} ({phrases.some(left)})."
    for left, noun, where in (
      (found.unclassified, "image", "outside the class folders"),
      (visible, "file", "of unknown type"),
    )
    if left
  ]
