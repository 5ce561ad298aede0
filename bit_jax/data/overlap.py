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

  def marks(self, indices: np.ndarray) -> np.ndarray:
    """Returns [M] int64 for the images at `indices`, equal for images of equal content."""

  def content(self, index: int) -> bytes | None:
    """Returns a digest of an image's content; None if it can't be read."""


class Part(NamedTuple):
  """A part of a data set.

  Attributes:
    source: All of its examples.
    used: [M] integer indices of those that a run uses.
    labels: [M] their labels.
    paths: M paths of the user's own files; None for arrays.
  """

  source: Comparable
  used: np.ndarray
  labels: np.ndarray
  paths: Sequence[str] | None


def warnings(parts: Mapping[str, Part]) -> list[str]:
  """Returns a sentence on each two parts that have images in common.

  Files are compared byte by byte, arrays pixel by pixel. Only images with equal marks are read.

  Args:
    parts: {'training', 'test' or 'validation': part}.
  """
  digests = _digests(parts)
  pairs = (pair for pair in _PAIRS if pair[0] in parts and pair[1] in parts)
  return [text for pair in pairs for text in _common(parts, digests, *pair)]


def _digests(parts: Mapping[str, Part]) -> dict[str, dict[int, bytes]]:
  """Returns {part: {place in it: digest}} of the images whose mark occurs in another part too."""
  marks = {name: part.source.marks(part.used) for name, part in parts.items()}
  places: list[tuple[str, int]] = []
  for name, found in marks.items():
    elsewhere = [m for other, m in marks.items() if other != name]
    shared = np.any([_among(found, others) for others in elsewhere], axis=0)
    places += ((name, place) for place in np.flatnonzero(shared).tolist())

  def digest(where: tuple[str, int]) -> bytes | None:
    part = parts[where[0]]
    return part.source.content(int(part.used[where[1]]))

  digests: dict[str, dict[int, bytes]] = {name: {} for name in parts}
  contents = stream.in_threads(digest, places, "Comparing the parts")
  for (name, place), content in zip(places, contents, strict=True):
    if content is not None:
      digests[name][place] = content
  return digests


def _among(values: np.ndarray, others: np.ndarray) -> np.ndarray:
  """Returns `np.isin` of two arrays that aren't empty, 4 times as fast for a million of each."""
  others = np.sort(others)
  places = np.searchsorted(others, values).clip(max=len(others) - 1)
  found: np.ndarray = others[places] == values
  return found


def _common(
  parts: Mapping[str, Part],
  digests: Mapping[str, Mapping[int, bytes]],
  name: str,
  other: str,
  so: str,
) -> Iterator[str]:
  """Yields a sentence if a part has images of another one."""
  part, seen = parts[name], parts[other]
  places: dict[bytes, list[int]] = defaultdict(list)  # in the other part
  for place, content in digests[other].items():
    places[content].append(place)
  copies = {p: places[content] for p, content in digests[name].items() if content in places}
  if not copies:
    return
  labels = seen.labels.tolist()
  differing = sum(
    any(labels[other_place] != label for other_place in copies[p])
    for p, label in enumerate(part.labels.tolist())
    if p in copies
  )
  total = len(part.used)
  is_all = len(copies) == total
  count = f"All {total:,}" if is_all else f"{len(copies):,} of {total:,}"
  example = conflict = ""
  if part.paths and seen.paths:
    place, others = next(iter(copies.items()))
    example = f" (such as {part.paths[place]}, which is {seen.paths[others[0]]})"
  if differing:
    conflict = f", {differing:,} of them with another label there"
  if is_all and other == _TRAINING and name == _TEST:
    so = "the accuracy says nothing about new images"
  yield f"{count} {name} images are also among the {other} images{example}{conflict}: {so}."
