"""Features of images: the pre-logits of a network, kept in files while they are computed.

found = embedding.features(network, source)
found.values  # [M, F], of the images that can be read
"""

import collections
import contextlib
import dataclasses
import hashlib
import itertools
import json
import os
import pathlib
import shutil
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from typing import IO, Any

import numpy as np

from bit_jax.data import stream
from bit_jax.inference import embedded_images, outputs
from bit_jax.inference.networks import Network
from bit_jax.runtime import clock, errors, exits, files, phrases, stopping
from bit_jax.weights import npz

DTYPES = ("float32", "float16")
_VALUES, _PROGRESS, _LOCK = "features.bin", "progress.json", "lock"
_SAVED_EVERY = 5.0  # seconds; a process that is killed loses so much work


@dataclasses.dataclass(frozen=True)
class Features:
  """The features of the images of a source.

  Attributes:
    indices: [M] int64: the places of the images that can be read, ascending.
    values: [M, F] float32 or float16: their pre-logits, means of the last stage over all places.
      Of features that are kept in a folder, a read-only map of the file.
    unreadable: {index: reason} of the others.
  """

  indices: np.ndarray
  values: np.ndarray
  unreadable: dict[int, str]


def features(
  network: Network,
  source: stream.Source,
  *,
  batch_size: int = outputs.BATCH_SIZE,
  image_size: tuple[int, int] | None = None,
  dtype: str = "float32",
  folder: pathlib.Path | None = None,
  fingerprint: str = "",
  report: Callable[[int], object] = lambda _: None,
  say: Callable[[str], object] = lambda _: None,
) -> Features:
  """Returns the features of every image that can be read, over all devices.

  With a folder, they are kept there: a call that is interrupted continues in the next one, with the
  same result to the bit if the batch size and the devices are the same, and a call that is complete
  returns at once. Images that couldn't be read are tried again; the work continues at the first one
  that now can. If the weights, the images, or how they are computed have changed, it starts anew.

  Args:
    network: The network.
    source: N images.
    batch_size: Images at once over all devices; fewer if they don't fit.
    image_size: As in `outputs.Forward.run`.
    dtype: Of the result, one of `DTYPES`.
    folder: Where features are kept; created if needed.
    fingerprint: A text that changes with the images or their order; needed with a folder.
    report: Called with the number of images after each batch, first with those kept from before.
      It may raise an exception to stop; what is computed is kept.
    say: Gets sentences for the user.

  Raises:
    UserError: A device has too little memory, another process uses the folder, or a feature is not
      finite.
  """
  if folder is None:
    return _computed(_InMemory(dtype), network, source, batch_size, image_size, report)
  with _reserved(folder):
    return _kept_in(
      folder, network, source, batch_size, image_size, dtype, fingerprint, report, say
    )


@contextlib.contextmanager
def _reserved(folder: pathlib.Path) -> Iterator[None]:
  """Lets one process at a time use a folder of features.

  Raises:
    UserError: Another one uses it, or has just removed it.
  """

  def busy() -> None:
    raise errors.UserError(
      f"Another process is computing the features in {folder}: wait until it has ended."
    )

  with files.exclusive(folder / _LOCK, busy) as lock:
    try:
      is_there = os.path.samestat(os.fstat(lock.fileno()), os.stat(folder / _LOCK))
    except FileNotFoundError:
      is_there = False
    if not is_there:
      busy()
    yield


def _kept_in(
  folder: pathlib.Path,
  network: Network,
  source: stream.Source,
  batch_size: int,
  image_size: tuple[int, int] | None,
  dtype: str,
  fingerprint: str,
  report: Callable[[int], object],
  say: Callable[[str], object],
) -> Features:
  """Does what `features` does with a folder that is reserved for this process."""
  identity = {  # the names are part of a message: 'of another network'
    "version": 1,
    "network": network.sha256,
    "image size": (network.size, image_size),
    "precision": str(np.dtype(network.model.dtype)),
    "dtype": dtype,
    "number of images": len(source),
    "list of images": hashlib.sha256(fingerprint.encode("utf-8", "surrogateescape")).hexdigest(),
  }
  with _on_disk(folder, identity, network.model.architecture.num_features, say) as kept:
    kept.try_again(source)
    if 0 < kept.done < len(source):
      say(f"Continuing after {kept.done:,} of {len(source):,} images.")
    return _computed(kept, network, source, batch_size, image_size, report)


class _InMemory:
  """Features in memory.

  Attributes:
    dtype: Of the features.
    done: The first images that are done.
    unreadable: {index: reason} of those that can't be read; it may include later ones.
  """

  def __init__(self, dtype: str):
    self.done = 0
    self.unreadable: dict[int, str] = {}
    self.dtype = np.dtype(dtype)
    self._batches: list[np.ndarray] = []

  def add(self, values: np.ndarray, count: int) -> None:
    """Adds the features of the next `count` images: [b, F], b of which can be read."""
    self._batches.append(values)
    self.done += count

  def values(self, num_features: int) -> np.ndarray:
    """Returns all features, [M, F]."""
    return np.concatenate([np.zeros((0, num_features), self.dtype), *self._batches])


