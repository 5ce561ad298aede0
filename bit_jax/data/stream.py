"""Streaming of images: read, decoded and resized in threads, ahead of the consumer."""

import collections
import itertools
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent import futures
from typing import Any, Protocol, TypeVar

import numpy as np
import tqdm

from bit_jax.data import resizing
from bit_jax.runtime import errors, machine

_BATCHES_AHEAD = 2
_IMAGES_AT_ONCE = 8
_IMAGES_AHEAD = 256  # outside of batches
_LISTED = 20  # unreadable images in a message

T = TypeVar("T")
R = TypeVar("R")


class Source(Protocol):
  """A labelled set with random access to its images, from several threads."""

  def __len__(self) -> int:
    """Returns the number of examples."""

  def read(self, index: int) -> tuple[np.ndarray, int]:
    """Returns an image, [h, w, 3] uint8, and its label.

    Raises:
      UserError: It can't be read; the message names it.
    """


class Chosen:
  """A subset of a source, itself a source."""

  def __init__(self, source: Source, indices: np.ndarray):
    """Takes the examples at `indices`, [M] integer, in that order."""
    self._source, self._indices = source, indices

  def __len__(self) -> int:
    """Returns M."""
    return len(self._indices)

  def read(self, index: int) -> tuple[np.ndarray, int]:
    """Returns an image, [h, w, 3] uint8, and its label."""
    return self._source.read(int(self._indices[index]))


