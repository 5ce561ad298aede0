"""The data sets as data: where each lies, its splits, its sizes, and what its labels survive.

The sizes stand here because the rule needs them before anything is read: an unprepared tfds
builder has none. Counts, class counts and image sizes are those of tensorflow-datasets 4.9.10; the
tasks of VTAB-1k are in `vtab`.

Where the held-out part of 'select' comes from: CIFAR and ImageNet as in google-research/
big_transfer, `bit_jax/input_pipeline_tf2_or_tf1.py` (`train[:98%]`, `train[:99%]`); Pets as in VTAB
(the last 20 % of train); Flowers has an official validation split, whose images the final run
trains on too, for they are no part of the test set. tf_flowers is split as in the Keras example
"Image Classification using BigTransfer (BiT)". No source names a split of cats_vs_dogs: its last
tenth is the test set here, so that the rule sees more than 20,000 images in either protocol.
"""

import dataclasses
import difflib
from collections.abc import Mapping

from bit_jax.data import vtab
from bit_jax.runtime import errors

PROTOCOLS = ("final", "select")

# Splits of 'final' and of 'select' where `sources.arrays` makes them; tfds has its own names.
ARRAY_SPLITS = {"final": ("train", "test"), "select": ("train/kept", "train/held_out")}
_DIGITS_SIZES = {"final": (797, 1_000), "select": (638, 159)}


@dataclasses.dataclass(frozen=True)
class DatasetSpec:
  """One data set under one protocol.

  Attributes:
    name: One of `NAMES`.
    protocol: 'final' or 'select' (see `find`).
    source: Who provides it: 'tfds', 'digits' (scikit-learn), 'npz' (a file of arrays) or 'folder'
      (files of images).
    tfds_name: The builder's name in tensorflow-datasets, with its config where it has several, such
      as 'eurosat/rgb'; None for other sources.
    path: Where the user's own set lies ('npz', 'folder'); None for other sources.
    train_split: Which examples are trained on, in tfds' notation or from `ARRAY_SPLITS`; of a
      folder, 'train'.
    test_split: Which examples are evaluated.
    num_train: Number of training examples.
    num_test: Number of evaluated examples.
    num_classes: Number of classes; labels are 0 to `num_classes - 1`.
    image_size: (height, width) in pixels; a typical one where images differ in size.
    fixed_size: Whether every image has exactly `image_size`.
    flip_safe: Whether a mirrored image keeps its label.
    crop_safe: Whether a random crop keeps its image's label.
    label: How the label comes from an example of tfds: a name in `labels.DERIVATIONS`.
    pixel_scale: Grey levels are multiplied by it to span 0 to 255.
    resolution: What the field `resolution` is where the user leaves it open; None: it follows the
      preset.
    class_names: Names of the classes where the label is derived or the source is a folder; None:
      those that the source itself gives.
    val_split: Examples apart from both on which a run chooses its weights; None without such.
    num_val: Number of these.
  """

  name: str
  protocol: str
  source: str
  tfds_name: str | None
  path: str | None
  train_split: str
  test_split: str
  num_train: int
  num_test: int
  num_classes: int
  image_size: tuple[int, int]
  fixed_size: bool
  flip_safe: bool = True
  crop_safe: bool = True
  label: str = "label"
  pixel_scale: int = 1
  resolution: str | None = None
  class_names: tuple[str, ...] | None = None
  val_split: str | None = None
  num_val: int = 0


@dataclasses.dataclass(frozen=True)
class _Parts:
  """Splits of one protocol, in tfds' notation, and the numbers of examples in them."""

  train_split: str
  test_split: str
  num_train: int
  num_test: int


@dataclasses.dataclass(frozen=True)
class _Tfds:
  """What doesn't depend on the protocol, and what does."""

  num_classes: int
  image_size: tuple[int, int]
  fixed_size: bool
  parts: Mapping[str, _Parts]


