"""Facts about data sets: where each is read from, its splits and sizes, and safe augmentations.

The rule needs the sizes before anything is read, and an unprepared tfds builder has none, so tables
hold them. Counts, class counts and image sizes are those of tensorflow-datasets 4.9.10; the tasks
of VTAB-1k are in `vtab`. The user's own images ('npz', 'folder') are described by `opening`.

Sources of the held-out parts of 'select': CIFAR and ImageNet as in google-research/big_transfer,
`bit_jax/input_pipeline_tf2_or_tf1.py` (`train[:98%]`, `train[:99%]`); Pets as in VTAB (the last
20% of train); Flowers has an official validation split, which 'final' trains on too, since it is
not part of the test set. tf_flowers is split as in the Keras example "Image Classification using
BigTransfer (BiT)". No source names a split of cats_vs_dogs: its last tenth is the test set here, so
that the rule sees more than 20,000 images in either protocol.
"""

import dataclasses
import itertools
import os
from collections.abc import Iterable, Iterator

from bit_jax.data import vtab
from bit_jax.runtime import checks, errors, paths, phrases

PROTOCOLS = ("final", "select")

_FILES = (".npz", ".csv", ".tsv")
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
    path: The file of an 'npz' set (its form: `arrays.describe_npz`), the folder or CSV file of a
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
    seed: Seed of the few-shot subset.
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


def kept_size(sizes: Iterable[tuple[int, int]], side: int) -> tuple[int, int] | None:
  """Returns the (height, width) that images keep until they are on the device; None if they don't.

  Images of one size that is not larger than the square of `side` are resized to it on the device,
  in float32, and others on the host, which rounds to whole grey levels.

  Args:
    sizes: (height, width) of the images; read until one of them decides.
    side: Side in pixels of the square that they are resized to.
  """
  first = None
  for size in sizes:
    first = first or size
    if size != first or size[0] * size[1] > side * side:
      return None
  return first


@dataclasses.dataclass(frozen=True, kw_only=True)
class DatasetSpec(vtab.Facts):
  """The facts of one data set under one protocol.

  Attributes:
    name: One of `NAMES`.
    protocol: 'final' or 'select' (see `Request`).
    train_split: The training examples, in tfds' notation; a plain name for other sources.
    test_split: The evaluated examples.
    num_train: Number of training examples.
    num_test: Number of evaluated examples.
    resolution: What the field `resolution` is where the user leaves it open; None: it follows the
      preset.
    num_val: Number of examples apart from both on which a run chooses its weights.
  """

  name: str
  protocol: str
  train_split: str
  test_split: str
  num_train: int
  num_test: int
  resolution: str | None = None
  num_val: int = 0

  def kept_size(self, side: int) -> tuple[int, int] | None:
    """Returns `kept_size` of its images."""
    return kept_size([self.image_size], side) if self.fixed_size else None

  def host_size(self, side: int) -> int | None:
    """Returns the side in pixels to which the host resizes images that are to have `side`.

    None where they keep their size.
    """
    return side if self.kept_size(side) is None else None

  def device_size(self, side: int) -> tuple[int, int]:
    """Returns the (height, width) that images which are to have `side` have on the device."""
    return self.kept_size(side) or (side, side)


