"""Tests of bit_jax.data.vtab: against the published tables, and tfds' own order of examples."""

import hashlib

import numpy as np
import pytest
import splitting

from bit_jax import hyperrule
from bit_jax.data import datasets, labels, vtab
from bit_jax.runtime import errors

# Examples in each split of the builders.
SPLIT_SIZES = {
  "caltech101": {"train": 3_060, "test": 6_084},
  "cifar100": {"train": 50_000, "test": 10_000},
  "dtd": {"train": 1_880, "validation": 1_880, "test": 1_880},
  "oxford_flowers102": {"train": 1_020, "validation": 1_020, "test": 6_149},
  "oxford_iiit_pet": {"train": 3_680, "test": 3_669},
  "sun397/tfds": {"train": 76_128, "validation": 10_875, "test": 21_750},
  "svhn_cropped": {"train": 73_257, "test": 26_032},
  "patch_camelyon": {"train": 262_144, "validation": 32_768, "test": 32_768},
  "eurosat/rgb": {"train": 27_000},
  "resisc45": {"train": 31_500},
  "diabetic_retinopathy_detection/btgraham-300": {
    "train": 35_126,
    "validation": 10_906,
    "test": 42_670,
  },
  "clevr": {"train": 70_000, "validation": 15_000, "test": 15_000},
  "dmlab": {"train": 65_550, "validation": 22_628, "test": 22_735},
  "dsprites": {"train": 737_280},
  "kitti": {"train": 6_347, "validation": 423, "test": 711},
  "smallnorb": {"train": 24_300, "test": 24_300},
}

# task: group, classes, train, val, trainval, test.
TABLE = {
  "caltech101": ("natural", 102, 2754, 306, 3060, 6084),
  "cifar100": ("natural", 100, 45000, 5000, 50000, 10000),
  "dtd": ("natural", 47, 1880, 1880, 3760, 1880),
  "oxford_flowers102": ("natural", 102, 1020, 1020, 2040, 6149),
  "oxford_iiit_pet": ("natural", 37, 2944, 736, 3680, 3669),
  "sun397": ("natural", 397, 76128, 10875, 87003, 21750),
  "svhn": ("natural", 10, 65931, 7326, 73257, 26032),
  "patch_camelyon": ("specialized", 2, 262144, 32768, 294912, 32768),
  "eurosat": ("specialized", 10, 16200, 5400, 21600, 5400),
  "resisc45": ("specialized", 45, 18900, 6300, 25200, 6300),
  "diabetic_retinopathy": ("specialized", 5, 35126, 10906, 46032, 42670),
  "clevr-count": ("structured", 8, 63000, 7000, 70000, 15000),
  "clevr-distance": ("structured", 6, 63000, 7000, 70000, 15000),
  "dmlab": ("structured", 6, 65550, 22628, 88178, 22735),
  "dsprites-xpos": ("structured", 16, 589824, 73728, 663552, 73728),
  "dsprites-orientation": ("structured", 16, 589824, 73728, 663552, 73728),
  "kitti-distance": ("structured", 4, 6347, 423, 6770, 711),
  "smallnorb-azimuth": ("structured", 18, 24300, 12150, 36450, 12150),
  "smallnorb-elevation": ("structured", 9, 24300, 12150, 36450, 12150),
}
LOW_RESOLUTION = {"cifar100", "svhn", "eurosat", "dsprites-xpos", "dsprites-orientation"}
NO_CROP = {"clevr-count", "clevr-distance", "dmlab", "kitti-distance", "dsprites-xpos"}
NO_FLIP = {"dsprites-xpos", "dsprites-orientation", "smallnorb-azimuth"}


def in_order(split, keys):
  """Returns the keys in the order in which tfds stores them."""
  return sorted(keys, key=lambda k: hashlib.md5(f"{split}{k}".encode()).digest())


def chosen(task_name, expression, keys):
  """Returns the keys that an expression selects, from {split: all of its keys, unordered}."""
  task = vtab.find(task_name)
  sizes = {split: len(k) for split, k in keys.items()}
  assert sizes == {s: SPLIT_SIZES[task.tfds_name][s] for s in keys}
  found = []
  for split, start, end in splitting.select(sizes, expression):
    found += in_order(split, keys[split])[start:end]
  return found


def test_there_are_the_nineteen_tasks():
  assert list(vtab.TASKS) == list(TABLE)
  groups = [vtab.find(t).group for t in vtab.TASKS]
  assert [groups.count(g) for g in ("natural", "specialized", "structured")] == [7, 4, 8]


@pytest.mark.parametrize("name", TABLE)
def test_a_row_of_the_table(name):
  task = vtab.find(name)
  counts = (task.num_train, task.num_val, task.num_train + task.num_val, task.num_test)
  assert (task.group, task.num_classes, *counts) == TABLE[name]
  assert task.crop_safe is (name not in NO_CROP)
  assert task.flip_safe is (name not in NO_FLIP)
  assert task.pixel_scale == (255 if name.startswith("dsprites") else 1)
  derived = name.partition("-")[0] in ("clevr", "dsprites", "kitti", "smallnorb")
  assert task.label == (name if derived else "label")
  assert task.label in labels.DERIVATIONS
  assert (task.class_names is not None) is derived
  if derived:
    assert len(set(task.class_names)) == task.num_classes