_CIFAR_PARTS = {
  "final": _Parts("train", "test", 50_000, 10_000),
  "select": _Parts("train[:98%]", "train[98%:]", 49_000, 1_000),
}
_TFDS = {
  "cifar10": _Tfds(10, (32, 32), True, _CIFAR_PARTS),
  "cifar100": _Tfds(100, (32, 32), True, _CIFAR_PARTS),
  "imagenet2012": _Tfds(
    num_classes=1_000,
    image_size=(375, 500),
    fixed_size=False,
    parts={
      "final": _Parts("train", "validation", 1_281_167, 50_000),
      "select": _Parts("train[:99%]", "train[99%:]", 1_268_355, 12_812),
    },
  ),
  "oxford_iiit_pet": _Tfds(
    num_classes=37,
    image_size=(375, 500),
    fixed_size=False,
    parts={
      "final": _Parts("train", "test", 3_680, 3_669),
      "select": _Parts("train[:2944]", "train[2944:]", 2_944, 736),
    },
  ),
  "oxford_flowers102": _Tfds(
    num_classes=102,
    image_size=(500, 667),
    fixed_size=False,
    parts={
      "final": _Parts("train+validation", "test", 2_040, 6_149),
      "select": _Parts("train", "validation", 1_020, 1_020),
    },
  ),
  "tf_flowers": _Tfds(
    num_classes=5,
    image_size=(240, 320),
    fixed_size=False,
    parts={
      "final": _Parts("train[:85%]", "train[85%:]", 3_120, 550),
      "select": _Parts("train[:70%]", "train[70%:85%]", 2_569, 551),
    },
  ),
  "cats_vs_dogs": _Tfds(
    num_classes=2,
    image_size=(375, 500),
    fixed_size=False,
    parts={
      "final": _Parts("train[:90%]", "train[90%:]", 20_936, 2_326),
      "select": _Parts("train[:87%]", "train[87%:90%]", 20_238, 698),
    },
  ),
}

_VTAB = "vtab/"  # before a task's name
_WITH_PATH = ("npz", "folder")
NAMES = (*_TFDS, "digits", *_WITH_PATH, *(f"{_VTAB}{task}" for task in vtab.TASKS))


def find(
  name: str, protocol: str, path: str | None = None, *, val_apart: bool = False
) -> DatasetSpec:
  """Returns the description of a data set.

  Args:
    name: One of `NAMES`: a plain name, or 'vtab/' and a task of VTAB-1k.
    protocol: 'final' trains on all of train and evaluates the test set; 'select', for choosing
      between settings, holds a part of train out and evaluates that. There is no official split
      of the digits: 100 images of each class, drawn once and for all, are their test set. A VTAB
      task trains on 1000 images, or on 800 of them with the other 200 held out.
    path: The file of an 'npz' set (its form: `arrays.load_npz`), the folder or CSV file of a
      'folder' set.
    val_apart: Whether 'final' keeps the val part of an 'npz' or 'folder' set, where it has one
      beside its test part, to choose weights on. Otherwise 'final' trains on that of a folder, and
      makes no use of that of an npz file.

  Raises:
    UserError: An unknown name or protocol, a path that is missing or not asked for, or a faulty
      npz file or folder.
  """
  if name not in NAMES:
    raise errors.UserError(_unknown(name))
  if protocol not in PROTOCOLS:
    raise errors.UserError(
      f"There is no protocol {protocol!r}; the protocols are {', '.join(PROTOCOLS)}."
    )
  if name == "npz":
    return _npz(protocol, path, val_apart)
  if name == "folder":
    return _folder(protocol, path, val_apart)
  if path is not None:
    raise errors.UserError(
      f"The data set {name} takes no path; only {' and '.join(_WITH_PATH)} do (got {path!r})."
    )
  if name == "digits":
    return _digits(protocol)
  return _vtab(name, protocol) if name.startswith(_VTAB) else _tfds(name, protocol)


def _unknown(name: str) -> str:
  """Returns the message for a name that there isn't; a task's bare name may be meant."""
  candidates = {known.removeprefix(_VTAB): known for known in reversed(NAMES)}
  candidates |= {known: known for known in NAMES}
  close = difflib.get_close_matches(name, candidates, n=1)
  hint = f" (did you mean {candidates[close[0]]}?)" if close else ""
  return f"There is no data set {name!r}{hint}; the data sets are {', '.join(NAMES)}."


