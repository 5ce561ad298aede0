"""From an opened data set to the examples of a run: leave out, choose, decode or stream.

Images that a run doesn't use are left out, the few-shot subset is chosen, and each part is decoded
into memory if it fits there; otherwise it is streamed. `inference.feeds` takes it from there.
"""

import contextlib
import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

import numpy as np

from bit_jax.data import datasets, decoded, doubts, fewshot, opening, resizing, stream
from bit_jax.data.sources import arrays
from bit_jax.runtime import cache, errors, phrases

_MANY = 100_000  # labels whose reading takes a while


@dataclasses.dataclass(frozen=True)
class Part:
  """The training or the evaluated examples of a run.

  Attributes:
    source: All of them, one by one.
    size: Side in pixels of the square that images are resized to on the host; None: they keep
      their native size, which is the same for all.
    class_names: The names of the classes, in the order of their labels.
    examples: All of them, decoded, with images of that size; None if they are streamed.
    labels: [N] int32; None where they have not been read.
    window: Examples that an epoch permutes together; None: all of them (`order`).
    originals: The same examples before the host resizes them; None: they keep their native size.
  """

  source: stream.Source
  size: int | None
  class_names: tuple[str, ...]
  examples: arrays.Examples | None
  labels: np.ndarray | None
  window: int | None = None
  originals: stream.Source | None = None

  def __len__(self) -> int:
    """Returns N."""
    return len(self.source)

  def some(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns a few examples: images, [M, H, W, 3] uint8, and labels, [M] int32.

    Args:
      indices: [M] integer.
    """
    return next(stream.batches(self.source, [indices], self.size))

  def to_look_at(self, indices: np.ndarray, side: int) -> np.ndarray:
    """Returns a few examples as a viewer should see them, [M, H, W, 3] uint8.

    Those that the host resizes are read again and fitted into white squares, their shape kept.

    Args:
      indices: [M] integer, M at least 1.
      side: Of these squares, in pixels.
    """
    if self.originals is None:
      return self.some(indices)[0]
    source = self.originals
    return np.stack([resizing.contain(source.read(i)[0], side) for i in indices.tolist()])


@dataclasses.dataclass(frozen=True)
class Loaded:
  """The data of a run.

  Attributes:
    train: The training examples.
    test: The evaluated examples.
    version: What identifies the data (`opening.Sources`).
    left_out: How many images were left out for which reason.
    warnings: Sentences on differences from the facts of the data set, and on possible mistakes in
      the data.
    chosen: [M] int64 indices of the few-shot subset in the training split; None without one.
    origin: How the user's images were split (`opening.Opened`).
    listing: The part of each of the user's images (`opening.Sources`), or 'left out' or, few-shot,
      'not chosen'.
    caches: Sentences on the caches of decoded images.
    validation: The examples on which weights are chosen, apart from both; None without such a part.
    chosen_on: What identifies it (`opening.Sources`).
    content: What identifies the content of image files (`opening.Sources`).
  """

  train: Part
  test: Part
  version: str
  left_out: dict[str, int]
  warnings: list[str]
  chosen: np.ndarray | None = None
  origin: str | None = None
  listing: opening.Listing | None = None
  caches: Sequence[str] = ()
  validation: Part | None = None
  chosen_on: str | None = None
  content: str | None = None

  @property
  def during(self) -> Part:
    """The part evaluated during training: validation, or the test part without one."""
    return self.test if self.validation is None else self.validation

  def paths(self, part: str) -> list[str] | None:
    """Returns the paths of the user's images in the order of a part; None for other sets.

    Args:
      part: 'train', 'test' or 'val'.
    """
    if self.listing is None:
      return None
    if part == "train" and self.chosen is not None:  # in the order of the subset
      return [self.listing[i][0] for i in self.chosen.tolist()]
    return [path for path, _, used_in in self.listing if used_in == part]


@dataclasses.dataclass(frozen=True)
class LoadedPart:
  """One part of a data set, to evaluate a network on.

  Attributes:
    part: Its examples.
    image_size: (height, width) that they have on the devices before they are resized there.
    version: What identifies the data (`opening.Sources`).
    left_out: How many images were left out for which reason.
    warnings: Sentences on differences from the facts of the data set, and on possible mistakes in
      the data.
    paths: N paths of the user's own images; None for other sets.
  """

  part: Part
  image_size: tuple[int, int]
  version: str
  left_out: dict[str, int]
  warnings: list[str]
  paths: list[str] | None


def load(data: opening.Opened, selection: datasets.Selection, memory: float = math.inf) -> Loaded:
  """Loads the data of a run.

  Args:
    data: The data set.
    selection: Which examples are used, and at which size.
    memory: Bytes that decoded images may take; a part that takes more is streamed.

  Raises:
    UserError: The set doesn't exist or is faulty, an image can't be read, a class has too few, or
      it is a tfds set and TensorFlow isn't installed.
  """
  sources, spec = data.sources(), data.spec
  found = {"training": sources.train, "test": sources.test, "validation": sources.val}
  wholes = {name: whole for name, whole in found.items() if whole is not None}
  warnings = [*_differences(spec, wholes), *data.warnings]
  kept, left_out = {}, {}
  for name, whole in wholes.items():
    kept[name], reasons = usable(whole, name, selection, _unchecked(sources))
    left_out.update(reasons)
  if not sources.prepared:
    _require_all_classes(sources.train, kept["training"])
  chosen = _few(sources.train, kept["training"], selection)
  used = kept if chosen is None else {**kept, "training": chosen}
  reader = _Reader(spec, sources, selection, memory)
  parts = {}
  for name in ("training", "validation", "test"):  # the test set is evaluated least often
    if name in wholes:
      side = selection.train_size if name == "training" else selection.test_size
      parts[name] = reader.read(name, wholes[name], used[name], side)
  reader.require_readable()
  warnings += doubts.warnings(wholes, used)
  train = parts["training"]
  if sources.shuffled and chosen is None:  # a subset is in the order of its classes
    train = dataclasses.replace(train, window=selection.shuffle_window)
  return Loaded(
    train=train,
    test=parts["test"],
    version=sources.version,
    left_out=left_out,
    warnings=warnings,
    chosen=chosen,
    origin=data.origin,
    listing=_marked(sources.listing, wholes, kept, used) if sources.listing else None,
    caches=reader.caches,
    validation=parts.get("validation"),
    chosen_on=sources.chosen_on,
    content=sources.content,
  )


@dataclasses.dataclass(frozen=True)
class ChosenPart:
  """The examples of one part of a data set that are used; no image is decoded yet.

  Attributes:
    name: Its name in messages, such as 'training'.
    sources: The parts of the data set.
    whole: All examples of the part.
    used: [N] int64 indices of those that are used.
    left_out: How many images were left out for which reason.
    warnings: As in `LoadedPart`.
    paths: As in `LoadedPart`.
  """

  name: str
  sources: opening.Sources
  whole: opening.Source
  used: np.ndarray
  left_out: dict[str, int]
  warnings: list[str]
  paths: list[str] | None


def choose_part(
  data: opening.Opened, selection: datasets.Selection, part: str = "test"
) -> ChosenPart:
  """Chooses the examples of one part of a data set, the same as `load` uses, in the same order.

  Of a set that tfds prepared, the other splits needn't exist for 'test'.

  Args:
    data: The data set.
    selection: Which examples are used.
    part: 'test', 'train' or 'val'.

  Raises:
    UserError: As `load`; or the data set has no validation part.
  """
  sources, spec = data.sources(test_only=part == "test"), data.spec
  name = {"train": "training", "val": "validation"}.get(part, part)
  whole = {"training": sources.train, "test": sources.test, "validation": sources.val}[name]
  if whole is None:
    raise errors.UserError(f"The data set {spec.name} has no validation part.")
  used, left_out = usable(whole, name, selection, _unchecked(sources))
  chosen = _few(whole, used, selection) if part == "train" else None
  used = used if chosen is None else chosen
  paths = [path for path, _, listed_in in sources.listing or () if listed_in == part]
  return ChosenPart(
    name=name,
    sources=sources,
    whole=whole,
    used=used,
    left_out=left_out,
    warnings=[*_differences(spec, {name: whole}), *data.warnings, *doubts.darkness(name, whole)],
    paths=[paths[i] for i in used.tolist()] if sources.listing is not None else None,
  )


def load_part(
  data: opening.Opened,
  selection: datasets.Selection,
  part: str = "test",
  memory: float = math.inf,
) -> LoadedPart:
  """Loads one part of a data set, prepared as evaluated images are; no other image is read.

  Args:
    data: The data set.
    selection: Which examples are used, and at which size.
    part: 'test', 'train' or 'val', as in `choose_part`.
    memory: Bytes that decoded images may take; a part that takes more is streamed.

  Raises:
    UserError: As `load`; or the data set has no validation part.
  """
  chosen = choose_part(data, selection, part)
  reader = _Reader(data.spec, chosen.sources, selection, memory)
  read = reader.read(chosen.name, chosen.whole, chosen.used, selection.test_size)
  reader.require_readable()
  return _loaded(data, selection, chosen, read)


def load_readable(
  data: opening.Opened,
  selection: datasets.Selection,
  part: str = "test",
  memory: float = math.inf,
) -> tuple[LoadedPart, list[str]]:
  """Loads the images of one part that can be read; decodes each once where all fit in memory.

  Args:
    data: The user's own image files.
    selection: Which of them are used, and at which size, whatever its `on_bad_image` is.
    part: As in `load_part`.
    memory: As in `load_part`.

  Returns:
    The images, and why others can't be read, each with its name.

  Raises:
    UserError: As `load_part`; or none can be read.
  """
  # They are found as they are decoded, not by a pass of its own.
  selection = dataclasses.replace(selection, on_bad_image="stop")
  chosen = choose_part(data, selection, part)
  reader = _Reader(data.spec, chosen.sources, selection, memory)
  read = reader.read(chosen.name, chosen.whole, chosen.used, selection.test_size)
  bad = reader.unreadable.get(chosen.name, {})
  stream.require_some_readable(bad, len(read))
  if bad:
    kept = np.setdiff1d(np.arange(len(read)), list(bad))
    left_out = {**chosen.left_out, f"unreadable {chosen.name} images": len(bad)}
    paths = None if chosen.paths is None else [chosen.paths[i] for i in kept.tolist()]
    chosen = dataclasses.replace(chosen, used=chosen.used[kept], left_out=left_out, paths=paths)
    read = _some_of(read, kept)
  return _loaded(data, selection, chosen, read), list(bad.values())


def _some_of(part: Part, kept: np.ndarray) -> Part:
  """Returns a part with some of its examples, [M] ascending; decoded ones are moved within it."""
  examples = part.examples
  if examples is not None:
    for place, row in enumerate(kept.tolist()):  # there may be no room for a copy
      if place != row:
        examples.images[place] = examples.images[row]
    images, labels = examples.images[: len(kept)], examples.labels[kept]
    examples = arrays.Examples(images, labels, examples.class_names)
  originals = None if part.originals is None else stream.Chosen(part.originals, kept)
  return dataclasses.replace(
    part,
    source=stream.Chosen(part.source, kept) if examples is None else examples,
    examples=examples,
    labels=None if part.labels is None else part.labels[kept],
    originals=originals,
  )


def _loaded(
  data: opening.Opened, selection: datasets.Selection, chosen: ChosenPart, read: Part
) -> LoadedPart:
  return LoadedPart(
    part=read,
    image_size=data.spec.device_size(selection.test_size),
    version=chosen.sources.version,
    left_out=chosen.left_out,
    warnings=chosen.warnings,
    paths=chosen.paths,
  )


def _unchecked(sources: opening.Sources) -> bool:
  """Returns whether images may be unreadable: arrays can be read, and so can what tfds prepared."""
  return sources.listing is not None


def _few(
  train: opening.Source, usable: np.ndarray, selection: datasets.Selection
) -> np.ndarray | None:
  """Returns the indices of the few-shot subset among usable training examples, None without one."""
  if selection.shots is None:
    return None
  labels = read_labels(train)[usable]
  chosen = fewshot.select(labels, selection.shots, selection.seed, train.class_names)
  return np.asarray(usable[chosen])


def usable(
  source: opening.Source, part: str, selection: datasets.Selection, unchecked: bool
) -> tuple[np.ndarray, dict[str, int]]:
  """Returns the examples that are not left out.

  Args:
    source: A part of a data set.
    part: Its name in messages: 'training' or 'test'.
    selection: With `min_side`, `max_aspect` and `on_bad_image`.
    unchecked: Whether images may be unreadable.

  Returns:
    Their indices, ascending int64, and how many were left out for which reason.

  Raises:
    UserError: There is none, or none is left.
  """
  if not len(source):
    raise errors.UserError(f"There are no {part} images: choose another split, or add images.")
  keep, reasons = np.ones(len(source), bool), {}
  if selection.min_side or selection.max_aspect:
    sizes = source.read_sizes()
    shorter, longer = sizes.min(axis=1), sizes.max(axis=1)
    keep = shorter >= selection.min_side
    if selection.max_aspect:
      keep &= longer <= selection.max_aspect * shorter
    keep |= shorter < 0  # of unknown size
    reasons[f"{part} images of odd size"] = int(np.sum(~keep))
  if unchecked and selection.on_bad_image == "skip":
    bad = np.isin(np.arange(len(source)), list(unreadable(source, part)))
    reasons[f"unreadable {part} images"] = int(np.sum(bad & keep))
    keep &= ~bad
  if not keep.any():
    counted = ", ".join(f"{n} {why}" for why, n in reasons.items())
    raise errors.UserError(
      f"All {len(source)} {part} images are left out ({counted}): relax min_side, max_aspect or "
      f"on_bad_image."
    )
  return np.flatnonzero(keep), {why: n for why, n in reasons.items() if n}


def _require_all_classes(source: opening.Source, usable: np.ndarray) -> None:
  """Raises a `UserError` if all training examples of a class were left out."""
  labels = source.read_labels()
  gone = np.setdiff1d(labels, labels[usable])
  if len(gone):
    names = phrases.some([source.class_names[c] for c in gone])
    raise errors.UserError(
      f"All training images of {names} were excluded: repair the images, relax min_side, "
      f"max_aspect or on_bad_image, or remove the class."
    )


def read_labels(source: opening.Source) -> np.ndarray:
  """Returns all labels, [N] int32; those of a large set take minutes to read and are cached."""
  if len(source) < _MANY:
    return source.read_labels()
  record = f"{source.fingerprint()}.int32"
  with contextlib.suppress(OSError, ValueError):
    labels = np.frombuffer(cache.recall("labels", record), np.int32)
    if len(labels) == len(source):
      return labels
  labels = source.read_labels()
  cache.remember("labels", record, labels.tobytes())
  return labels


def unreadable(source: opening.Source, part: str) -> dict[int, str]:
  """Returns {index: why} of all unreadable images; decodes each once and caches the outcome.

  Images that were unreadable before are tried again: a permission may have been missing.
  """
  record = f"{source.fingerprint()}.json"
  what = f"Checking the {part} images"
  with contextlib.suppress(OSError, ValueError, TypeError):
    before = np.array(json.loads(cache.recall("unreadable", record)), np.int64)
    again = stream.unreadable(stream.Chosen(source, before), what)
    return {int(before[i]): why for i, why in again.items()}
  found = stream.unreadable(source, what)
  cache.remember("unreadable", record, json.dumps(list(found)).encode())
  return found


@runtime_checkable
class _Bulk(Protocol):
  """A source that reads all examples at once faster than one by one."""

  def load(self, size: int | None) -> arrays.Examples:
    """Returns all examples, resized to a square of `size` pixels, or as they are."""


@dataclasses.dataclass
class _Reader:
  """Decodes parts into memory while there is room.

  Attributes:
    spec: The facts of the set.
    sources: Its parts.
    selection: Which examples are used.
    memory: Bytes that are free.
    tried: Number of examples in the parts so far.
    unreadable: {part: {place in it: why an image can't be read, with its name}}.
    caches: Sentences on the caches of decoded images.
  """

  spec: datasets.DatasetSpec
  sources: opening.Sources
  selection: datasets.Selection
  memory: float
  tried: int = 0
  unreadable: dict[str, dict[int, str]] = dataclasses.field(default_factory=dict)
  caches: list[str] = dataclasses.field(default_factory=list)

  def read(self, name: str, whole: opening.Source, indices: np.ndarray, side: int) -> Part:
    """Returns the examples of a set at `indices` as a part, in memory or to be streamed."""
    names, size, shape = whole.class_names, self.spec.host_size(side), self.spec.device_size(side)
    self.tried += len(indices)
    need = len(indices) * shape[0] * shape[1] * 3
    streamed = need > self.memory
    source: stream.Source = whole
    use_cache = self.selection.decoded_cache and (streamed or size is not None)
    if use_cache and not isinstance(whole, arrays.Examples):
      folder = cache.directory() / "decoded"
      folder /= f"{whole.fingerprint()[:32]}-{shape[0]}x{shape[1]}"
      try:
        source = decoded.DecodedCache(whole, shape, folder, len(indices))
        self.caches.append(source.describe())
      except errors.UserError as e:
        self.caches.append(f"warning: {e} This run decodes images each time.")
    if len(indices) < len(whole):
      source = stream.Chosen(source, indices)
    originals = None if size is None else stream.Chosen(whole, indices)
    if streamed:
      labels = None if self.sources.prepared else whole.read_labels()[indices]
      if self.sources.listing is not None and self.selection.on_bad_image == "stop":
        found = unreadable(whole, name)
        places = enumerate(indices.tolist())
        self.unreadable[name] = {place: found[i] for place, i in places if i in found}
      return Part(source, size, names, None, labels, originals=originals)
    self.memory -= need
    if isinstance(source, arrays.Examples) and size is None:
      examples = source
    elif isinstance(source, _Bulk):
      examples = source.load(size)
    else:
      images, labels, faults = stream.gather(source, size, f"Reading the {name} images")
      self.unreadable[name] = faults
      examples = arrays.Examples(images, labels, names)
    return Part(examples, size, names, examples, examples.labels, originals=originals)

  def require_readable(self) -> None:
    """Raises a `UserError` that lists the unreadable images, if there are any."""
    advice = "with --config.on_bad_image=skip. python -m bit_jax.data check lists all problems."
    reasons = [why for of_part in self.unreadable.values() for why in of_part.values()]
    stream.require_readable(reasons, self.tried, advice)


def _marked(
  listing: opening.Listing,
  wholes: Mapping[str, opening.Source],
  kept: Mapping[str, np.ndarray],
  used: Mapping[str, np.ndarray],
) -> opening.Listing:
  """Returns the listing with a reason in place of the part of unused images."""
  states: list[int] = []
  for name, whole in wholes.items():
    of_part = np.zeros(len(whole), int)
    of_part[kept[name]], of_part[used[name]] = 1, 2
    states += of_part.tolist()
  return tuple(
    (path, name, ("left out", "not chosen", part)[state])
    for (path, name, part), state in zip(listing, states, strict=True)
  )


def _differences(spec: datasets.DatasetSpec, parts: Mapping[str, opening.Source]) -> list[str]:
  """Returns how the data differ from the facts that the rule was given.

  Raises:
    UserError: The classes are not the expected ones.
  """
  found = len(next(iter(parts.values())).class_names)
  if found != spec.num_classes:
    raise errors.UserError(
      f"The data set {spec.name} holds {found:,} classes where {spec.num_classes:,} were expected: "
      f"it is another version, or has changed."
    )
  expected = {"training": spec.num_train, "test": spec.num_test, "validation": spec.num_val}
  return [
    f"The data set {spec.name} holds {len(source):,} {part} images where {expected[part]:,} were "
    f"expected: it is another version, or incomplete, and figures can't be compared with others."
    for part, source in parts.items()
    if len(source) != expected[part]
  ]