@pytest.mark.parametrize("name", TABLE)
def test_split_expressions_select_what_they_should(name):
  task = vtab.find(name)
  sizes = SPLIT_SIZES[task.tfds_name]

  def positions(expression):
    return splitting.positions(sizes, expression).tolist()

  splits = task.splits
  train, val, test = (positions(e) for e in (splits.train, splits.val, splits.test))
  assert (len(train), len(val), len(test)) == (task.num_train, task.num_val, task.num_test)
  assert positions(splits.train800) == train[:800]
  assert positions(splits.val200) == val[:200]
  assert positions(splits.train800val200) == train[:800] + val[:200]
  assert len({*train, *val, *test}) == len(train) + len(val) + len(test)


@pytest.mark.parametrize(("model", "high"), [("BiT-M-R50x1", (448, 384)), ("R152x4", (512, 480))])
def test_exactly_five_tasks_have_a_low_resolution(model, high):
  found = {t: hyperrule.resolution(vtab.find(t).image_size, model, "paper") for t in vtab.TASKS}
  assert found == {t: (160, 128) if t in LOW_RESOLUTION else high for t in vtab.TASKS}


@pytest.mark.parametrize("name", TABLE)
def test_the_protocols_are_thousand_and_eight_hundred(name):
  task = vtab.find(name)
  final = datasets.find(f"vtab/{name}", "final")
  assert (final.train_split, final.test_split) == (task.splits.train800val200, task.splits.test)
  assert (final.num_train, final.num_test) == (1_000, TABLE[name][-1])
  select = datasets.find(f"vtab/{name}", "select")
  assert (select.train_split, select.test_split) == (task.splits.train800, task.splits.val200)
  assert (select.num_train, select.num_test) == (800, 200)
  for spec in (final, select):
    assert (spec.tfds_name, spec.resolution) == (task.tfds_name, "paper")
    for field in ("num_classes", "image_size", "fixed_size", "label", "pixel_scale"):
      assert getattr(spec, field) == getattr(task, field)
    for field in ("crop_safe", "flip_safe", "class_names"):
      assert getattr(spec, field) == getattr(task, field)


@pytest.mark.parametrize(
  ("name", "meant"), [("svnh", "svhn"), ("clevr_count", "clevr-count"), ("SVHN", None), ("", None)]
)
def test_a_mistyped_task_is_answered_with_the_close_one_and_all(name, meant):
  hint = rf" \(did you mean {meant}\?\)" if meant else ""
  with pytest.raises(errors.UserError, match=f"task '{name}'{hint}. .* caltech101, .* svhn"):
    vtab.find(name)


# The first examples of the subsets, as they come of the md5 order of tfds' keys.


def test_cifar100_subset():
  splits = vtab.find("cifar100").splits
  keys = {"train": range(50_000)}
  first = chosen("cifar100", splits.train800, keys)
  assert first[:5] == [16399, 1680, 47917, 17307, 27051]
  held_out = chosen("cifar100", splits.val200, keys)
  assert held_out[:3] == [13431, 9237, 17462]
  assert chosen("cifar100", splits.train800val200, keys) == first + held_out


def test_svhn_subset():
  splits = vtab.find("svhn").splits
  keys = {"train": range(73_257)}
  first = chosen("svhn", splits.train800, keys)
  assert first[:6] == [16399, 1680, 47917, 17307, 27051, 70594]
  assert chosen("svhn", splits.val200, keys)[:3] == [21145, 64736, 23870]


@pytest.mark.parametrize("task", ["smallnorb-azimuth", "smallnorb-elevation"])
def test_smallnorb_subset(task):
  splits = vtab.find(task).splits
  keys = {"train": range(24_300), "test": range(24_300)}
  assert chosen(task, splits.train800, keys)[:5] == [16399, 1680, 17307, 1456, 19135]
  assert chosen(task, splits.val200, keys)[:3] == [23018, 16932, 19084]
  assert chosen(task, splits.test, keys)[:3] == [299, 2838, 15595]
  thousand = chosen(task, splits.train800val200, keys)
  assert thousand[:2] + thousand[800:802] == [16399, 1680, 23018, 16932]


@pytest.mark.parametrize("task", ["clevr-count", "clevr-distance"])
def test_clevr_subset(task):
  splits = vtab.find(task).splits
  keys = {"train": [f"CLEVR_train_{i:06d}.png" for i in range(70_000)]}
  first = ["CLEVR_train_043876.png", "CLEVR_train_033421.png", "CLEVR_train_062025.png"]
  assert chosen(task, splits.train800, keys)[:3] == first
  held_out = ["CLEVR_train_035084.png", "CLEVR_train_029360.png"]
  assert chosen(task, splits.val200, keys)[:2] == held_out


