"""Opens a data set: its facts at once, from tables or one scan; its sources when they are read.

data = opening.open_set(datasets.Request("folder", path="~/photos"))
data.spec.num_train, data.sources().train.read(0)
"""

import abc
import dataclasses
import functools
import hashlib
from importlib import metadata
from typing import NamedTuple, Protocol

import numpy as np

from bit_jax.data import datasets, stream
from bit_jax.data.sources import arrays, folder, scan
from bit_jax.runtime import cache, errors, imports, paths

Listing = tuple[tuple[str, str, str], ...]


class Source(stream.Source, Protocol):
  """All examples of a part of a data set, before any are chosen."""

  @property
  def class_names(self) -> tuple[str, ...]:
    """Returns the names of the classes, in the order of their labels."""

  def read_labels(self) -> np.ndarray:
    """Returns all labels, [N] int32, without decoding an image."""

  def read_sizes(self) -> np.ndarray:
    """Returns height and width of every image, [N, 2] integer; -1 where they can't be read."""

  def fingerprint(self) -> str:
    """Returns a text that changes with the examples or their order."""


class Identity(NamedTuple):
  """What identifies the user's own images, all None for other sets.

  Attributes:
    version: As in `Sources`.
    chosen_on: As in `Sources`.
    content: As in `Sources`.
  """

  version: str | None = None
  chosen_on: str | None = None
  content: str | None = None


@dataclasses.dataclass(frozen=True)
class Sources:
  """The parts of a data set; no image is decoded yet, except those of arrays.

  Attributes:
    train: The examples to train on.
    test: The examples to evaluate.
    version: What identifies the data: the version of the tfds builder or of scikit-learn, or the
      name of a file or folder and the first 16 digits of a sha256.
    val: The examples on which weights are chosen, apart from both; None without such a part.
    chosen_on: What identifies `val` within the data; None likewise.
    content: Of image files, whose `version` covers names, labels and sizes alone: the first 16
      digits of a sha256 of their marks (`headers.Headers.marks`); None for other sets.
    prepared: Whether tfds prepared the set: every image is readable, but labels take time to read.
    shuffled: Whether the training examples are stored in random order, as tfds writes them. Others
      may be sorted by class.
    listing: (path, class, 'train', 'test' or 'val') of each of the user's images, part by part in
      this order, each in the order of its examples; None for other sets.
  """

  train: Source
  test: Source
  version: str
  val: Source | None = None
  chosen_on: str | None = None
  content: str | None = None
  prepared: bool = False
  shuffled: bool = False
  listing: Listing | None = None


class Opened(abc.ABC):
  """A data set whose facts are known.

  Attributes:
    spec: The facts.
    origin: Sentences on how the user's images were split and on unused ones; None without any.
    warnings: Sentences on possible mistakes in the data.
  """

  spec: datasets.DatasetSpec
  origin: str | None = None
  warnings: tuple[str, ...] = ()

  def identity(self) -> Identity:
    """Returns what identifies the user's own images."""
    return Identity()

  def evaluating(self, split: str) -> "Opened":
    """Returns the set with another split as its test part.

    Args:
      split: In the notation of tensorflow-datasets, such as 'validation' or 'train[:10%]'.

    Raises:
      UserError: The set is not one of tensorflow-datasets; an unknown split is an error later.
    """
    raise errors.UserError(
      f"{self.spec.name} has no split {split!r}: its parts are train, val and test."
    )

  @abc.abstractmethod
  def sources(self, *, test_only: bool = False) -> Sources:
    """Returns the parts of the set.

    Args:
      test_only: Whether only the evaluated examples are needed: the training part may then be
        anything, and tfds needn't have prepared it.

    Raises:
      UserError: The set doesn't exist or is faulty, or TensorFlow is needed and not installed.
    """


def open_set(request: datasets.Request, found: scan.Scan | None = None) -> Opened:
  """Opens a data set; of the user's own images, scans the folder or reads the file's headers.

  Args:
    request: The data set.
    found: What `folder.find` has returned for the path of a 'folder' set; None: it is scanned here.

  Raises:
    UserError: An unknown name or protocol, a missing or unexpected path, or a faulty file or
      folder.
  """
  name, path = request.name, request.path
  if name not in datasets.OWN:
    spec = datasets.find(name, request.protocol)
    if path is not None:
      raise errors.UserError(
        f"The data set {name} takes no path; only {' and '.join(datasets.OWN)} do (got {path!r})."
      )
    return _Digits(spec) if spec.tfds_name is None else _Tfds(spec, request.data_dir)
  datasets.require_known(name, request.protocol)
  if not path:
    form = "FILE.npz" if name == "npz" else "DIR_OR_CSV"
    raise errors.UserError(
      f"The data set {name} needs the path of your images: --config=configs/{name}.py:path={form}."
    )
  own = path, request.protocol, request.val_apart
  return _Npz(*own) if name == "npz" else _Folder(*own, found)


