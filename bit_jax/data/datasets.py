"""The data sets as data: where each lies, its splits, its sizes, and what its labels survive.

The sizes stand here because the rule needs them before anything is read: an unprepared tfds
builder has none. Source of the CIFAR splits: google-research/big_transfer,
`bit_jax/input_pipeline_tf2_or_tf1.py`, which trains on `train[:98%]` and holds out the rest.
"""

import dataclasses

from bit_jax import errors

NAMES = ("cifar10", "cifar100", "digits", "npz")
PROTOCOLS = ("final", "select")

# Splits of 'final' and of 'select' where `bit_jax.data.arrays` makes them; tfds has its own names.
ARRAY_SPLITS = {"final": ("train", "test"), "select": ("train/kept", "train/held_out")}
_CIFAR_SPLITS = {"final": ("train", "test"), "select": ("train[:98%]", "train[98%:]")}
_CIFAR_SIZES = {"final": (50_000, 10_000), "select": (49_000, 1_000)}
_DIGITS_SIZES = {"final": (797, 1_000), "select": (638, 159)}


@dataclasses.dataclass(frozen=True)
class DatasetSpec:
  """One data set under one protocol.

  Attributes:
    name: One of `NAMES`.
    source: Who provides it: 'tfds', 'digits' (scikit-learn) or 'npz' (a file of arrays).
    tfds_name: The builder's name in tensorflow-datasets; None for other sources.
    path: The file of an 'npz' set; None for other sources.
    train_split: Which examples are trained on, in tfds' notation or from `ARRAY_SPLITS`.
    test_split: Which examples are evaluated.
    num_train: Number of training examples.
    num_test: Number of evaluated examples.
    num_classes: Number of classes; labels are 0 to `num_classes - 1`.
    image_size: (height, width) in pixels.
    flip_safe: Whether a mirrored image keeps its label.
    crop_safe: Whether a random crop keeps its image's label.
  """

  name: str
  source: str
  tfds_name: str | None
  path: str | None
  train_split: str
  test_split: str
  num_train: int
  num_test: int
  num_classes: int
  image_size: tuple[int, int]
  flip_safe: bool
  crop_safe: bool


def find(name: str, protocol: str, path: str | None = None) -> DatasetSpec:
  """Returns the description of a data set.

  Args:
    name: One of `NAMES`.
    protocol: 'final' trains on all of train and evaluates the test set; 'select', for choosing
      between settings, holds a part of train out and evaluates that. There is no official split
      of the digits: 100 images of each class, drawn once and for all, are their test set.
    path: The file of an 'npz' set (its form: `arrays.load_npz`).

  Raises:
    UserError: An unknown name or protocol, a path that is missing or not asked for, or a faulty
      npz file.
  """
  if name not in NAMES:
    raise errors.UserError(f"There is no data set {name!r}; the data sets are {', '.join(NAMES)}.")
  if protocol not in PROTOCOLS:
    raise errors.UserError(
      f"There is no protocol {protocol!r}; the protocols are {', '.join(PROTOCOLS)}."
    )
  if name == "npz":
    return _npz(protocol, path)
  if path is not None:
    raise errors.UserError(f"The data set {name} takes no path; only npz does (got {path!r}).")
  return _digits(protocol) if name == "digits" else _cifar(name, protocol)


def _cifar(name: str, protocol: str) -> DatasetSpec:
  train_split, test_split = _CIFAR_SPLITS[protocol]
  num_train, num_test = _CIFAR_SIZES[protocol]
  return DatasetSpec(
    name=name,
    source="tfds",
    tfds_name=name,
    path=None,
    train_split=train_split,
    test_split=test_split,
    num_train=num_train,
    num_test=num_test,
    num_classes=10 if name == "cifar10" else 100,
    image_size=(32, 32),
    flip_safe=True,
    crop_safe=True,
  )


def _digits(protocol: str) -> DatasetSpec:
  train_split, test_split = ARRAY_SPLITS[protocol]
  num_train, num_test = _DIGITS_SIZES[protocol]
  return DatasetSpec(
    name="digits",
    source="digits",
    tfds_name=None,
    path=None,
    train_split=train_split,
    test_split=test_split,
    num_train=num_train,
    num_test=num_test,
    num_classes=10,
    image_size=(8, 8),
    flip_safe=False,  # a mirrored 2 is no 2
    crop_safe=True,
  )


def _npz(protocol: str, path: str | None) -> DatasetSpec:
  if not path:
    raise errors.UserError("The data set npz needs the path of its file: path=FILE.npz.")
  from bit_jax.data import arrays  # needs numpy, which nothing else here does

  contents = arrays.describe_npz(path)
  train_split, test_split = ARRAY_SPLITS[protocol]
  num_train, num_test = len(contents.train_labels), len(contents.test_labels)
  if protocol == "select":
    kept, held_out = arrays.split_for_selection(contents.train_labels, contents.class_names)
    num_train, num_test = len(kept), len(held_out)
  return DatasetSpec(
    name="npz",
    source="npz",
    tfds_name=None,
    path=path,
    train_split=train_split,
    test_split=test_split,
    num_train=num_train,
    num_test=num_test,
    num_classes=len(contents.class_names),
    image_size=contents.image_size,
    flip_safe=True,
    crop_safe=True,
  )
