"""The parts of a data set as sources, whatever it is: arrays, files, or prepared by tfds."""

import dataclasses
import functools
import hashlib
from importlib import metadata
from typing import Protocol

import numpy as np

from bit_jax.data import datasets, stream
from bit_jax.data.sources import arrays, class_naming, folder
from bit_jax.runtime import cache, errors, imports, paths


class Source(stream.Source, Protocol):
  """What there is of a set before any of it is chosen."""

  @property
  def class_names(self) -> tuple[str, ...]:
    """Returns the names of the classes, in the order of their labels."""

  def read_labels(self) -> np.ndarray:
    """Returns all labels, [N] int32, without decoding an image."""

  def read_sizes(self) -> np.ndarray:
    """Returns height and width of every image, [N, 2] integer; -1 where they can't be read."""

  def fingerprint(self) -> str:
    """Returns a text that changes with the examples or their order."""


@dataclasses.dataclass(frozen=True)
class Opened:
  """A data set of which nothing has been decoded yet.

  Attributes:
    train: What may be trained on.
    test: What is scored.
    version: What identifies the data: the version of the tfds builder or of scikit-learn, or the
      name of a file or folder and the first 16 digits of a sha256.
    prepared: Whether tfds prepared it: no image is unreadable, but labels take time to read.
    shuffled: Whether the training examples lie in random order, as tfds writes them. Others may be
      sorted by class.
    origin: Sentences on how the user's images were split and on what isn't used; None where there
      is nothing to say.
    warnings: Sentences on what may be a mistake in the data.
    listing: (path, class, 'train', 'test' or 'val') of each of the user's images, part by part in
      this order, each in the order of its examples; None for other sets.
    val: What weights are chosen on, apart from both; None without such a part.
    chosen_on: What identifies these examples within the data; None likewise.
  """

  train: Source
  test: Source
  version: str
  prepared: bool = False
  shuffled: bool = False
  origin: str | None = None
  warnings: tuple[str, ...] = ()
  listing: tuple[tuple[str, str, str], ...] | None = None
  val: Source | None = None
  chosen_on: str | None = None


def open_set(spec: datasets.DatasetSpec, data_dir: str | None = None) -> Opened:
  """Opens a data set.

  Args:
    spec: From `datasets.find`.
    data_dir: Where tfds keeps prepared sets; None for its default. Other sources ignore it.

  Raises:
    UserError: The set isn't there or is faulty, or it is a tfds set and TensorFlow isn't installed.
  """
  if spec.source == "tfds":
    return _open_tfds(spec, data_dir)
  if spec.source == "folder":
    return _open_folder(spec)
  return _open_arrays(spec)


def reading(spec: datasets.DatasetSpec) -> tuple[tuple[str, ...], str | None]:
  """Returns the warnings and the origin (`Opened`) of the user's own images; reads none of them.

  Raises:
    UserError: They are gone or faulty.
  """
  if spec.source == "folder":
    folder_contents = _described_folder(spec)
    return folder_contents.warnings, folder_contents.origin
  if spec.source == "npz":
    assert spec.path is not None
    contents = arrays.describe_npz(spec.path)
    return contents.warnings, _npz_origin(spec, contents)
  return (), None


def version_of_path(spec: datasets.DatasetSpec) -> str | None:
  """Returns the version of the user's own images; None where the set is another.

  Raises:
    UserError: They are gone or faulty.
  """
  if spec.source == "folder":
    return _open_folder(spec).version
  if spec.source == "npz":
    assert spec.path is not None
    return _version_of_npz(spec)
  return None


def chosen_on(spec: datasets.DatasetSpec) -> str | None:
  """Returns what identifies the examples that weights are chosen on; None without such a part.

  Raises:
    UserError: They are gone or faulty.
  """
  if spec.source == "folder" and spec.val_split is not None:
    return _open_folder(spec).chosen_on
  return spec.val_split


def _version_of_npz(spec: datasets.DatasetSpec) -> str:
  assert spec.path is not None
  # Earlier versions evaluated a part of train: their results are of other data.
  evaluated = "; its val is evaluated" if spec.test_split == "val" else ""
  return f"{_version_of_file(spec.path)}{evaluated}"


