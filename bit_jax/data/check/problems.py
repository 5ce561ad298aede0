"""Problems of the user's own images, found before a run: every image is decoded once."""

import dataclasses
import hashlib
import pathlib
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from bit_jax.data import images, stream
from bit_jax.data.sources import folder, scan
from bit_jax.runtime import errors

# {kind of problem: its meaning}, in the order in which they are listed.
_SKIP = "; --config.on_bad_image=skip leaves them out"
STOPPING = {
  "missing": "listed in the CSV, but not found",
  "empty class": "folders without images",
  "unreadable": f"not an image, or a damaged header{_SKIP}",
  "damaged": f"truncated, or damaged after the header{_SKIP}",
}
DOUBTFUL = {
  "leak": "the same image in two parts, so an evaluated image is also trained on",
  "contradiction": "the same image with two labels",
  "duplicate": "the same image twice in one part",
  "small": "shorter side below a tenth of the median, or below 32 pixels and half the median",
  "elongated": "one side more than 4 times the other, unlike most images",
  "no class": "images outside the class folders, left out",
  "ignored": "files without the extension of an image, left out",
}
_SMALL, _ELONGATED = 32, 4


class Problem(NamedTuple):
  """A problem of one file or folder.

  Attributes:
    kind: A key of `STOPPING` or `DOUBTFUL`.
    path: Relative to the root.
    detail: More than the kind says, or ''.
  """

  kind: str
  path: str
  detail: str = ""


class Decoded(NamedTuple):
  """The result of decoding an image.

  Attributes:
    entry: The image; its part is that of protocol=final, or 'all' where a fault stops a run.
    size: (height, width) in pixels; None if it failed.
    reason: Why it failed, or ''.
    content: A digest of the file; b'' if it failed.
    pixels: A digest of the pixels; likewise.
  """

  entry: scan.Entry
  size: tuple[int, int] | None
  reason: str = ""
  content: bytes = b""
  pixels: bytes = b""


@dataclasses.dataclass(frozen=True)
class Report:
  """The result of a check.

  Attributes:
    found: The scan of the folder or CSV.
    decoded: One for each of its entries.
    counts: {part: {class: images}}; if the data has no parts, those of protocol=final.
    faults: Sentences on what stops a run, apart from `problems`.
    problems: All of them, by kind.
    split: The split of protocol=final; None if a fault stops a run.
  """

  found: scan.Scan
  decoded: list[Decoded]
  counts: dict[str, Counter[str]]
  faults: tuple[str, ...]
  problems: tuple[Problem, ...]
  split: folder.Folder | None

  @property
  def stops(self) -> bool:
    """Whether a run on these images would stop."""
    return bool(self.faults) or any(p.kind in STOPPING for p in self.problems)

  @property
  def warnings(self) -> tuple[str, ...]:
    """Sentences on possible mistakes in the data, apart from `problems`."""
    return self.split.warnings if self.split else tuple(self.found.warnings)

  @property
  def sizes(self) -> list[tuple[int, int]]:
    """(height, width) of all images that can be decoded."""
    return [d.size for d in self.decoded if d.size]

  @property
  def image_size(self) -> tuple[int, int] | None:
    """Median (height, width) in pixels; None if no image can be decoded."""
    if not self.sizes:
      return None
    height, width = np.median(np.array(self.sizes), axis=0)
    return int(height), int(width)


def check(found: scan.Scan) -> Report:
  """Decodes every image of a scan once and lists all problems, also those that would stop a run."""
  entries, faults, split = _split(found)
  counts: dict[str, Counter[str]] = defaultdict(Counter)
  for entry in entries:
    counts[entry.part][entry.label] += 1
  decoded = _decode_all(found.root, entries)
  return Report(found, decoded, dict(counts), faults, tuple(_problems(found, decoded)), split)


