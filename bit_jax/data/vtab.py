"""The 19 tasks of VTAB-1k as data: splits, sizes, classes, and which augmentation keeps the label.

Sources, column by column:

- task names: those of BiT's released VTAB checkpoints (official README);
- groups, and which random crops and flips were left out: BiT paper (arXiv 1912.11370),
  supplementary F;
- splits, numbers of examples, label derivations and scales: google-research/task_adaptation
  @d7630d3, `data/*.py` and their tests;
- image sizes and whether they are fixed: the features of tensorflow-datasets 4.9.10; where a
  builder fixes none, a typical size, as the rule only needs to know whether the area is below
  96 x 96 pixels.

tfds orders a split by the md5 of its examples' keys, so `train[:800]` is the same random subset
everywhere. Two special cases: the validation part of smallNORB comes from the official test set
(other toys than in train), and the test images of CLEVR have no labels, so its validation split is
the test set.
"""

import dataclasses
import re
from collections.abc import Iterator
from typing import Any

from bit_jax.runtime import errors, phrases

NATURAL, SPECIALIZED, STRUCTURED = "natural", "specialized", "structured"


@dataclasses.dataclass(frozen=True)
class Splits:
  """The splits of a task, in tfds' notation.

  Attributes:
    train: The whole training part.
    val: The whole validation part.
    test: The evaluated examples.
    val200: The first 200 examples of `val`.
    train800: The first 800 examples of `train`.
  """

  train: str
  val: str
  test: str
  val200: str
  train800: str = "train[:800]"

  @property
  def train800val200(self) -> str:
    """The 1000 examples that give VTAB-1k its name."""
    return f"{self.train800}+{self.val200}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Facts:
  """Facts about the images and labels of a data set, whatever its splits are.

  Attributes:
    tfds_name: The builder's name in tensorflow-datasets, with its config where it has several, such
      as 'eurosat/rgb'; None for other sources.
    num_classes: Number of classes; labels are 0 to `num_classes - 1`.
    image_size: (height, width) in pixels; a typical one where images differ in size.
    fixed_size: Whether every image has exactly `image_size`.
    flip_safe: Whether a mirrored image keeps its label; of VTAB: whether the paper flipped images.
    crop_safe: Whether a random crop keeps its image's label; of VTAB likewise.
    label: How the label follows from an example of tfds: a name in `labels.DERIVATIONS`.
    pixel_scale: Grey levels are multiplied by it to span 0 to 255.
    class_names: Names of the classes where the label is derived or the source is a folder; None:
      those that the source itself gives.
  """

  tfds_name: str | None = None
  num_classes: int
  image_size: tuple[int, int]
  fixed_size: bool
  flip_safe: bool = True
  crop_safe: bool = True
  label: str = "label"
  pixel_scale: int = 1
  class_names: tuple[str, ...] | None = None

  def facts(self) -> dict[str, Any]:
    """Returns the fields that all data sets have."""
    return {field.name: getattr(self, field.name) for field in dataclasses.fields(Facts)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task(Facts):
  """One task.

  Attributes:
    name: The name in BiT's checkpoint names, such as 'clevr-count'.
    group: 'natural', 'specialized' or 'structured'.
    splits: Its splits.
    num_train: Examples in `splits.train`.
    num_val: Examples in `splits.val`.
    num_test: Examples in `splits.test`.
  """

  name: str
  group: str
  splits: Splits
  num_train: int
  num_val: int
  num_test: int


def find(name: str) -> Task:
  """Returns a task.

  Raises:
    UserError: The name is unknown; the message lists the closest name and all names.
  """
  if name not in _BY_NAME:
    hint = phrases.did_you_mean(name, TASKS)
    raise errors.UserError(f"Unknown VTAB task {name!r}{hint}. The tasks are {', '.join(TASKS)}.")
  return _BY_NAME[name]


def _splits(kind: str, train: int, val: int) -> Splits:
  """Returns the splits of a task with so many training and validation examples.

  Args:
    kind: 'official' for train, validation and test; 'halved' and 'clevr' for a train split that is
      cut in two, with a test split or, of CLEVR, validation as the test set; 'thirds' for a train
      split that is cut in three; 'norb' for smallNORB.
    train: Training examples.
    val: Validation examples.
  """
  if kind == "official":
    return Splits("train", "validation", "test", "validation[:200]")
  if kind == "norb":
    return Splits("train", "test[:50%]", "test[50%:]", "test[:200]")
  val200 = f"train[{train}:{train + 200}]"
  if kind == "thirds":
    end = train + val
    return Splits(f"train[:{train}]", f"train[{train}:{end}]", f"train[{end}:]", val200)
  test = "validation" if kind == "clevr" else "test"
  return Splits(f"train[:{train}]", f"train[{train}:]", test, val200)


# Of the tasks whose label is derived; a task's name is also that of its derivation in `labels`.
_CLASS_NAMES = {
  "clevr-count": tuple(f"{n} objects" for n in range(3, 11)),
  "clevr-distance": ("<= 8", "8 to 8.5", "8.5 to 9", "9 to 9.5", "9.5 to 10", "> 10"),
  "dsprites-xpos": tuple(f"positions {i}-{i + 1}" for i in range(0, 32, 2)),
  "dsprites-orientation": tuple(
    name for i in range(0, 40, 5) for name in (f"angles {i}-{i + 2}", f"angles {i + 3}-{i + 4}")
  ),
  "kitti-distance": ("<= 8 m", "8 to 20 m", "> 20 m", "no vehicle"),
  "smallnorb-azimuth": tuple(f"{a} degrees" for a in range(0, 360, 20)),
  "smallnorb-elevation": tuple(f"{e} degrees" for e in range(30, 75, 5)),
}
# caltech101 has 101 classes and the background. tfds 4.9.10 leaves out an undecodable image of
# sun397, which isn't in train800. All images of clevr have this size, but its builder doesn't say
# so. tfds stores the pixels of dsprites as 0 and 1.
_TABLE = """
name                 group       splits   num_train num_val num_test num_classes image_size fixed_size flip_safe crop_safe pixel_scale tfds_name
caltech101           natural     halved        2754     306     6084         102    200x300         no       yes       yes           1 caltech101
cifar100             natural     halved       45000    5000    10000         100      32x32        yes       yes       yes           1 cifar100
dtd                  natural     official      1880    1880     1880          47    480x640         no       yes       yes           1 dtd
oxford_flowers102    natural     official      1020    1020     6149         102    500x667         no       yes       yes           1 oxford_flowers102
oxford_iiit_pet      natural     halved        2944     736     3669          37    375x500         no       yes       yes           1 oxford_iiit_pet
sun397               natural     official     76128   10875    21750         397    300x400         no       yes       yes           1 sun397/tfds
svhn                 natural     halved       65931    7326    26032          10      32x32        yes       yes       yes           1 svhn_cropped
patch_camelyon       specialized official    262144   32768    32768           2      96x96        yes       yes       yes           1 patch_camelyon
eurosat              specialized thirds       16200    5400     5400          10      64x64        yes       yes       yes           1 eurosat/rgb
resisc45             specialized thirds       18900    6300     6300          45    256x256        yes       yes       yes           1 resisc45
diabetic_retinopathy specialized official     35126   10906    42670           5    540x540         no       yes       yes           1 diabetic_retinopathy_detection/btgraham-300
clevr-count          structured  clevr        63000    7000    15000           8    320x480         no       yes        no           1 clevr
clevr-distance       structured  clevr        63000    7000    15000           6    320x480         no       yes        no           1 clevr
dmlab                structured  official     65550   22628    22735           6    360x480        yes       yes        no           1 dmlab
dsprites-xpos        structured  thirds      589824   73728    73728          16      64x64        yes        no        no         255 dsprites
dsprites-orientation structured  thirds      589824   73728    73728          16      64x64        yes        no       yes         255 dsprites
kitti-distance       structured  official      6347     423      711           4   375x1242         no       yes        no           1 kitti
smallnorb-azimuth    structured  norb         24300   12150    12150          18      96x96        yes        no       yes           1 smallnorb
smallnorb-elevation  structured  norb         24300   12150    12150           9      96x96        yes       yes       yes           1 smallnorb
"""  # noqa: E501


def rows(table: str) -> Iterator[dict[str, Any]]:
  """Yields each row of a table as {column: value}: yes and no, numbers and sizes are converted."""
  names, *lines = map(str.split, table.strip().splitlines())
  for line in lines:
    yield dict(zip(names, map(_value, line), strict=True))


def _value(text: str) -> Any:
  if text in ("yes", "no"):
    return text == "yes"
  if re.fullmatch(r"\d+x\d+", text):
    return tuple(map(int, text.split("x")))
  return int(text) if text.isdecimal() else text


def _tasks() -> Iterator[Task]:
  for row in rows(_TABLE):
    name, kind = row["name"], row.pop("splits")
    splits = _splits(kind, row["num_train"], row["num_val"])
    label = name if name in _CLASS_NAMES else "label"
    yield Task(**row, splits=splits, label=label, class_names=_CLASS_NAMES.get(name))


_BY_NAME = {task.name: task for task in _tasks()}
TASKS = tuple(_BY_NAME)