class _OnDisk:
  """Features in a folder; attributes as in `_InMemory`.

  The file of values may be ahead of the record of progress, never behind.
  """

  def __init__(
    self, folder: pathlib.Path, identity: Mapping[str, Any], num_features: int, file: IO[bytes]
  ):
    self.done = 0
    self.unreadable: dict[int, str] = {}
    self._folder, self._identity, self._file = folder, identity, file
    self.dtype = np.dtype(identity["dtype"])
    self._row, self._bytes = num_features * self.dtype.itemsize, 0
    self._saved = time.monotonic()

  def resume(self, progress: Mapping[str, Any]) -> bool:
    """Continues from a record of progress; returns False if the features don't go with it."""
    done, unreadable = progress["done"], progress["unreadable"]
    size = (done - len(unreadable)) * self._row
    if progress["bytes"] != size or os.fstat(self._file.fileno()).st_size < size:
      return False
    self.done, self._bytes = done, size
    self.unreadable.update((int(index), why) for index, why in unreadable.items())
    return True

  def cut(self) -> None:
    """Removes what the file holds beyond the features that are done."""
    self._file.truncate(self._bytes)

  def try_again(self, source: stream.Source) -> None:
    """Reads the unreadable images again, and goes back to the first that now can be read."""
    before = np.array(sorted(self.unreadable), np.int64)
    found = stream.unreadable(stream.Chosen(source, before), "Trying unreadable images again")
    self.unreadable.update((int(before[place]), why) for place, why in found.items())
    first = next((row for i, row in enumerate(before.tolist()) if i not in found), None)
    if first is not None:
      self.unreadable = {row: why for row, why in self.unreadable.items() if row < first}
      self.done, self._bytes = first, (first - len(self.unreadable)) * self._row
      self.cut()

  def add(self, values: np.ndarray, count: int) -> None:
    """Adds the features of the next `count` images: [b, F], b of which can be read."""
    self._file.write(np.ascontiguousarray(values).data)
    self._bytes += values.nbytes
    self.done += count
    if time.monotonic() > self._saved + _SAVED_EVERY:
      self.save()

  def save(self) -> None:
    """Records the progress, after the values are on the disk."""
    self._file.flush()
    files.sync(self._file)
    unreadable = {index: why for index, why in self.unreadable.copy().items() if index < self.done}
    record = {
      "identity": self._identity,
      "done": self.done,
      "bytes": self._bytes,
      "unreadable": unreadable,
    }
    with files.replacing(self._folder / _PROGRESS) as temporary:
      temporary.write_text(json.dumps(record))
    self._saved = time.monotonic()

  def values(self, num_features: int) -> np.ndarray:
    """Returns all features, [M, F]."""
    shape = (self._bytes // (num_features * self.dtype.itemsize), num_features)
    if not shape[0]:
      return np.zeros(shape, self.dtype)
    self._file.flush()
    return np.memmap(self._folder / _VALUES, self.dtype, "r", shape=shape)


@contextlib.contextmanager
def _on_disk(
  folder: pathlib.Path,
  identity: Mapping[str, Any],
  num_features: int,
  say: Callable[[str], object],
) -> Iterator[_OnDisk]:
  """Opens the features of a folder; their progress is recorded when the block ends or fails."""
  identity = json.loads(json.dumps(identity))  # as it is read back
  progress, path = _read_progress(folder), folder / _VALUES
  if progress is not None and progress["identity"] != identity:
    changed = next(n for n, value in identity.items() if progress["identity"].get(n) != value)
    say(f"The features in {folder} were computed with another {changed}: computing them again.")
    progress = None
  with path.open("ab") as file:
    kept = _OnDisk(folder, identity, num_features, file)
    if progress is not None and not kept.resume(progress):
      say(f"The features in {folder} are incomplete: computing them again.")
      progress = None
    if progress is None:
      (folder / _PROGRESS).unlink(missing_ok=True)
    kept.cut()
    try:
      yield kept
    finally:
      kept.save()


def _read_progress(folder: pathlib.Path) -> dict[str, Any] | None:
  """Returns the record of a folder; None without a valid one."""
  try:
    record = json.loads((folder / _PROGRESS).read_text())
  except (OSError, ValueError):
    return None
  match record:
    case {"identity": dict(), "done": int(done), "bytes": int(), "unreadable": dict(unreadable)}:
      is_valid = all(
        row.isdecimal() and int(row) < done and isinstance(why, str)
        for row, why in unreadable.items()
      )
      return record if is_valid else None
  return None


def _computed(
  kept: _InMemory | _OnDisk,
  network: Network,
  source: stream.Source,
  batch_size: int,
  image_size: tuple[int, int] | None,
  report: Callable[[int], object],
) -> Features:
  """Computes what isn't done, and returns all features."""
  report(kept.done)
  if kept.done < len(source):
    forward = outputs.Forward(network, batch_size)
    sent: collections.deque[int] = collections.deque()
    for batch in forward.run(
      source, kept.unreadable, image_size=image_size, first=kept.done, report=sent.append
    ):
      count = sent.popleft()
      kept.add(_converted(batch.features, kept.dtype), count)
      report(count)
  readable = np.ones(len(source), bool)
  readable[list(kept.unreadable)] = False
  values = kept.values(network.model.architecture.num_features)
  return Features(np.flatnonzero(readable), values, kept.unreadable)


def _converted(values: np.ndarray, dtype: np.dtype) -> np.ndarray:
  """Returns features in a dtype.

  Raises:
    UserError: One is not finite, or too large for it.
  """
  with np.errstate(over="ignore"):
    converted = values.astype(dtype)
  if not np.isfinite(converted).all():
    why = (
      "exceeds the range of float16: use float32"
      if np.isfinite(values).all()
      else ("is not finite: the weights are damaged, or overflow in the dtype of the computation")
    )
    raise errors.UserError(f"A feature {why}.")
  return converted


def write(
  path: pathlib.Path,
  network: Network,
  images: embedded_images.EmbeddedImages,
  *,
  batch_size: int,
  dtype: str,
) -> Features:
  """Computes the features of images and writes them to a file, with `save`.

  Progress, the pace and unreadable images are told on standard error. Ctrl-C and SIGTERM stop it
  after a batch; the next call continues there. Until the file is written, features are kept in a
  hidden folder beside it.

  Args:
    path: The file.
    network: The network.
    images: The images.
    batch_size: As in `features`.
    dtype: As in `features`.

  Raises:
    Interrupted: It was stopped.
    UserError: As in `features` and `save`.
  """
  folder = path.with_name(f".{path.name}.partial")
  with _reserved(folder):
    found = _with_progress(network, images, folder, batch_size, dtype)
    for reason in found.unreadable.values():
      print(reason, file=sys.stderr)
    save(path, network, found, images)
    # Another process that begins now gets a folder of its own.
    shutil.rmtree(folder.rename(folder.with_name(f"{folder.name}.{uuid.uuid4().hex}")))
  return found


def _with_progress(
  network: Network,
  images: embedded_images.EmbeddedImages,
  folder: pathlib.Path,
  batch_size: int,
  dtype: str,
) -> Features:
  total, done, pace = len(images.source), 0, clock.Pace()
  with stopping.StopRequest() as stop, stream.progress("Embedding", total) as bar:
    calls = itertools.count()

    def report(count: int) -> None:
      nonlocal done
      done += count
      bar.update(count)
      if next(calls):  # the first count is of images that were done before
        pace.add(count)
      if stop.requested:
        raise exits.Interrupted(
          f"Stopped after {done:,} of {total:,} images; the same command continues there."
        )

    found = _kept_in(
      folder,
      network,
      images.source,
      batch_size,
      images.image_size,
      dtype,
      images.fingerprint,
      report,
      say=lambda text: bar.write(text, file=sys.stderr),
    )
  print(pace, file=sys.stderr)
  return found


def save(
  path: pathlib.Path, network: Network, found: Features, images: embedded_images.EmbeddedImages
) -> None:
  """Writes features with the ids and labels of their images to an `.npz` file, in one step.

  It holds `features` [M, F], `ids` [M] and, of images with classes, `labels` [M] int32 and
  `class_names` [C]; of the network `checkpoint`, `sha256` and `size`. None is of Python objects.

  Args:
    path: The file.
    network: The network.
    found: The features.
    images: The images that they were computed of.

  Raises:
    UserError: There are no features, or the file can't be written.
  """
  if not len(found.indices):
    raise errors.UserError("None of the images can be read, so there are no features.")
  arrays = {"features": found.values, "ids": images.ids[found.indices]}
  if images.labels is not None:
    arrays["labels"] = images.labels[found.indices].astype(np.int32)
    arrays["class_names"] = np.array(images.class_names)
  described = {"checkpoint": network.name, "sha256": network.sha256, "size": network.size}
  arrays.update((name, np.array(value)) for name, value in described.items())
  npz.write(path, arrays)


def describe(found: Features, images: embedded_images.EmbeddedImages) -> str:
  """Returns what `save` writes, such as 'features (1,000 x 2,048, float32), ids'."""
  shape = " x ".join(f"{n:,}" for n in found.values.shape)
  count = phrases.counted(len(images.class_names), "class", "classes")
  labels = "" if images.labels is None else f", labels of {count}"
  return f"features ({shape}, {found.values.dtype}), ids{labels}"