def test_patch_camelyon_subset():
  splits = vtab.find("patch_camelyon").splits
  keys = {
    "train": [f"train_{i}" for i in range(262_144)],
    "validation": [f"valid_{i}" for i in range(32_768)],
  }
  first = ["train_251464", "train_132287", "train_133786"]
  assert chosen("patch_camelyon", splits.train800, keys)[:3] == first
  assert chosen("patch_camelyon", splits.val200, keys)[:2] == ["valid_3270", "valid_10310"]


@pytest.mark.slow
def test_dsprites_subset_and_its_positions():
  splits = vtab.find("dsprites-xpos").splits
  keys = {"train": range(737_280)}
  thousand = chosen("dsprites-xpos", splits.train800val200, keys)
  assert thousand[:3] == [16399, 634903, 206287]
  assert thousand[800:803] == [220697, 85843, 84902]
  counts = np.bincount(
    [
      labels.DERIVATIONS["dsprites-xpos"].derive({"label_x_position": i // 32 % 32})
      for i in thousand
    ]
  )
  expected = [68, 53, 57, 54, 60, 62, 62, 63, 69, 65, 63, 68, 66, 60, 69, 61]
  np.testing.assert_array_equal(counts, expected)


def test_sun397_subset_and_its_classes():
  import tensorflow_datasets as tfds

  folder = tfds.core.tfds_path("image_classification")
  keys = {
    "train": (folder / "sun397_tfds_tr.txt").read_text().split(),
    "validation": (folder / "sun397_tfds_va.txt").read_text().split(),
  }
  splits = vtab.find("sun397").splits
  first = chosen("sun397", splits.train800, keys)
  assert first[0] == "/r/rope_bridge/sun_biqflnsoednmhvce.jpg"
  held_out = chosen("sun397", splits.val200, keys)
  assert held_out[0] == "/b/boathouse/sun_armmkazxnlvxglwr.jpg"
  thousand = chosen("sun397", splits.train800val200, keys)
  classes = [len({k.rpartition("/")[0] for k in part}) for part in (first, held_out, thousand)]
  assert classes == [309, 136, 325]


# Against the builders of the installed tensorflow-datasets.


@pytest.fixture(scope="module")
def builder_of(tmp_path_factory):
  """Returns the unprepared builder of a task."""
  from bit_jax.runtime import imports

  imports.tensorflow()
  import tensorflow_datasets as tfds

  folder = tmp_path_factory.mktemp("empty")
  return lambda name: tfds.builder(vtab.find(name).tfds_name, data_dir=folder, try_gcs=False)


@pytest.mark.slow
@pytest.mark.parametrize("name", TABLE)
def test_the_builder_has_the_images_and_the_features_of_the_label(name, builder_of):
  import tensorflow_datasets as tfds

  task = vtab.find(name)
  features = builder_of(name).info.features
  wanted = {"image": True, **labels.DERIVATIONS[task.label].features}
  partial = tfds.decode.PartialDecoding(wanted).extract_features(features)
  height, width, _ = partial["image"].shape
  assert task.fixed_size is (height is not None)
  if task.fixed_size:
    assert task.image_size == (height, width)
  if task.class_names is None:
    assert partial["label"].num_classes == task.num_classes


@pytest.mark.slow
@pytest.mark.parametrize(
  ("name", "objects", "label"),
  [
    ("clevr-count", {"pixel_coords": [(1, 2, 8.7), (3, 4, 9.9), (5, 6, 11.0), (0, 0, 12)]}, 1),
    ("clevr-distance", {"pixel_coords": [(1, 2, 8.7), (3, 4, 8.25), (5, 6, 11.0)]}, 1),
    ("kitti-distance", {"type": [3, 2, 0], "location": [(0, 0, 1), (0, 0, 25), (0, 0, 21)]}, 2),
    ("kitti-distance", {"type": [], "location": []}, 3),
  ],
)
def test_labels_come_from_decoded_records(name, objects, label, builder_of):
  import tensorflow_datasets as tfds

  derivation = labels.DERIVATIONS[vtab.find(name).label]
  partial = tfds.decode.PartialDecoding(derivation.features)
  features = partial.extract_features(builder_of(name).info.features)
  count = len(next(iter(objects.values())))
  rows = [{k: np.array(v[i], np.float32) for k, v in objects.items()} for i in range(count)]
  for row in rows:
    if "type" in row:
      row["type"] = int(row["type"])
  record = features.serialize_example(features.encode_example({"objects": rows}))
  example = tfds.as_numpy(features.deserialize_example(record))
  assert derivation.derive(example) == label


@pytest.mark.slow
def test_the_held_out_200_of_cifar100_cover_90_classes(tfds_dir):
  from bit_jax.runtime import imports

  imports.tensorflow()
  import tensorflow_datasets as tfds

  def found(split):
    labels_only = {"label": True}
    dataset = tfds.load(
      "cifar100",
      split=split,
      data_dir=tfds_dir,
      decoders=tfds.decode.PartialDecoding(labels_only),
      read_config=tfds.ReadConfig(interleave_cycle_length=1),
    )
    return [int(e["label"]) for e in tfds.as_numpy(dataset)]

  splits = vtab.find("cifar100").splits
  held_out = found(splits.val200)
  assert (len(held_out), len(set(held_out))) == (200, 90)
  assert found(splits.train800val200) == found(splits.train800) + held_out
