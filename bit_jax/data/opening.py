"""The two parts of a data set as sources, whatever it is: arrays, files, or prepared by tfds."""

import dataclasses
import hashlib
from importlib import metadata
from typing import Protocol

import numpy as np

from bit_jax import errors, paths, tensorflow_import
from bit_jax.data import arrays, class_naming, datasets, folder, stream
from bit_jax.weights import cache


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
    listing: (path, class, 'train' or 'test') of each of the user's images, in the order of the
      examples; None for other sets.
  """

  train: Source
  test: Source
  version: str
  prepared: bool = False
  shuffled: bool = False
  origin: str | None = None
  warnings: tuple[str, ...] = ()
  listing: tuple[tuple[str, str, str], ...] | None = None


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


def version_of_path(spec: datasets.DatasetSpec) -> str | None:
  """Returns the version of the user's own images; None where the set is another.

  Raises:
    UserError: They are gone or faulty.
  """
  if spec.source == "folder":
    return _open_folder(spec).version
  if spec.source == "npz":
    assert spec.path is not None
    return _version_of_file(spec.path)
  return None


def _version_of_file(name: str) -> str:
  path = paths.named(name)
  return f"{path.name}, sha256 {cache.sha256(path)[:16]}"


def _open_tfds(spec: datasets.DatasetSpec, data_dir: str | None) -> Opened:
  try:
    with tensorflow_import.explained():
      from bit_jax.data import host  # imports TensorFlow
  except ImportError as e:
    raise errors.UserError(
      f"The data set {spec.name} is read with tensorflow and tensorflow-datasets, which can't be "
      f"imported ({e}); install them, or train on digits, a folder or an npz file."
    ) from e
  train = host.Split(spec, spec.train_split, data_dir)
  test = host.Split(spec, spec.test_split, data_dir)
  if fault := class_naming.fault(train.class_names):
    raise errors.UserError(f"The data set {spec.name} has names that can't be listed: {fault}.")
  return Opened(train, test, train.version, prepared=True, shuffled=train.shuffled)


def _open_folder(spec: datasets.DatasetSpec) -> Opened:
  assert spec.path is not None
  contents = folder.describe(spec.path, spec.protocol)
  train = folder.Files(contents, contents.train)
  test = folder.Files(contents, contents.test)
  digest = hashlib.sha256((train.identity() + test.identity()).encode()).hexdigest()
  version = f"{contents.root.name}, sha256 {digest[:16]}"
  listing = tuple(
    (path, contents.class_names[label], part)
    for part, files in (("train", contents.train), ("test", contents.test))
    for path, label in zip(files.paths, files.labels, strict=True)
  )
  return Opened(
    train, test, version, origin=contents.origin, warnings=contents.warnings, listing=listing
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
  train, test = (arrays.read_npz(spec.path, contents, part) for part in ("train", "test"))
  remarks = list(contents.remarks)
  if "val" in contents.labels:
    remarks.append("The images of val_images are neither trained on nor evaluated.")
  return Opened(
    *_under_protocol(spec, train, test),
    _version_of_file(spec.path),
    origin=" ".join(remarks) or None,
    warnings=contents.warnings,
  )


def _under_protocol(
  spec: datasets.DatasetSpec, train: arrays.Examples, test: arrays.Examples
) -> tuple[arrays.Examples, arrays.Examples]:
  """Returns what is trained on and what is evaluated."""
  if spec.protocol != "select":
    return train, test
  kept, held_out = arrays.split_for_selection(train.labels, train.class_names)
  return train.take(kept), train.take(held_out)