class _Tfds(Opened):
  """A set of tensorflow-datasets; opening it needs neither TensorFlow nor the data."""

  def __init__(self, spec: datasets.DatasetSpec, data_dir: str | None):
    self.spec, self._data_dir = spec, data_dir
    if data_dir is not None:
      paths.named(data_dir)  # a mistake is reported before TensorFlow is imported

  def evaluating(self, split: str) -> "Opened":
    return _Tfds(dataclasses.replace(self.spec, test_split=split, num_test=0), self._data_dir)

  def sources(self, *, test_only: bool = False) -> Sources:
    spec = self.spec
    subject = f"The data set {spec.name} is read with"
    with imports.tfds_for(subject, "train on digits, a folder or an npz file"):
      from bit_jax.data.sources import tfds_reader  # imports TensorFlow
    split = functools.partial(tfds_reader.Split, spec, data_dir=self._data_dir)
    test = split(spec.test_split)
    if not spec.num_test:  # a split that the tables don't have
      self.spec = dataclasses.replace(spec, num_test=len(test))
    train = test if test_only else split(spec.train_split)
    return Sources(train, test, train.version, prepared=True, shuffled=train.shuffled)


class _Digits(Opened):
  """The handwritten digits of scikit-learn."""

  def __init__(self, spec: datasets.DatasetSpec):
    self.spec = spec

  def sources(self, *, test_only: bool = False) -> Sources:
    train, test = _under_protocol(self.spec, *arrays.load_digits())
    return Sources(train, test, f"digits of scikit-learn {metadata.version('scikit-learn')}")


class _Npz(Opened):
  """The user's own file of arrays; opening it reads labels and headers, no images."""

  def __init__(self, path: str, protocol: str, val_apart: bool):
    self._path, self._contents = path, arrays.describe_npz(path)
    labels, names = self._contents.labels, self._contents.class_names
    sizes = {part: len(of_part) for part, of_part in labels.items()}
    train, test, has_val = "train", "test", "val" in sizes
    apart = has_val and protocol == "final" and val_apart
    if apart:
      use = "train for training, val for choosing weights, test for evaluation"
    elif protocol == "final":
      use = (
        "train for training, test for evaluation; val is used by protocol=select, keep_best and "
        "patience"
      )
    elif has_val:
      test, use = "val", "train for training, val for evaluation; test is used by protocol=final"
    else:
      train, test = "train/kept", "train/held_out"
      sizes[train], sizes[test] = map(len, arrays.split_for_selection(labels["train"], names))
    self.spec = datasets.DatasetSpec(
      name="npz",
      protocol=protocol,
      train_split=train,
      test_split=test,
      num_train=sizes[train],
      num_test=sizes[test],
      num_classes=len(names),
      image_size=self._contents.image_size,
      fixed_size=True,
      num_val=sizes["val"] if apart else 0,
    )
    split = [f"Split of the data: {use}."] if has_val else []
    self.origin = " ".join([*split, *self._contents.remarks]) or None
    self.warnings = self._contents.warnings

  def identity(self) -> Identity:
    path = paths.named(self._path)
    # Earlier versions evaluated a part of train: their results are of other data.
    evaluated = "; its val is evaluated" if self.spec.test_split == "val" else ""
    version = f"{path.name}, sha256 {cache.sha256(path)[:16]}{evaluated}"
    return Identity(version, "val" if self.spec.num_val else None)

  def sources(self, *, test_only: bool = False) -> Sources:
    read = functools.partial(arrays.read_npz, self._path, self._contents)
    train, val = read("train"), read("val") if self.spec.num_val else None
    if self.spec.test_split == "val":
      test = read("val")
    else:
      train, test = _under_protocol(self.spec, train, read("test"))
    version, chosen_on, _ = self.identity()
    assert version is not None
    return Sources(train, test, version, val, chosen_on)


class _Folder(Opened):
  """The user's own image files; opening it scans the folder or CSV and reads image headers."""

  def __init__(self, path: str, protocol: str, val_apart: bool, found: scan.Scan | None):
    self._contents = contents = folder.describe(path, protocol, val_apart=val_apart, found=found)
    self.spec = datasets.DatasetSpec(
      name="folder",
      protocol=protocol,
      train_split="train",
      test_split="test",
      num_train=len(contents.train),
      num_test=len(contents.test),
      num_classes=len(contents.class_names),
      image_size=contents.image_size,
      fixed_size=contents.fixed_size,
      class_names=contents.class_names,
      num_val=0 if contents.val is None else len(contents.val),
    )
    self.origin, self.warnings = contents.origin, contents.warnings

  def identity(self) -> Identity:
    pool, test, val = self._contents.pool, self._contents.test, self._contents.val
    return Identity(
      version=f"{test.root.name}, sha256 {_digest(pool.identity(), test.identity())}",
      chosen_on=None if val is None else f"val, sha256 {val.identity()[:16]}",
      content=_digest(pool.content_mark(), test.content_mark()),
    )

  def sources(self, *, test_only: bool = False) -> Sources:
    train, test, val = self._contents.train, self._contents.test, self._contents.val
    version, chosen_on, content = self.identity()
    assert version is not None
    listing = tuple(
      (path, files.class_names[label], part)
      for part, files in (("train", train), ("test", test), ("val", val))
      if files is not None
      for path, label in zip(files.paths, files.labels.tolist(), strict=True)
    )
    return Sources(train, test, version, val, chosen_on, content, listing=listing)


def _digest(*digests: str) -> str:
  """Returns the first 16 digits of a sha256 of others."""
  return hashlib.sha256("".join(digests).encode()).hexdigest()[:16]


def _under_protocol(
  spec: datasets.DatasetSpec, train: arrays.Examples, test: arrays.Examples
) -> tuple[arrays.Examples, arrays.Examples]:
  """Returns the training and the evaluated examples."""
  if spec.protocol != "select":
    return train, test
  kept, held_out = arrays.split_for_selection(train.labels, train.class_names)
  return train.take(kept), train.take(held_out)
