"""From the description of a data set to the examples of a run.

What is to be left out is left out, the few-shot subset is chosen, and each part is decoded into
memory if it fits there; otherwise it stays where it is, to be streamed.
"""

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np

from bit_jax.data import choosing, datasets, decoded, opening, stream
from bit_jax.data.sources import arrays
from bit_jax.runtime import cache, errors


@dataclasses.dataclass(frozen=True)
class Part:
  """The examples that a run is trained on, or those that it is scored on.

  Attributes:
    source: All of them, one by one.
    size: Side in pixels of the square that images are resized to on the host; None: they keep
      their native size, which is the same for all.
    class_names: The names of the classes, in the order of their labels.
    examples: All of them, decoded, with images of that size; None if they are to be streamed.
    labels: [N] int32; None where they have not been read.
    window: Examples that an epoch permutes among each other; None: all of them (`order`).
  """

  source: stream.Source
  size: int | None
  class_names: tuple[str, ...]
  examples: arrays.Examples | None
  labels: np.ndarray | None
  window: int | None = None

  def __len__(self) -> int:
    """Returns N."""
    return len(self.source)

  def some(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns a few examples: images, [M, H, W, 3] uint8, and labels, [M] int32.

    Args:
      indices: [M] integer.
    """
    return next(stream.batches(self.source, [indices], self.size))


@dataclasses.dataclass(frozen=True)
class Loaded:
  """The data of a run.

  Attributes:
    train: What is trained on.
    test: What is scored.
    version: What identifies the data (`opening.Opened`).
    chosen: [M] int64 indices of the few-shot subset in the training split; None without one.
    left_out: How many images were left out for which reason.
    warnings: Sentences on what is otherwise than the description of the data set says, and on what
      may be a mistake in the data.
    origin: How the user's images were split (`opening.Opened`).
    listing: Which of the user's images are in which part (`opening.Opened`), or are 'left out' or,
      few-shot, 'not chosen'.
    caches: Sentences on the caches of decoded images.
    validation: What weights are chosen on, apart from both; None without such a part.
    chosen_on: What identifies it (`opening.Opened`).
  """

  train: Part
  test: Part
  version: str
  chosen: np.ndarray | None
  left_out: dict[str, int]
  warnings: list[str]
  origin: str | None
  listing: tuple[tuple[str, str, str], ...] | None
  caches: list[str]
  validation: Part | None = None
  chosen_on: str | None = None

  @property
  def during(self) -> Part:
    """What is evaluated during training: the validation part, or the test part without one."""
    return self.test if self.validation is None else self.validation


def load(spec: datasets.DatasetSpec, config: Any, memory: float = math.inf) -> Loaded:
  """Loads the data of a run.

  Args:
    spec: From `datasets.find`.
    config: Resolved: sizes, few-shot subset, and what is to be left out.
    memory: Bytes that decoded images may take; a part that takes more is streamed.

  Raises:
    UserError: The set isn't there or is faulty, an image can't be read, a class has too few, or it
      is a tfds set and TensorFlow isn't installed.
  """
  opened = opening.open_set(spec, config.data_dir)
  parts = _parts(spec, opened)
  warnings = [*_differences(spec, *parts), *opened.warnings]
  unchecked = opened.listing is not None  # arrays can be read, and so can what tfds prepared
  usable, left_out = {}, {}
  for name, source, _ in parts:
    usable[name], reasons = choosing.usable(source, name, config, unchecked)
    left_out.update(reasons)
  kept = usable["training"]
  if not opened.prepared:
    choosing.require_all_classes(opened.train.read_labels(), kept, opened.train.class_names)
  listing = _marked(opened.listing, "left out", parts, usable)
  chosen = None
  if config.shots is not None:
    chosen = kept = choosing.few_shot(opened.train, kept, config.shots, config.seed)
    everything = {name: np.arange(len(source)) for name, source, _ in parts}
    listing = _marked(listing, "not chosen", parts, {**everything, "training": chosen})
  train_size, test_size = host_sizes(spec, config)
  reader = _Reader(config, spec.image_size, memory, opened)
  train = reader.read(opened.train, kept, train_size, "training")
  validation = None
  if opened.val is not None:  # before the test set: it is evaluated more often
    validation = reader.read(opened.val, usable["validation"], test_size, "validation")
  test = reader.read(opened.test, usable["test"], test_size, "test")
  tried = len(train) + len(test) + (0 if validation is None else len(validation))
  choosing.require_readable(reader.unreadable, tried)
  if opened.shuffled and chosen is None:  # a subset is in the order of its classes
    train = dataclasses.replace(train, window=config.shuffle_window)
  return Loaded(
    train=train,
    test=test,
    version=opened.version,
    chosen=chosen,
    left_out=left_out,
    warnings=warnings,
    origin=opened.origin,
    listing=listing,
    caches=reader.caches,
    validation=validation,
    chosen_on=opened.chosen_on,
  )


_PartOfSet = tuple[str, opening.Source, int]  # name in messages, examples, the number expected


def _parts(spec: datasets.DatasetSpec, opened: opening.Opened) -> list[_PartOfSet]:
  """Returns the parts of a set in the order of its listing."""
  parts = [("training", opened.train, spec.num_train), ("test", opened.test, spec.num_test)]
  return parts if opened.val is None else [*parts, ("validation", opened.val, spec.num_val)]


@dataclasses.dataclass(frozen=True)
class LoadedTest:
  """What is scored, alone.

  Attributes:
    part: Its examples.
    version: What identifies the data (`opening.Opened`).
    left_out: How many images were left out for which reason.
    warnings: Sentences on what is otherwise than the description of the data set says, and on what
      may be a mistake in the data.
  """

  part: Part
  version: str
  left_out: dict[str, int]
  warnings: list[str]


def load_test(spec: datasets.DatasetSpec, config: Any, memory: float = math.inf) -> LoadedTest:
  """Loads what a run is scored on, and nothing of what it is trained on.

  Of a set that tfds prepared, the other splits needn't be there.

  Args:
    spec: From `datasets.find`.
    config: Resolved: the test images' size, and what is to be left out.
    memory: Bytes that decoded images may take; more are streamed.

  Raises:
    UserError: As `load` does.
  """
  spec = dataclasses.replace(spec, train_split=spec.test_split)
  opened = opening.open_set(spec, config.data_dir)
  warnings = _differences(spec, ("test", opened.test, spec.num_test))
  warnings += opened.warnings
  kept, left_out = choosing.usable(opened.test, "test", config, opened.listing is not None)
  reader = _Reader(config, spec.image_size, memory, opened)
  part = reader.read(opened.test, kept, host_sizes(spec, config)[1], "test")
  choosing.require_readable(reader.unreadable, len(part))
  return LoadedTest(part, opened.version, left_out, warnings)


def image_sizes(spec: datasets.DatasetSpec, config: Any) -> tuple[tuple[int, int], tuple[int, int]]:
  """Returns the (height, width) of training and of test images as the devices get them."""
  train, test = (
    spec.image_size if size is None else (size, size) for size in host_sizes(spec, config)
  )
  return train, test


def host_sizes(spec: datasets.DatasetSpec, config: Any) -> tuple[int | None, int | None]:
  """Returns the sizes to which training and test images are resized on the host.

  None where images stay as they are: those of one size that is not larger than what they are to
  become are resized on the device, in float32.
  """
  target = config.resize if config.random_crop else config.crop
  height, width = spec.image_size
  train, test = (
    None if spec.fixed_size and height * width <= size * size else size
    for size in (target, config.test_size)
  )
  return train, test


@runtime_checkable
class _Bulk(Protocol):
  """A source that reads all of itself faster than one by one."""

  def load(self, size: int | None) -> arrays.Examples:
    """Returns all examples, resized to a square of `size` pixels, or as they are."""


class _Reader:
  """Decodes parts into memory while there is room.

  Attributes:
    unreadable: Why images can't be read, each with its name.
    caches: Sentences on the caches of decoded images.
  """

  def __init__(self, config: Any, native: tuple[int, int], memory: float, opened: opening.Opened):
    """Takes the (height, width) of native images, the room there is, and the set."""
    self._config, self._native, self._memory = config, native, memory
    self._check = opened.listing is not None and config.on_bad_image == "stop"
    self._labels_at_hand = not opened.prepared
    self.unreadable: list[str] = []
    self.caches: list[str] = []

  def read(self, whole: opening.Source, indices: np.ndarray, size: int | None, name: str) -> Part:
    """Returns the examples of a set at `indices` as a part, in memory or to be streamed."""
    names, complete = whole.class_names, len(indices) == len(whole)
    shape = self._native if size is None else (size, size)
    need = len(indices) * shape[0] * shape[1] * 3
    streamed = need > self._memory
    source: stream.Source = whole
    if self._config.decoded_cache and (streamed or size is not None):
      source = self._cached(whole, shape, len(indices))
    if not complete:
      source = stream.Chosen(source, indices)
    if streamed:
      labels = whole.read_labels()[indices] if self._labels_at_hand else None
      if self._check:
        found = choosing.unreadable(whole, name)
        self.unreadable += [found[i] for i in indices.tolist() if i in found]
      return Part(source, size, names, None, labels)
    self._memory -= need
    examples = self._in_memory(source, size, names, name)
    return Part(examples, size, names, examples, examples.labels)

  def _in_memory(
    self, source: stream.Source, size: int | None, names: tuple[str, ...], part: str
  ) -> arrays.Examples:
    if isinstance(source, arrays.Examples) and size is None:
      return source
    if isinstance(source, _Bulk):
      return source.load(size)
    images, labels, unreadable = stream.gather(source, size, f"Reading the {part} images")
    self.unreadable += unreadable.values()
    return arrays.Examples(images, labels, names)

  def _cached(self, source: opening.Source, shape: tuple[int, int], count: int) -> stream.Source:
    """Returns the source behind a cache of decoded images, unless it is in memory already."""
    if isinstance(source, arrays.Examples):
      return source
    size = f"{shape[0]}x{shape[1]}"
    folder = cache.directory() / "decoded" / f"{source.fingerprint()[:32]}-{size}"
    cached = decoded.DecodedCache(source, shape, folder, count)
    self.caches.append(cached.describe())
    return cached


def _marked(
  listing: tuple[tuple[str, str, str], ...] | None,
  why: str,
  parts: Sequence[_PartOfSet],
  used: Mapping[str, np.ndarray],
) -> tuple[tuple[str, str, str], ...] | None:
  """Returns the listing with a reason in place of the part of images that are not used.

  Args:
    listing: As in `opening.Opened`.
    why: The reason; one that stands there already is kept.
    parts: In the order of the listing.
    used: Of each part, the indices of those that are.
  """
  if listing is None:
    return None
  lengths = [len(source) for _, source, _ in parts]
  starts = itertools.accumulate(lengths, initial=0)
  offsets = zip(parts, starts, strict=False)
  indices = {start + i for (name, _, _), start in offsets for i in used[name].tolist()}
  names = ("train", "test", "val")
  return tuple(
    (path, name, part if i in indices or part not in names else why)
    for i, (path, name, part) in enumerate(listing)
  )


def _differences(spec: datasets.DatasetSpec, *parts: _PartOfSet) -> list[str]:
  """Returns what is otherwise than the rule was told.

  Args:
    spec: What it was told.
    *parts: Name, examples and the number expected of each part that is used.

  Raises:
    UserError: The classes are not those that were expected.
  """
  found = len(parts[0][1].class_names)
  if found != spec.num_classes:
    raise errors.UserError(
      f"The data set {spec.name} holds {found:,} classes where {spec.num_classes:,} were expected: "
      f"it is another version, or has changed."
    )
  return [
    f"The data set {spec.name} holds {len(source):,} {part} images where {expected:,} were "
    f"expected: it is another version, or incomplete, and figures can't be compared with others."
    for part, source, expected in parts
    if len(source) != expected
  ]