def _tfds(name: str, protocol: str) -> DatasetSpec:
  described = _TFDS[name]
  return DatasetSpec(
    name=name,
    protocol=protocol,
    source="tfds",
    tfds_name=name,
    path=None,
    **dataclasses.asdict(described.parts[protocol]),
    num_classes=described.num_classes,
    image_size=described.image_size,
    fixed_size=described.fixed_size,
  )


def _vtab(name: str, protocol: str) -> DatasetSpec:
  task = vtab.find(name.removeprefix(_VTAB))
  splits = task.splits
  parts = {
    "final": _Parts(splits.train800val200, splits.test, 1_000, task.num_test),
    "select": _Parts(splits.train800, splits.val200, 800, 200),
  }
  return DatasetSpec(
    name=name,
    protocol=protocol,
    source="tfds",
    tfds_name=task.tfds_name,
    path=None,
    **dataclasses.asdict(parts[protocol]),
    num_classes=task.num_classes,
    image_size=task.image_size,
    fixed_size=task.fixed_size,
    flip_safe=task.flip_safe,
    crop_safe=task.crop_safe,
    label=task.label,
    pixel_scale=task.pixel_scale,
    resolution="paper",
    class_names=task.class_names,
  )


def _digits(protocol: str) -> DatasetSpec:
  train_split, test_split = ARRAY_SPLITS[protocol]
  num_train, num_test = _DIGITS_SIZES[protocol]
  return DatasetSpec(
    name="digits",
    protocol=protocol,
    source="digits",
    tfds_name=None,
    path=None,
    train_split=train_split,
    test_split=test_split,
    num_train=num_train,
    num_test=num_test,
    num_classes=10,
    image_size=(8, 8),
    fixed_size=True,
    flip_safe=False,  # a mirrored 2 is no 2
  )


def _npz(protocol: str, path: str | None, val_apart: bool) -> DatasetSpec:
  if not path:
    raise errors.UserError("The data set npz needs the path of its file: path=FILE.npz.")
  from bit_jax.data.sources import arrays  # needs numpy, which nothing else here does

  contents = arrays.describe_npz(path)
  train_split, test_split = ARRAY_SPLITS[protocol]
  num_train, num_test = len(contents.labels["train"]), len(contents.labels["test"])
  num_val = len(contents.labels.get("val", ()))
  apart = val_apart and protocol == "final" and num_val > 0
  if protocol == "select" and num_val:
    train_split, test_split, num_test = "train", "val", num_val
  elif protocol == "select":
    kept, held_out = arrays.split_for_selection(contents.labels["train"], contents.class_names)
    num_train, num_test = len(kept), len(held_out)
  return DatasetSpec(
    name="npz",
    protocol=protocol,
    source="npz",
    tfds_name=None,
    path=path,
    train_split=train_split,
    test_split=test_split,
    num_train=num_train,
    num_test=num_test,
    num_classes=len(contents.class_names),
    image_size=contents.image_size,
    fixed_size=True,
    val_split="val" if apart else None,
    num_val=num_val if apart else 0,
  )


def _folder(protocol: str, path: str | None, val_apart: bool) -> DatasetSpec:
  if not path:
    raise errors.UserError(
      "The data set folder needs the path of its images, a folder or a CSV file: "
      "--config=configs/folder.py:path=DIR_OR_CSV."
    )
  from bit_jax.data.sources import folder  # needs numpy and reads every file's header

  contents = folder.describe(path, protocol, val_apart=val_apart)
  return DatasetSpec(
    name="folder",
    protocol=protocol,
    source="folder",
    tfds_name=None,
    path=path,
    train_split="train",
    test_split="test",
    num_train=contents.num_train,
    num_test=contents.num_test,
    num_classes=len(contents.class_names),
    image_size=contents.image_size,
    fixed_size=contents.fixed_size,
    class_names=tuple(contents.class_names),
    val_split=None if contents.val is None else "val",
    num_val=0 if contents.val is None else len(contents.val),
  )
