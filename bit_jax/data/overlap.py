"""Images that are in two parts of a data set, whose accuracy then says too little of new images."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np

from bit_jax.data import stream

_TRAINING, _VALIDATION, _TEST = "training", "validation", "test"  # names of parts
# (part, another one, what it means that images are in both)
_PAIRS = (
  (_TEST, _TRAINING, "the accuracy is higher than on new images"),
  (_VALIDATION, _TRAINING, "weights are chosen on images that the network is trained on"),
  (_VALIDATION, _TEST, "weights are chosen on images whose accuracy is reported"),
)


@runtime_checkable
class Comparable(Protocol):
  """A source whose images can be compared without decoding all of them."""

  def read_labels(self) -> np.ndarray:
    """Returns all labels, [N] int32."""

  def marks(self, indices: np.ndarray) -> np.ndarray:
    """Returns [M] int64 for the images at `indices`, equal for images of equal content."""

  def content(self, index: int) -> bytes | None:
    """Returns a digest of an image's content; None if it can't be read."""


class Part(NamedTuple):
  """A part of a data set.

  Attributes:
    source: All of its examples.
    used: [M] integer indices of those that a run uses.
  """

  source: Comparable
  used: np.ndarray

  @property
  def labels(self) -> np.ndarray:
    """Their labels, [M] int32."""
    found: np.ndarray = self.source.read_labels()[self.used]
    return found

  def path(self, place: int) -> str | None:
    """Returns the path of one of them; None of arrays."""
    paths: Sequence[str] | None = getattr(self.source, "paths", None)
    return None if paths is None else paths[int(self.used[place])]


def warnings(parts: Mapping[str, Part]) -> list[str]:
  """Returns a sentence on each two parts of a data set that have images in common.

  Args:
    parts: {'training', 'test' or 'validation': part}.
  """
  pairs = (pair for pair in _PAIRS if pair[0] in parts and pair[1] in parts)
  return [text for pair in pairs for text in _sentences(parts, *pair)]


def copies(part: Part, other: Part) -> dict[int, list[int]]:
  """Returns {place in a part: places of the same image in another one}, of images in both.

  Files are compared byte by byte, arrays pixel by pixel. Only images with equal marks are read.

  Args:
    part: A part.
    other: Another one.
  """
  both = part, other
  if not all(len(each.used) for each in both):
    return {}
  marks = [each.source.marks(each.used) for each in both]
  shared = _among(*marks), _among(*reversed(marks))
  where = [(i, place) for i in (0, 1) for place in np.flatnonzero(shared[i]).tolist()]

  def digest(of: tuple[int, int]) -> bytes | None:
    source, used = both[of[0]][:2]
    return source.content(int(used[of[1]]))

  found: tuple[dict[bytes, list[int]], dict[bytes, list[int]]] = (
    defaultdict(list),
    defaultdict(list),
  )
  contents = stream.in_threads(digest, where, "Comparing images")
  for (i, place), content in zip(where, contents, strict=True):
    if content is not None:
      found[i][content].append(place)
  return {p: found[1][c] for c, places in found[0].items() if c in found[1] for p in places}


def _among(values: np.ndarray, others: np.ndarray) -> np.ndarray:
  """Returns `np.isin` of two arrays that aren't empty, 4 times as fast for a million of each."""
  others = np.sort(others)
  places = np.searchsorted(others, values).clip(max=len(others) - 1)
  found: np.ndarray = others[places] == values
  return found


def _sentences(parts: Mapping[str, Part], name: str, other: str, so: str) -> Iterator[str]:
  """Yields a sentence if a part has images of another one."""
  part, seen = parts[name], parts[other]
  found = copies(part, seen)
  if not found:
    return
  labels, theirs = part.labels, seen.labels
  differing = sum((theirs[others] != labels[p]).any() for p, others in found.items())
  is_all = len(found) == len(part.used)
  count = f"All {len(found):,}" if is_all else f"{len(found):,} of {len(part.used):,}"
  example = conflict = ""
  place = min(found)
  if path := part.path(place):
    example = f" (such as {path}, which is {seen.path(found[place][0])})"
  if differing:
    conflict = f", {differing:,} of them with another label there"
  if is_all and (name, other) == (_TEST, _TRAINING):
    so = "the accuracy says nothing about new images"
  yield f"{count} {name} images are also among the {other} images{example}{conflict}: {so}."
