"""Which image files a user's folder or CSV names, with which class and in which part.

Folders are read by `layouts`, CSVs by `csv_list`. What is wrong is collected rather than raised
where the rest can still be reported, so that `check` can list all of it and `folder` can stop at
the first.
"""

import dataclasses
import hashlib
import pathlib
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from bit_jax.runtime import phrases


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
    csv: The CSV, None where a folder was read.
    lines: {file: first line of the CSV that names it} of those in `missing`.
    faults: Sentences, each on something that stops a run.
    notes: Sentences on how folders or columns were read where that isn't plain.
    warnings: Sentences, each on something that doesn't stop a run but may be a mistake.
  """

  root: pathlib.Path
  entries: tuple[Entry, ...]
  empty: tuple[str, ...] = ()
  unclassified: tuple[str, ...] = ()
  ignored: tuple[str, ...] = ()
  missing: tuple[str, ...] = ()
  faults: tuple[str, ...] = ()
  notes: tuple[str, ...] = ()
  warnings: tuple[str, ...] = ()
  csv: pathlib.Path | None = None
  lines: Mapping[str, int] = dataclasses.field(default_factory=dict)

  @property
  def source(self) -> pathlib.Path:
    """The folder or CSV that was read."""
    return self.csv or self.root

  def missing_with_line(self) -> str:
    """Returns the first of the missing files, and the line of the CSV that names the first."""
    first = "line" if len(self.missing) == 1 else "the first in line"
    return f"{phrases.some(self.missing)} ({first} {self.lines[self.missing[0]]})"


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
