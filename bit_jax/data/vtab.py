"""The 19 tasks of VTAB-1k as data: splits, sizes, classes, and what their labels survive.

Sources, column by column:
  task names: those of BiT's released VTAB checkpoints (official README);
  groups, and which random crops and flips were left out: BiT paper (arXiv 1912.11370),
    supplementary F;
  splits, numbers of examples, label derivations and scales: google-research/task_adaptation
    @d7630d3, `data/*.py` and their tests;
  image sizes and whether they are fixed: the features of tensorflow-datasets 4.9.10; where a
    builder fixes none, what its images typically have, for the rule asks on which side of 96 x 96
    pixels they lie.

tfds orders a split by the md5 of its examples' keys, so `train[:800]` is the same random subset
everywhere. Two sets deserve a word: smallNORB's validation part comes from the official test set
(other toys than in train), and CLEVR's test images have no labels, so its validation split is
the test set.
"""

import dataclasses
import difflib

from bit_jax.runtime import errors

NATURAL, SPECIALIZED, STRUCTURED = "natural", "specialized", "structured"


@dataclasses.dataclass(frozen=True)
class Splits:
  """Which examples are used when, in tfds' notation.

  Attributes:
    train: All that may be trained on while settings are chosen.
    val: What settings are chosen on.
    trainval: Both.
    test: What the score is computed on.
    train800: The first 800 of `train`.
    val200: The first 200 of `val`.
    train800val200: Both: the 1000 examples that give VTAB-1k its name.
  """

  train: str
  val: str
  trainval: str
  test: str
  train800: str
  val200: str
  train800val200: str


@dataclasses.dataclass(frozen=True)
class Task:
  """One task.

  Attributes:
    name: As in BiT's checkpoint names, such as 'clevr-count'.
    group: 'natural', 'specialized' or 'structured'.
    tfds_name: Builder, and config where it has several.
    splits: Which examples are used when.
    num_train: Examples in `splits.train`.
    num_val: Examples in `splits.val`.
    num_test: Examples in `splits.test`.
    num_classes: Number of classes.
    image_size: (height, width) in pixels; a typical one where they vary.
    fixed_size: Whether the builder fixes the size of its images.
    flip_safe: Whether the paper flipped images at random.
    crop_safe: Whether the paper cropped images at random.
    label: Name in `labels.DERIVATIONS`.
    pixel_scale: Grey levels are multiplied by it.
    class_names: Where the label is derived; None: the builder's own.
  """

  name: str
  group: str
  tfds_name: str
  splits: Splits
  num_train: int
  num_val: int
  num_test: int
  num_classes: int
  image_size: tuple[int, int]
  fixed_size: bool
  flip_safe: bool = True
  crop_safe: bool = True
  label: str = "label"
  pixel_scale: int = 1
  class_names: tuple[str, ...] | None = None

  @property
  def num_trainval(self) -> int:
    """Examples in `splits.trainval`."""
    return self.num_train + self.num_val


def find(name: str) -> Task:
  """Returns a task.

  Raises:
    UserError: There is no such task; names the closest one, and all.
  """
  if name not in _BY_NAME:
    close = difflib.get_close_matches(name, TASKS, n=1)
    hint = f" (did you mean {close[0]}?)" if close else ""
    raise errors.UserError(f"VTAB has no task {name!r}{hint}; the tasks are {', '.join(TASKS)}.")
  return _BY_NAME[name]


def _held_out(num_train: int) -> Splits:
  """Returns the splits of a set with a test split of its own, its train cut in two."""
  return _cut(num_train, f"train[{num_train}:]", "train", "test")


def _all_from_train(num_train: int, num_trainval: int) -> Splits:
  """Returns the splits of a set that has only train, cut in three."""
  return _cut(
    num_train,
    f"train[{num_train}:{num_trainval}]",
    f"train[:{num_trainval}]",
    f"train[{num_trainval}:]",
  )