def _decode_all(root: pathlib.Path, entries: Sequence[scan.Entry]) -> list[Decoded]:
  def decode(entry: scan.Entry) -> Decoded:
    try:
      data = images.read(root / entry.path)
      pixels = images.decode(data)
    except images.Unreadable as e:
      return Decoded(entry, None, str(e))
    digest = hashlib.sha256(repr(pixels.shape).encode())
    digest.update(pixels.data)
    height, width, _ = pixels.shape
    return Decoded(entry, (height, width), "", hashlib.sha256(data).digest(), digest.digest())

  return list(stream.in_threads(decode, entries, "Decoding"))


def _split(found: scan.Scan) -> tuple[list[scan.Entry], tuple[str, ...], folder.Folder | None]:
  """Returns the entries with their parts, the faults and, without faults, the split of a run."""
  entries = [e._replace(part=e.part or "all") for e in found.entries]
  if found.missing and not entries:
    return entries, (), None
  whole = dataclasses.replace(found, empty=[], missing={})  # these are listed as problems
  if faults := scan.faults(whole):
    return entries, tuple(faults), None
  try:
    split = folder.split(whole, "final")
  except errors.UserError as e:
    return entries, (str(e),), None
  if any(e.part == "all" for e in entries):
    evaluated = set(split.test.paths)
    entries = [e._replace(part="test" if e.path in evaluated else "train") for e in entries]
  return entries, (), split


def _problems(found: scan.Scan, decoded: Sequence[Decoded]) -> list[Problem]:
  problems = [
    *(Problem("missing", path, f"line {line}") for path, line in found.missing.items()),
    *(Problem("empty class", p) for p in found.empty),
    *_broken(found, decoded),
    *_copies(decoded),
    *_odd_sizes(decoded),
    *(Problem("no class", p) for p in found.unclassified),
    *(Problem("ignored", p) for p in found.ignored),
  ]
  order = [*STOPPING, *DOUBTFUL]
  return sorted(problems, key=lambda p: (order.index(p.kind), p.path))


def _broken(found: scan.Scan, decoded: Sequence[Decoded]) -> Iterator[Problem]:
  for path, reason in ((d.entry.path, d.reason) for d in decoded if d.reason):
    try:
      images.size(found.root / path)
    except images.Unreadable:
      yield Problem("unreadable", path, reason)
    else:
      yield Problem("damaged", path, reason)


def _copies(decoded: Sequence[Decoded]) -> Iterator[Problem]:
  """Compares each image with the first of the same pixels, and with the first in another part."""
  groups: dict[bytes, list[Decoded]] = defaultdict(list)
  for image in decoded:
    if image.pixels:
      groups[image.pixels].append(image)
  for group in groups.values():
    # Training images first, so that evaluated images are listed as copies of them.
    first, *others = sorted(group, key=lambda d: (d.entry.part != "train", d.entry.path))
    in_part = {first.entry.part: first}  # the first of the group in each part,
    of_label = {first.entry.label: first.entry}  # and of each label
    for image in others:
      path, label, part = image.entry
      other = next((d for name, d in in_part.items() if name != part), first)
      differing = next((e for name, e in of_label.items() if name != label), None)
      in_part.setdefault(part, image)
      of_label.setdefault(label, image.entry)
      same = "bytes" if image.content == other.content else "pixels"
      kind = "leak" if other.entry.part != part else "duplicate"
      yield Problem(kind, path, f"same {same} as {other.entry.path}")
      if differing is not None:
        yield Problem("contradiction", path, f"{label}, but {differing.path} is {differing.label}")


def _odd_sizes(decoded: Sequence[Decoded]) -> Iterator[Problem]:
  sides = {d.entry.path: d.size for d in decoded if d.size}
  if not sides:
    return
  median = np.median([min(s) for s in sides.values()])
  ratio = np.median([max(s) / min(s) for s in sides.values()])
  for path, (height, width) in sides.items():
    shorter, detail = min(height, width), f"{height} x {width} pixels"
    if shorter < median / 10 or shorter < min(_SMALL, median / 2):
      yield Problem("small", path, detail)
    if max(height, width) > _ELONGATED * shorter and ratio <= _ELONGATED:
      yield Problem("elongated", path, detail)
