"""Facts about data sets: where each is read from, its splits and sizes, and safe augmentations.

The rule needs the sizes before anything is read, and an unprepared tfds builder has none, so tables
hold them. Counts, class counts and image sizes are those of tensorflow-datasets 4.9.10; the tasks
of VTAB-1k are in `vtab`. The user's own images ('npz', 'folder') are described by `opening`.

Sources of the held-out parts of 'select': CIFAR and ImageNet as in google-research/big_transfer,
`bit_jax/input_pipeline_tf2_or_tf1.py` (`train[:98%]`, `train[:99%]`); Pets as in VTAB (the last
20 % of train); Flowers has an official validation split, which 'final' trains on too, since it is
not part of the test set. tf_flowers is split as in the Keras example "Image Classification using
BigTransfer (BiT)". No source names a split of cats_vs_dogs: its last tenth is the test set here, so
that the rule sees more than 20,000 images in either protocol.
"""

import dataclasses
import difflib
from collections.abc import Mapping

from bit_jax.data import vtab
from bit_jax.runtime import errors

PROTOCOLS = ("final", "select")

# Splits of 'final' and of 'select' that `sources.arrays` defines; tfds has its own names.
ARRAY_SPLITS = {"final": ("train", "test"), "select": ("train/kept", "train/held_out")}
OWN = ("npz", "folder")  # the user's own images, which have a path


@dataclasses.dataclass(frozen=True)
class Request:
  """A data set, before anything is known of it.

  Attributes:
    name: One of `NAMES`: a plain name, or 'vtab/' and a task of VTAB-1k.
    protocol: 'final' trains on all of train and evaluates the test set; 'select', for choosing
      between settings, holds out a part of train and evaluates that. The digits have no official
      split: a fixed random 100 images of each class are their test set. A VTAB task trains on 1000
      images, or on 800 of them with the other 200 held out.
    path: The file of an 'npz' set (its form: `arrays.load_npz`), the folder or CSV file of a
      'folder' set; None for other sets.
    data_dir: Where tfds keeps prepared sets; None for its default. Other sets ignore it.
    val_apart: Whether 'final' keeps the val part of an 'npz' or 'folder' set, where it has one
      beside its test part, to choose weights on. Otherwise 'final' trains on that of a folder, and
      doesn't use that of an npz file.
  """

  name: str
  protocol: str = "final"
  path: str | None = None
  data_dir: str | None = None
  val_apart: bool = False


@dataclasses.dataclass(frozen=True)
class Selection:
  """Which examples of a data set a run uses, and how they are prepared on the host.

  Attributes:
    train_size: Side in pixels of the square that training images are resized to.
    test_size: The same for evaluated images.
    shots: Training images of each class; None: all.
    seed: Of the few-shot subset.
    min_side: Images with a shorter side, in pixels, are left out.
    max_aspect: Images of which the longer side is more than this times the shorter one are left
      out; 0: none.
    on_bad_image: 'stop' at unreadable images with their list, or 'skip' them.
    decoded_cache: Whether decoded images are kept as files for later epochs and runs.
    shuffle_window: Examples of a set that tfds shuffled which are permuted together (`order`).
  """

  train_size: int
  test_size: int
  shots: int | None = None
  seed: int = 0
  min_side: int = 0
  max_aspect: float = 0.0
  on_bad_image: str = "stop"
  decoded_cache: bool = False
  shuffle_window: int = 65_536


@dataclasses.dataclass(frozen=True, kw_only=True)
class DatasetSpec:
  """The facts of one data set under one protocol.

  Attributes:
    name: One of `NAMES`.
    protocol: 'final' or 'select' (see `Request`).
    source: Where it comes from: 'tfds', 'digits' (scikit-learn), 'npz' (a file of arrays) or
      'folder' (image files).
    tfds_name: The builder's name in tensorflow-datasets, with its config where it has several, such
      as 'eurosat/rgb'; None for other sources.
    path: The user's own set ('npz', 'folder'); None for other sources.
    train_split: The training examples, in tfds' notation or from `ARRAY_SPLITS`; of a folder,
      'train'.
    test_split: The evaluated examples.
    num_train: Number of training examples.
    num_test: Number of evaluated examples.
    num_classes: Number of classes; labels are 0 to `num_classes - 1`.
    image_size: (height, width) in pixels; a typical one where images differ in size.
    fixed_size: Whether every image has exactly `image_size`.
    flip_safe: Whether a mirrored image keeps its label.
    crop_safe: Whether a random crop keeps its image's label.
    label: How the label follows from an example of tfds: a name in `labels.DERIVATIONS`.
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
  tfds_name: str | None = None
  path: str | None = None
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

  def host_size(self, side: int) -> int | None:
    """Returns the side in pixels to which the host resizes images that are to have `side`.

    None where they keep their size: images of one size that is not larger than the square of `side`
    are resized on the device, in float32.
    """
    height, width = self.image_size
    return None if self.fixed_size and height * width <= side * side else side

  def device_size(self, side: int) -> tuple[int, int]:
    """Returns the (height, width) that images which are to have `side` have on the device."""
    size = self.host_size(side)
    return self.image_size if size is None else (size, size)


@dataclasses.dataclass(frozen=True)
class _Parts:
  """Splits of one protocol, in tfds' notation, and the numbers of examples in them."""

  train_split: str
  test_split: str
  num_train: int
  num_test: int