def batches(
  source: Source, indices: Iterable[np.ndarray], size: int | None
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
  """Yields the examples of each array of indices, reading two arrays ahead.

  There is no state between batches, so a stream that starts in the middle of a run reads nothing
  that comes before.

  Args:
    source: The set.
    indices: Arrays [b] integer, one a batch; may be endless.
    size: Side in pixels of the square that images are resized to; None keeps their size, which must
      then be the same for all.

  Yields:
    images: [b, size, size, 3] uint8.
    labels: [b] int32.

  Raises:
    UserError: An image can't be read, or sizes differ and `size` is None.
  """
  arrays = iter(indices)
  first = next(arrays, None)
  if first is None:
    return

  def places() -> Iterator[tuple[_Batch, int, int]]:
    for array in itertools.chain([first], arrays):
      batch = _Batch(len(array), size)
      for place, index in enumerate(array.tolist()):
        yield batch, place, index

  def fill(where: tuple[_Batch, int, int]) -> _Batch:
    batch, place, index = where
    batch.put(place, *source.read(index))
    return batch

  filled = _in_order(fill, places(), _BATCHES_AHEAD * len(first))
  for batch in filled:
    for _ in itertools.islice(filled, len(batch.labels) - 1):
      pass  # the other images of the batch
    assert batch.images is not None
    yield batch.images, batch.labels


class _Batch:
  """The examples of a batch, filled in by several threads.

  Attributes:
    images: [b, h, w, 3] uint8; None before the first image.
    labels: [b] int32.
  """

  def __init__(self, count: int, size: int | None):
    """Takes the number of examples, and the size as in `batches`."""
    self.images: np.ndarray | None = None
    self.labels = np.empty(count, np.int32)
    self._size, self._lock = size, threading.Lock()

  def put(self, place: int, image: np.ndarray, label: int) -> None:
    """Resizes an example and stores it at its place.

    Raises:
      UserError: Its size differs from that of the others, and images keep their size.
    """
    shape = image.shape if self._size is None else (self._size, self._size, 3)
    with self._lock:
      if self.images is None:
        self.images = np.empty((len(self.labels), *shape), np.uint8)
      images = self.images
    if self._size is None:
      _require_shape(image, images)
      images[place] = image
    else:
      resizing.resize(image, self._size, out=images[place])
    self.labels[place] = label


def gather(
  source: Source, size: int | None, what: str
) -> tuple[np.ndarray, np.ndarray, dict[int, str]]:
  """Reads a whole set into memory, with a progress bar.

  Args:
    source: The set; at least one example.
    size: The size, as in `batches`.
    what: Text of the progress bar.

  Returns:
    images: [N, size, size, 3] uint8; undefined where an image can't be read.
    labels: [N] int32, 0 there.
    unreadable: {index: reason} of the images that can't be read.

  Raises:
    UserError: No image can be read, or sizes differ and `size` is None.
  """

  def attempt(index: int) -> tuple[np.ndarray, int] | errors.UserError:
    try:
      image, label = source.read(index)
    except errors.UserError as e:
      return e
    return (image if size is None else resizing.resize(image, size)), label

  images, labels = None, np.zeros(len(source), np.int32)
  unreadable = {}
  for index, example in enumerate(in_threads(attempt, range(len(source)), what)):
    if isinstance(example, errors.UserError):
      unreadable[index] = str(example)
      continue
    image, labels[index] = example
    if images is None:
      images = np.empty((len(source), *image.shape), np.uint8)
    _require_shape(image, images)
    images[index] = image
  require_some_readable(unreadable, len(source))
  assert images is not None
  return images, labels, unreadable


def unreadable(source: Source, what: str) -> dict[int, str]:
  """Reads a whole set once and returns {index: reason} of the images that can't be read."""

  def fault(index: int) -> str | None:
    try:
      source.read(index)
    except errors.UserError as e:
      return str(e)
    return None

  faults = in_threads(fault, range(len(source)), what)
  return {index: why for index, why in enumerate(faults) if why is not None}


def require_some_readable(unreadable: Mapping[int, str], total: int) -> None:
  """Raises a `UserError` if all images, 1 or more, are unreadable: {index: reason}."""
  if len(unreadable) == total:
    first = next(iter(unreadable.values()))
    raise errors.UserError(f"None of {total:,} images can be read: {first}")


def require_readable(reasons: Sequence[str], total: int, advice: str) -> None:
  """Checks that all images can be read.

  Args:
    reasons: Why images can't be, each with its name.
    total: Number of images.
    advice: The end of the message, after 'or leave them out'.

  Raises:
    UserError: There are reasons; the message lists them.
  """
  if not reasons:
    return
  listed = [f"  {reason}" for reason in reasons[:_LISTED]]
  if len(reasons) > _LISTED:
    listed.append(f"  and {len(reasons) - _LISTED} more")
  raise errors.UserError(
    f"{len(reasons)} of {total:,} images can't be read: repair or remove them, or leave them out "
    f"{advice}",
    *listed,
  )


def in_threads(function: Callable[[T], R], items: Sequence[T], what: str) -> Iterator[R]:
  """Yields `function(item)` for each image, in order, with a progress bar.

  Args:
    function: Called in threads.
    items: One for each image.
    what: Text of the progress bar.
  """
  return iter(progress(what, len(items), _in_order(function, items, _IMAGES_AHEAD)))


def progress(
  what: str, total: int, images: Iterable[Any] = (), *, hidden: bool = False
) -> "tqdm.tqdm[Any]":
  """Returns a progress bar, which is shown on a terminal only.

  Args:
    what: Its text.
    total: Number of images.
    images: What it iterates over; without any, it is updated by hand.
    hidden: Whether it isn't shown there either.
  """
  return tqdm.tqdm(images, what, total, unit=" images", disable=True if hidden else None)


def _require_shape(image: np.ndarray, images: np.ndarray) -> None:
  if image.shape != images.shape[1:]:
    raise errors.UserError(
      f"All images must have the same size, but {images.shape[1:]} and {image.shape} were found."
    )


def _in_order(function: Callable[[T], R], items: Iterable[T], ahead: int) -> Iterator[R]:
  """Yields `function(item)` in order, computed in threads up to `ahead` items in advance."""
  # A thread takes several items: waking a thread for each image would take a fifth of the time.
  count = max(1, min(_IMAGES_AT_ONCE, ahead // (4 * machine.usable_cores())))
  rest = iter(items)
  chunks = iter(lambda: list(itertools.islice(rest, count)), [])
  pool = futures.ThreadPoolExecutor(machine.usable_cores(), "images")
  pending: collections.deque[futures.Future[list[R]]] = collections.deque()
  try:
    for chunk in chunks:
      pending.append(pool.submit(lambda chunk: [function(item) for item in chunk], chunk))
      if len(pending) > ahead // count:
        yield from pending.popleft().result()
    while pending:
      yield from pending.popleft().result()
  finally:
    pool.shutdown(wait=False, cancel_futures=True)