def _version_of_file(name: str) -> str:
  path = paths.named(name)
  return f"{path.name}, sha256 {cache.sha256(path)[:16]}"


def _open_tfds(spec: datasets.DatasetSpec, data_dir: str | None) -> Opened:
  try:
    with imports.explained():
      from bit_jax.data.sources import tfds_reader  # imports TensorFlow
  except ImportError as e:
    raise errors.UserError(
      f"The data set {spec.name} is read with tensorflow and tensorflow-datasets, which can't be "
      f"imported ({e}); install them, or train on digits, a folder or an npz file."
    ) from e
  train = tfds_reader.Split(spec, spec.train_split, data_dir)
  test = tfds_reader.Split(spec, spec.test_split, data_dir)
  if fault := class_naming.fault(train.class_names):
    raise errors.UserError(f"The data set {spec.name} has names that can't be listed: {fault}.")
  return Opened(train, test, train.version, prepared=True, shuffled=train.shuffled)


def _described_folder(spec: datasets.DatasetSpec) -> folder.Folder:
  assert spec.path is not None
  return folder.describe(spec.path, spec.protocol, val_apart=spec.val_split is not None)


def _open_folder(spec: datasets.DatasetSpec) -> Opened:
  contents = _described_folder(spec)
  test, val = contents.test, contents.val
  digest = hashlib.sha256((contents.pool.identity() + test.identity()).encode()).hexdigest()
  parts = [("train", contents.train), ("test", contents.test)]
  if val is not None:
    parts.append(("val", val))
  return Opened(
    train=contents.train,
    test=test,
    version=f"{contents.root.name}, sha256 {digest[:16]}",
    origin=contents.origin,
    warnings=contents.warnings,
    listing=tuple(
      (path, contents.class_names[label], part)
      for part, files in parts
      for path, label in zip(files.paths, files.labels, strict=True)
    ),
    val=val,
    chosen_on=None if val is None else f"val, sha256 {val.identity()[:16]}",
  )


def _open_arrays(spec: datasets.DatasetSpec) -> Opened:
  if spec.source == "npz":
    return _open_npz(spec)
  train, test = arrays.load_digits()
  version = f"digits of scikit-learn {metadata.version('scikit-learn')}"
  return Opened(*_under_protocol(spec, train, test), version)


def _open_npz(spec: datasets.DatasetSpec) -> Opened:
  assert spec.path is not None
  contents = arrays.describe_npz(spec.path)
  read = functools.partial(arrays.read_npz, spec.path, contents)
  train, val = read("train"), read("val") if spec.val_split else None
  if spec.test_split == "val":
    test = read("val")
  else:
    train, test = _under_protocol(spec, train, read("test"))
  return Opened(
    train=train,
    test=test,
    version=_version_of_npz(spec),
    origin=_npz_origin(spec, contents),
    warnings=contents.warnings,
    val=val,
    chosen_on=spec.val_split,
  )


def _npz_origin(spec: datasets.DatasetSpec, contents: arrays.NpzContents) -> str | None:
  sentences = list(contents.remarks)
  if "val" in contents.labels:
    sentences.insert(0, f"As the file has it: {_use_of_parts(spec)}.")
  return " ".join(sentences) or None


def _use_of_parts(spec: datasets.DatasetSpec) -> str:
  if spec.test_split == "val":
    return "train to train on, val to evaluate; test is left for protocol=final"
  if spec.val_split:
    return "train to train on, val to choose weights on, test to evaluate"
  return (
    "train to train on, test to evaluate; val is left for protocol=select, keep_best and patience"
  )


def _under_protocol(
  spec: datasets.DatasetSpec, train: arrays.Examples, test: arrays.Examples
) -> tuple[arrays.Examples, arrays.Examples]:
  """Returns what is trained on and what is evaluated."""
  if spec.protocol != "select":
    return train, test
  kept, held_out = arrays.split_for_selection(train.labels, train.class_names)
  return train.take(kept), train.take(held_out)