def _cut(num_train: int, val: str, trainval: str, test: str) -> Splits:
  val200 = f"train[{num_train}:{num_train + 200}]"
  return Splits(
    train=f"train[:{num_train}]",
    val=val,
    trainval=trainval,
    test=test,
    train800="train[:800]",
    val200=val200,
    train800val200=f"train[:800]+{val200}",
  )


_OFFICIAL = Splits(
  train="train",
  val="validation",
  trainval="train+validation",
  test="test",
  train800="train[:800]",
  val200="validation[:200]",
  train800val200="train[:800]+validation[:200]",
)
_SMALLNORB = Splits(
  train="train",
  val="test[:50%]",
  trainval="train+test[:50%]",
  test="test[50%:]",
  train800="train[:800]",
  val200="test[:200]",
  train800val200="train[:800]+test[:200]",
)
# The sets with two tasks.
_CLEVR_COUNT = Task(
  name="clevr-count",
  group=STRUCTURED,
  tfds_name="clevr",
  splits=_cut(63_000, "train[63000:]", "train", "validation"),
  num_train=63_000,
  num_val=7_000,
  num_test=15_000,
  num_classes=8,
  image_size=(320, 480),
  fixed_size=False,  # all are of this size, but the builder doesn't say so
  crop_safe=False,
  label="clevr-count",
  class_names=tuple(f"{n} objects" for n in range(3, 11)),
)
_DSPRITES_XPOS = Task(
  name="dsprites-xpos",
  group=STRUCTURED,
  tfds_name="dsprites",
  splits=_all_from_train(589_824, 663_552),
  num_train=589_824,
  num_val=73_728,
  num_test=73_728,
  num_classes=16,
  image_size=(64, 64),
  fixed_size=True,
  flip_safe=False,
  crop_safe=False,
  label="dsprites-xpos",
  pixel_scale=255,  # tfds stores 0 and 1
  class_names=tuple(f"positions {i}-{i + 1}" for i in range(0, 32, 2)),
)
_SMALLNORB_AZIMUTH = Task(
  name="smallnorb-azimuth",
  group=STRUCTURED,
  tfds_name="smallnorb",
  splits=_SMALLNORB,
  num_train=24_300,
  num_val=12_150,
  num_test=12_150,
  num_classes=18,
  image_size=(96, 96),
  fixed_size=True,
  flip_safe=False,
  label="smallnorb-azimuth",
  class_names=tuple(f"{a} degrees" for a in range(0, 360, 20)),
)
_ORIENTATIONS = tuple(
  name for i in range(0, 40, 5) for name in (f"angles {i}-{i + 2}", f"angles {i + 3}-{i + 4}")
)

