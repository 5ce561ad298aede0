"""Image files that a user's folder or CSV lists: path, class and part of each, and what is wrong.

`layouts` reads folders, `csv_list` reads CSV files. Faults are collected instead of raised, so that
`check` can list all of them and `folder` can stop at the first.
"""

import dataclasses
import hashlib
import pathlib
import sys
from collections.abc import Iterable
from typing import NamedTuple

from bit_jax.data import headers, images
from bit_jax.data.sources import class_naming
from bit_jax.runtime import phrases


class Entry(NamedTuple):
  """A labelled image file.

  Attributes:
    path: Posix, relative to the root; from a CSV it may be absolute.
    label: The name of its class.
    part: 'train', 'test', 'val', or '' where the data has no parts.
  """

  path: str
  label: str
  part: str


@dataclasses.dataclass
class Scan:
  """The content of a folder or CSV.

  Attributes:
    root: The folder that paths are relative to.
    entries: The labelled images, in the fixed order of `by_digest`.
    empty: Class folders and parts without an image.
    unclassified: Images outside the class folders.
    ignored: Files without an image's extension, or hidden.
    missing: {file: first line of the CSV that lists it} of those that don't exist.
    faults: Sentences, each on something that stops a run.
    notes: Sentences on how folders or columns were read where that isn't obvious.
    warnings: Sentences, each on a possible mistake that doesn't stop a run.
    csv: The CSV; None where a folder was read.
    known_headers: Those of the entries; None before they are read.
  """

  root: pathlib.Path
  entries: list[Entry] = dataclasses.field(default_factory=list)
  empty: list[str] = dataclasses.field(default_factory=list)
  unclassified: list[str] = dataclasses.field(default_factory=list)
  ignored: list[str] = dataclasses.field(default_factory=list)
  missing: dict[str, int] = dataclasses.field(default_factory=dict)
  faults: list[str] = dataclasses.field(default_factory=list)
  notes: list[str] = dataclasses.field(default_factory=list)
  warnings: list[str] = dataclasses.field(default_factory=list)
  csv: pathlib.Path | None = None
  known_headers: headers.Headers | None = dataclasses.field(default=None, compare=False)

  @property
  def source(self) -> pathlib.Path:
    """The folder or CSV that was read."""
    return self.csv or self.root

  def only(self, part: str) -> "Scan":
    """Returns the scan with the entries of one part alone."""
    rows = [i for i, entry in enumerate(self.entries) if entry.part == part]
    entries, known = [self.entries[i] for i in rows], self.known_headers
    known = None if known is None else known.take(rows)
    return dataclasses.replace(self, entries=entries, known_headers=known)


def by_digest(paths: Iterable[str], salt: str = "") -> list[int]:
  """Returns the indices of `paths` in the order of the md5 of `salt` + path.

  The order looks random, is the same on every machine, and adding files doesn't change the order of
  the others.
  """
  digests = [
    hashlib.md5((salt + p).encode("utf-8", "surrogateescape"), usedforsecurity=False).digest()
    for p in paths
  ]
  return sorted(range(len(digests)), key=digests.__getitem__)


def faults(found: Scan, *, to_train: bool = True) -> list[str]:
  """Returns a sentence about each fault that stops a run under any protocol.

  Args:
    found: The scan.
    to_train: Whether a network is to be trained on the images. To evaluate one, classes may lack
      images, a single one is enough, and no train part is needed.
  """
  sentences = list(found.faults)
  if found.missing:
    first = "line" if len(found.missing) == 1 else "first in line"
    sentences.append(
      f"The CSV {found.source} lists {phrases.counted(len(found.missing), 'file')} that can't be "
      f"found: {phrases.some(list(found.missing))} ({first} {min(found.missing.values())})."
    )
  if found.empty and (to_train or not found.entries):
    sentences.append(
      f"Folders without images in {found.root}: {phrases.some(found.empty)}. Add images or remove "
      f"the folders; image files end in {', '.join(sorted(images.EXTENSIONS))}."
    )
  if sentences:  # further faults would only repeat these
    return sentences
  wanted = [_class_fault(found)]
  if to_train:
    wanted = [wanted[0] or _single_class_fault(found), _part_fault(found)]
  return [s for s in wanted if s]


def _class_fault(found: Scan) -> str | None:
  names = {e.label for e in found.entries}
  if unprintable := sorted(n for n in names if not class_naming.printable(n)):
    return (
      f"{phrases.counted(len(unprintable), 'class name')} in {found.source} can't be printed, for "
      f"example {unprintable[0]!r}: {_renaming(unprintable[0])}."
    )
  if fault := class_naming.fault(class_naming.in_order(names)):
    return f"In {found.source}, {fault}: rename or merge the classes."
  if not names:
    return f"No images found in {found.root}: put images into its class folders."
  return None


def _single_class_fault(found: Scan) -> str | None:
  names = {e.label for e in found.entries}
  if len(names) > 1:
    return None
  return (
    f"All images in {found.source} belong to one class: {names.pop()}. A classifier needs at "
    f"least two classes" + ("." if found.csv else ": one folder per class, <class>/<image>.")
  )


def _renaming(name: str) -> str:
  if not any("\ud800" <= c <= "\udfff" for c in name):  # all of its bytes could be decoded
    return (
      "it has a line end, a tab or another control character. Rename the folder, or the label in "
      "the CSV"
    )
  if sys.getfilesystemencoding().lower() not in ("utf-8", "utf8"):
    return "set PYTHONUTF8=1, so that Python reads names as UTF-8"
  return "rename the folder (in UTF-8), or the label in the CSV"


def _part_fault(found: Scan) -> str | None:
  parts = {e.part for e in found.entries}
  if parts in (set(), {""}, {"train"}):
    return None
  if "train" not in parts:
    return f"{found.source} has a {' and a '.join(sorted(parts))} part but no train part."
  trained = {e.label for e in found.entries if e.part == "train"}
  if unknown := sorted({e.label for e in found.entries} - trained):
    return (
      f"In {found.source}, the train part lacks {phrases.counted(len(unknown), 'class', 'classes')}"
      f" of another part: {phrases.some(unknown)}."
    )
  if len(trained) == 1:
    return f"All training images in {found.source} belong to one class: {trained.pop()}."
  return None