@dataclasses.dataclass(frozen=True)
class _Set:
  """A data set under every protocol."""

  num_classes: int
  image_size: tuple[int, int]
  fixed_size: bool
  parts: Mapping[str, _Parts]
  source: str = "tfds"
  flip_safe: bool = True


_CIFAR_PARTS = {
  "final": _Parts("train", "test", 50_000, 10_000),
  "select": _Parts("train[:98%]", "train[98%:]", 49_000, 1_000),
}
_SETS = {
  "cifar10": _Set(10, (32, 32), True, _CIFAR_PARTS),
  "cifar100": _Set(100, (32, 32), True, _CIFAR_PARTS),
  "imagenet2012": _Set(
    num_classes=1_000,
    image_size=(375, 500),
    fixed_size=False,
    parts={
      "final": _Parts("train", "validation", 1_281_167, 50_000),
      "select": _Parts("train[:99%]", "train[99%:]", 1_268_355, 12_812),
    },
  ),
  "oxford_iiit_pet": _Set(
    num_classes=37,
    image_size=(375, 500),
    fixed_size=False,
    parts={
      "final": _Parts("train", "test", 3_680, 3_669),
      "select": _Parts("train[:2944]", "train[2944:]", 2_944, 736),
    },
  ),
  "oxford_flowers102": _Set(
    num_classes=102,
    image_size=(500, 667),
    fixed_size=False,
    parts={
      "final": _Parts("train+validation", "test", 2_040, 6_149),
      "select": _Parts("train", "validation", 1_020, 1_020),
    },
  ),
  "tf_flowers": _Set(
    num_classes=5,
    image_size=(240, 320),
    fixed_size=False,
    parts={
      "final": _Parts("train[:85%]", "train[85%:]", 3_120, 550),
      "select": _Parts("train[:70%]", "train[70%:85%]", 2_569, 551),
    },
  ),
  "cats_vs_dogs": _Set(
    num_classes=2,
    image_size=(375, 500),
    fixed_size=False,
    parts={
      "final": _Parts("train[:90%]", "train[90%:]", 20_936, 2_326),
      "select": _Parts("train[:87%]", "train[87%:90%]", 20_238, 698),
    },
  ),
  "digits": _Set(
    num_classes=10,
    image_size=(8, 8),
    fixed_size=True,
    parts={
      "final": _Parts(*ARRAY_SPLITS["final"], 797, 1_000),
      "select": _Parts(*ARRAY_SPLITS["select"], 638, 159),
    },
    source="digits",
    flip_safe=False,  # a mirrored 2 is no 2
  ),
}

_VTAB = "vtab/"  # before a task's name
NAMES = (*_SETS, *OWN, *(f"{_VTAB}{task}" for task in vtab.TASKS))


def require_known(name: str, protocol: str) -> None:
  """Raises a `UserError` unless there is such a data set and such a protocol."""
  if name not in NAMES:
    raise errors.UserError(_unknown(name))
  if protocol not in PROTOCOLS:
    raise errors.UserError(
      f"There is no protocol {protocol!r}; the protocols are {', '.join(PROTOCOLS)}."
    )


def find(name: str, protocol: str) -> DatasetSpec:
  """Returns the facts of a data set that the tables hold: any but 'npz' and 'folder'.

  Raises:
    UserError: An unknown name or protocol.
  """
  require_known(name, protocol)
  if name.startswith(_VTAB):
    return _vtab(name, protocol)
  described = _SETS[name]
  return DatasetSpec(
    name=name,
    protocol=protocol,
    source=described.source,
    tfds_name=name if described.source == "tfds" else None,
    **dataclasses.asdict(described.parts[protocol]),
    num_classes=described.num_classes,
    image_size=described.image_size,
    fixed_size=described.fixed_size,
    flip_safe=described.flip_safe,
  )


def _unknown(name: str) -> str:
  """Returns the message for an unknown name; a task may have been named without its prefix."""
  candidates = {known.removeprefix(_VTAB): known for known in reversed(NAMES)}
  candidates |= {known: known for known in NAMES}
  close = difflib.get_close_matches(name, candidates, n=1)
  hint = f" (did you mean {candidates[close[0]]}?)" if close else ""
  return f"There is no data set {name!r}{hint}; the data sets are {', '.join(NAMES)}."


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