# The splits of digits are those of `sources.arrays`; all others are in tfds' notation.
_TABLE = """
name              protocol train_split      test_split     num_train num_test num_classes image_size fixed_size flip_safe
cifar10           final    train            test               50000    10000          10      32x32        yes       yes
cifar10           select   train[:98%]      train[98%:]        49000     1000          10      32x32        yes       yes
cifar100          final    train            test               50000    10000         100      32x32        yes       yes
cifar100          select   train[:98%]      train[98%:]        49000     1000         100      32x32        yes       yes
imagenet2012      final    train            validation       1281167    50000        1000    375x500         no       yes
imagenet2012      select   train[:99%]      train[99%:]      1268355    12812        1000    375x500         no       yes
oxford_iiit_pet   final    train            test                3680     3669          37    375x500         no       yes
oxford_iiit_pet   select   train[:2944]     train[2944:]        2944      736          37    375x500         no       yes
oxford_flowers102 final    train+validation test                2040     6149         102    500x667         no       yes
oxford_flowers102 select   train            validation          1020     1020         102    500x667         no       yes
tf_flowers        final    train[:85%]      train[85%:]         3120      550           5    240x320         no       yes
tf_flowers        select   train[:70%]      train[70%:85%]      2569      551           5    240x320         no       yes
cats_vs_dogs      final    train[:90%]      train[90%:]        20936     2326           2    375x500         no       yes
cats_vs_dogs      select   train[:87%]      train[87%:90%]     20238      698           2    375x500         no       yes
digits            final    train            test                 797     1000          10        8x8        yes        no
digits            select   train/kept       train/held_out       638      159          10        8x8        yes        no
"""  # noqa: E501


_VTAB = "vtab/"  # before a task's name


def _specs() -> Iterator[DatasetSpec]:
  for row in vtab.rows(_TABLE):
    yield DatasetSpec(**row, tfds_name=None if row["name"] == "digits" else row["name"])
  for task, protocol in itertools.product(map(vtab.find, vtab.TASKS), PROTOCOLS):
    splits, final = task.splits, protocol == "final"
    yield DatasetSpec(
      name=f"{_VTAB}{task.name}",
      protocol=protocol,
      train_split=splits.train800val200 if final else splits.train800,
      test_split=splits.test if final else splits.val200,
      num_train=1_000 if final else 800,
      num_test=task.num_test if final else 200,
      resolution="paper",
      **task.facts(),
    )


_BY_NAME = {(spec.name, spec.protocol): spec for spec in _specs()}
_IN_TABLES = dict.fromkeys(name for name, _ in _BY_NAME)
NAMES = tuple(sorted((*_IN_TABLES, *OWN), key=lambda name: name.startswith(_VTAB)))  # VTAB last


def named(text: str, otherwise: str) -> Request:
  """Returns what a user's text names: a data set of the tables, or the path of images.

  Args:
    text: A name in `NAMES` that needs no path, or a path, which needn't exist if it has a slash or
      is called like an npz or a CSV file.
    otherwise: In a message, what to do but give './NAME', where it is both.

  Raises:
    UserError: It is the name of a data set and of a file, or of neither.
  """
  if text not in _IN_TABLES:
    is_word = "/" not in text.removeprefix(_VTAB) and not text.lower().endswith(_FILES)
    if is_word and not (text and paths.named(text).exists()):
      hint = phrases.did_you_mean(text, list(_IN_TABLES))
      raise errors.UserError(
        f"{text!r} is neither a file or folder here nor a data set{hint}: give the path of your "
        f"images, or the name of a data set such as cifar10, digits or vtab/svhn."
      )
    return Request(kind_of(text), path=text)
  if os.path.exists(text):
    raise errors.UserError(
      f"{text!r} is the name of a data set and of a file here: give './{text}' for the file, or "
      f"{otherwise}."
    )
  return Request(text)


def kind_of(path: str) -> str:
  """Returns the name in `OWN` of the user's images at a path."""
  return "npz" if path.lower().endswith(".npz") else "folder"


def require_known(name: str, protocol: str) -> None:
  """Raises a `UserError` unless there is such a data set and such a protocol."""
  if name not in NAMES:
    candidates = {known.removeprefix(_VTAB): known for known in reversed(NAMES)}
    candidates |= {known: known for known in NAMES}  # a task may be named without its prefix
    hint = phrases.did_you_mean(name, candidates)
    raise errors.UserError(
      f"Unknown data set {name!r}{hint}; the data sets are {', '.join(NAMES)}."
    )
  checks.one_of("protocol", protocol, PROTOCOLS)


def find(name: str, protocol: str) -> DatasetSpec:
  """Returns the facts of a data set that the tables hold: any but 'npz' and 'folder'.

  Raises:
    UserError: An unknown name or protocol.
  """
  require_known(name, protocol)
  return _BY_NAME[name, protocol]
