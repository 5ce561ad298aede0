"""Images read as they are needed: decoded and resized in threads, ahead of who waits for them."""

import collections
import itertools
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent import futures
from typing import Protocol, TypeVar

import numpy as np
import tqdm

from bit_jax.data import resizing
from bit_jax.runtime import errors, machine

_BATCHES_AHEAD = 2
_IMAGES_AT_ONCE = 8
_IMAGES_AHEAD = 256  # where there are no batches

T = TypeVar("T")
R = TypeVar("R")


class Source(Protocol):
  """A labelled set that can be read image by image, in any order and from several threads."""

  def __len__(self) -> int:
    """Returns the number of examples."""

  def read(self, index: int) -> tuple[np.ndarray, int]:
    """Returns an image, [h, w, 3] uint8, and its label.

    Raises:
      UserError: It can't be read; says which.
    """


class Chosen:
  """Some examples of a source; a source itself."""

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

  Nothing is remembered between batches, so a stream that starts in the middle of a run reads
  nothing of what comes before.

  Args:
    source: The set.
    indices: Arrays [b] integer, one a batch; may be endless.
    size: Side in pixels of the square that images are resized to; None leaves them as they are,
      and then all must be of one size.

  Yields:
    images: [b, size, size, 3] uint8.
    labels: [b] int32.

  Raises:
    UserError: An image can't be read, or has another size than the one before and `size` is None.
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
      pass  # its other images
    assert batch.images is not None
    yield batch.images, batch.labels


class _Batch:
  """The examples of a batch, put into place by several threads.

  Attributes:
    images: [b, h, w, 3] uint8; None before the first is there.
    labels: [b] int32.
  """

  def __init__(self, count: int, size: int | None):
    """Takes the number of examples, and the size as `batches` does."""
    self.images: np.ndarray | None = None
    self.labels = np.empty(count, np.int32)
    self._size, self._lock = size, threading.Lock()

  def put(self, place: int, image: np.ndarray, label: int) -> None:
    """Puts in an example, resized.

    Raises:
      UserError: Its size is not that of the others and there is none to resize it to.
    """
    images = self._allocated(image.shape if self._size is None else (self._size, self._size, 3))
    if self._size is None:
      _require_shape(image, images)
      images[place] = image
    else:
      resizing.resize(image, self._size, out=images[place])
    self.labels[place] = label

  def _allocated(self, shape: tuple[int, ...]) -> np.ndarray:
    with self._lock:
      if self.images is None:
        self.images = np.empty((len(self.labels), *shape), np.uint8)
      return self.images


def gather(
  source: Source, size: int | None, what: str
) -> tuple[np.ndarray, np.ndarray, dict[int, str]]:
  """Reads a whole set into memory, and shows the progress.

  Args:
    source: The set; at least one example.
    size: As in `batches`.
    what: What the progress bar says.

  Returns:
    images: [N, size, size, 3] uint8; undefined where an image can't be read.
    labels: [N] int32, 0 there.
    unreadable: {index: why} of the images that can't be read.

  Raises:
    UserError: No image at all can be read, or their sizes differ and `size` is None.
  """
  images, labels = None, np.zeros(len(source), np.int32)
  unreadable = {}
  for index, example in enumerate(_outcomes(source, size, what)):
    if isinstance(example, errors.UserError):
      unreadable[index] = str(example)
      continue
    image, labels[index] = example
    if images is None:
      images = np.empty((len(source), *image.shape), np.uint8)
    _require_shape(image, images)
    images[index] = image
  if images is None:
    raise errors.UserError(f"None of {len(source)} images can be read: {unreadable[0]}")
  return images, labels, unreadable


def unreadable(source: Source, what: str) -> dict[int, str]:
  """Reads a whole set once and returns {index: why} of the images that can't be read."""

  def fault(index: int) -> str | None:
    try:
      source.read(index)
    except errors.UserError as e:
      return str(e)
    return None

  faults = in_threads(fault, range(len(source)), what)
  return {index: why for index, why in enumerate(faults) if why is not None}


def in_threads(function: Callable[[T], R], items: Sequence[T], what: str) -> Iterator[R]:
  """Yields `function(item)` of one image after another, in their order, and shows the progress.

  Args:
    function: Called in threads.
    items: One for each image.
    what: What the progress bar says.
  """
  return iter(
    tqdm.tqdm(
      _in_order(function, items, _IMAGES_AHEAD),
      total=len(items),
      desc=what,
      unit=" images",
      disable=not sys.stderr.isatty(),
    )
  )


def _outcomes(
  source: Source, size: int | None, what: str
) -> Iterator[tuple[np.ndarray, int] | errors.UserError]:
  """Yields each example of a set, or the error in its place."""

  def attempt(index: int) -> tuple[np.ndarray, int] | errors.UserError:
    try:
      return _read(source, index, size)
    except errors.UserError as e:
      return e

  return in_threads(attempt, range(len(source)), what)


def _read(source: Source, index: int, size: int | None) -> tuple[np.ndarray, int]:
  image, label = source.read(index)
  return (image if size is None else resizing.resize(image, size)), label


def _require_shape(image: np.ndarray, images: np.ndarray) -> None:
  if image.shape != images.shape[1:]:
    raise errors.UserError(
      f"The images differ in size ({images.shape[1:]}, {image.shape}) where all should be of one."
    )


def _in_order(function: Callable[[T], R], items: Iterable[T], ahead: int) -> Iterator[R]:
  """Yields `function(item)` in the order of the items, computed in threads, `ahead` of its use."""
  # A thread takes several: waking another one for each image would take a fifth of the time.
  count = max(1, min(_IMAGES_AT_ONCE, ahead // (4 * machine.usable_cores())))
  rest = iter(items)
  chunks = iter(lambda: list(itertools.islice(rest, count)), [])
  pool = futures.ThreadPoolExecutor(machine.usable_cores(), "images")
  pending: collections.deque[futures.Future[tuple[list[R], Exception | None]]] = collections.deque()
  try:
    for chunk in chunks:
      pending.append(pool.submit(_through, function, chunk))
      if len(pending) > ahead // count:
        yield from _results(pending.popleft())
    while pending:
      yield from _results(pending.popleft())
  finally:
    pool.shutdown(wait=False, cancel_futures=True)


def _through(function: Callable[[T], R], items: list[T]) -> tuple[list[R], Exception | None]:
  """Returns the results until an error, and the error."""
  results: list[R] = []
  try:
    for item in items:
      results.append(function(item))
  except Exception as e:  # to be raised when it is that item's turn
    return results, e
  return results, None


def _results(future: futures.Future[tuple[list[R], Exception | None]]) -> Iterator[R]:
  results, error = future.result()
  yield from results
  if error is not None:
    raise error