_ALL = (
  Task(
    name="caltech101",
    group=NATURAL,
    tfds_name="caltech101",
    splits=_held_out(2_754),
    num_train=2_754,
    num_val=306,
    num_test=6_084,
    num_classes=102,  # 101 and the background
    image_size=(200, 300),
    fixed_size=False,
  ),
  Task(
    name="cifar100",
    group=NATURAL,
    tfds_name="cifar100",
    splits=_held_out(45_000),
    num_train=45_000,
    num_val=5_000,
    num_test=10_000,
    num_classes=100,
    image_size=(32, 32),
    fixed_size=True,
  ),
  Task(
    name="dtd",
    group=NATURAL,
    tfds_name="dtd",
    splits=_OFFICIAL,
    num_train=1_880,
    num_val=1_880,
    num_test=1_880,
    num_classes=47,
    image_size=(480, 640),
    fixed_size=False,
  ),
  Task(
    name="oxford_flowers102",
    group=NATURAL,
    tfds_name="oxford_flowers102",
    splits=_OFFICIAL,
    num_train=1_020,
    num_val=1_020,
    num_test=6_149,
    num_classes=102,
    image_size=(500, 667),
    fixed_size=False,
  ),
  Task(
    name="oxford_iiit_pet",
    group=NATURAL,
    tfds_name="oxford_iiit_pet",
    splits=_held_out(2_944),
    num_train=2_944,
    num_val=736,
    num_test=3_669,
    num_classes=37,
    image_size=(375, 500),
    fixed_size=False,
  ),
  Task(
    name="sun397",
    group=NATURAL,
    tfds_name="sun397/tfds",
    splits=_OFFICIAL,
    num_train=76_128,  # tfds 4.9.10 leaves one out that can't be decoded; it isn't in train800
    num_val=10_875,
    num_test=21_750,
    num_classes=397,
    image_size=(300, 400),
    fixed_size=False,
  ),
  Task(
    name="svhn",
    group=NATURAL,
    tfds_name="svhn_cropped",
    splits=_held_out(65_931),
    num_train=65_931,
    num_val=7_326,
    num_test=26_032,
    num_classes=10,
    image_size=(32, 32),
    fixed_size=True,
  ),
  Task(
    name="patch_camelyon",
    group=SPECIALIZED,
    tfds_name="patch_camelyon",
    splits=_OFFICIAL,
    num_train=262_144,
    num_val=32_768,
    num_test=32_768,
    num_classes=2,
    image_size=(96, 96),
    fixed_size=True,
  ),
  Task(
    name="eurosat",
    group=SPECIALIZED,
    tfds_name="eurosat/rgb",
    splits=_all_from_train(16_200, 21_600),
    num_train=16_200,
    num_val=5_400,
    num_test=5_400,
    num_classes=10,
    image_size=(64, 64),
    fixed_size=True,
  ),
  Task(
    name="resisc45",
    group=SPECIALIZED,
    tfds_name="resisc45",
    splits=_all_from_train(18_900, 25_200),
    num_train=18_900,
    num_val=6_300,
    num_test=6_300,
    num_classes=45,
    image_size=(256, 256),
    fixed_size=True,
  ),
  Task(
    name="diabetic_retinopathy",
    group=SPECIALIZED,
    tfds_name="diabetic_retinopathy_detection/btgraham-300",
    splits=_OFFICIAL,
    num_train=35_126,
    num_val=10_906,
    num_test=42_670,
    num_classes=5,
    image_size=(540, 540),
    fixed_size=False,
  ),
  _CLEVR_COUNT,
  dataclasses.replace(
    _CLEVR_COUNT,
    name="clevr-distance",
    num_classes=6,
    label="clevr-distance",
    class_names=("<= 8", "8 to 8.5", "8.5 to 9", "9 to 9.5", "9.5 to 10", "> 10"),
  ),
  Task(
    name="dmlab",
    group=STRUCTURED,
    tfds_name="dmlab",
    splits=_OFFICIAL,
    num_train=65_550,
    num_val=22_628,
    num_test=22_735,
    num_classes=6,
    image_size=(360, 480),
    fixed_size=True,
    crop_safe=False,
  ),
  _DSPRITES_XPOS,
  dataclasses.replace(
    _DSPRITES_XPOS,
    name="dsprites-orientation",
    crop_safe=True,
    label="dsprites-orientation",
    class_names=_ORIENTATIONS,
  ),
  Task(
    name="kitti-distance",
    group=STRUCTURED,
    tfds_name="kitti",
    splits=_OFFICIAL,
    num_train=6_347,
    num_val=423,
    num_test=711,
    num_classes=4,
    image_size=(375, 1242),
    fixed_size=False,
    crop_safe=False,
    label="kitti-distance",
    class_names=("<= 8 m", "8 to 20 m", "> 20 m", "no vehicle"),
  ),
  _SMALLNORB_AZIMUTH,
  dataclasses.replace(
    _SMALLNORB_AZIMUTH,
    name="smallnorb-elevation",
    num_classes=9,
    flip_safe=True,
    label="smallnorb-elevation",
    class_names=tuple(f"{e} degrees" for e in range(30, 75, 5)),
  ),
)

_BY_NAME = {task.name: task for task in _ALL}
TASKS = tuple(_BY_NAME)
