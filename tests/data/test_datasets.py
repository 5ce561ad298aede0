"""Tests of bit_jax.data.datasets."""

import numpy as np
import pytest
import splitting

from bit_jax import hyperrule
from bit_jax.data import datasets, vtab
from bit_jax.runtime import errors

# name: classes; expressions and sizes of 'final', and of 'select'.
TFDS = {
  "cifar10": (
    10,
    ("train", "test", 50_000, 10_000),
    ("train[:98%]", "train[98%:]", 49_000, 1_000),
  ),
  "cifar100": (
    100,
    ("train", "test", 50_000, 10_000),
    ("train[:98%]", "train[98%:]", 49_000, 1_000),
  ),
  "imagenet2012": (
    1000,
    ("train", "validation", 1_281_167, 50_000),
    ("train[:99%]", "train[99%:]", 1_268_355, 12_812),
  ),
  "oxford_iiit_pet": (
    37,
    ("train", "test", 3_680, 3_669),
    ("train[:2944]", "train[2944:]", 2_944, 736),
  ),
  "oxford_flowers102": (
    102,
    ("train+validation", "test", 2_040, 6_149),
    ("train", "validation", 1_020, 1_020),
  ),
  "tf_flowers": (
    5,
    ("train[:85%]", "train[85%:]", 3_120, 550),
    ("train[:70%]", "train[70%:85%]", 2_569, 551),
  ),
  "cats_vs_dogs": (
    2,
    ("train[:90%]", "train[90%:]", 20_936, 2_326),
    ("train[:87%]", "train[87%:90%]", 20_238, 698),
  ),
}
FIXED_SIZE = SMALL_IMAGES = ("cifar10", "cifar100")
# Examples in each split of the builders.
SPLIT_SIZES = {
  "cifar10": {"train": 50_000, "test": 10_000},
  "cifar100": {"train": 50_000, "test": 10_000},
  "imagenet2012": {"train": 1_281_167, "validation": 50_000, "test": 100_000},
  "oxford_iiit_pet": {"train": 3_680, "test": 3_669},
  "oxford_flowers102": {"train": 1_020, "validation": 1_020, "test": 6_149},
  "tf_flowers": {"train": 3_670},
  "cats_vs_dogs": {"train": 23_262},
}


def test_every_name_has_a_description():
  plain = (*TFDS, "digits", "npz", "folder")
  assert (*plain, *(f"vtab/{task}" for task in vtab.TASKS)) == datasets.NAMES


@pytest.mark.parametrize("protocol", datasets.PROTOCOLS)
@pytest.mark.parametrize("name", TFDS)
def test_a_set_of_tfds_under_a_protocol(name, protocol):
  spec = datasets.find(name, protocol)
  num_classes, final, select = TFDS[name]
  found = (spec.train_split, spec.test_split, spec.num_train, spec.num_test)
  assert found == (final if protocol == "final" else select)
  assert (spec.name, spec.tfds_name) == (name, name)
  assert spec.num_classes == num_classes
  assert spec.fixed_size is (name in FIXED_SIZE)
  low = hyperrule.resolution(spec.image_size, "BiT-M-R50x1", "code") == (160, 128)
  assert low is (name in SMALL_IMAGES)
  assert (spec.label, spec.pixel_scale) == ("label", 1)
  assert (spec.resolution, spec.class_names) == (None, None)
  assert spec.flip_safe
  assert spec.crop_safe


@pytest.mark.parametrize("protocol", datasets.PROTOCOLS)
@pytest.mark.parametrize("name", TFDS)
def test_the_sizes_are_those_that_tfds_gives_the_expressions(name, protocol):
  spec = datasets.find(name, protocol)
  train = splitting.positions(SPLIT_SIZES[name], spec.train_split)
  test = splitting.positions(SPLIT_SIZES[name], spec.test_split)
  assert (len(train), len(test)) == (spec.num_train, spec.num_test)
  assert not np.intersect1d(train, test).size


@pytest.mark.parametrize("name", TFDS)
def test_select_never_looks_at_the_test_set(name):
  final, select = (datasets.find(name, protocol) for protocol in ("final", "select"))

  def positions(expression):
    return splitting.positions(SPLIT_SIZES[name], expression)

  used = np.concatenate([positions(select.train_split), positions(select.test_split)])
  assert not np.intersect1d(used, positions(final.test_split)).size
  assert np.isin(used, positions(final.train_split)).all()


@pytest.mark.parametrize("protocol", datasets.PROTOCOLS)
def test_cats_vs_dogs_are_enough_for_the_rule_to_mix(protocol):
  spec = datasets.find("cats_vs_dogs", protocol)
  assert hyperrule.regime(spec.num_train) == hyperrule.regime(23_262)
  assert hyperrule.regime(spec.num_train).mixup_alpha == 0.1


def test_digits_are_not_flipped():
  spec = datasets.find("digits", "final")
  assert (spec.num_train, spec.num_test, spec.image_size) == (797, 1_000, (8, 8))
  assert not spec.flip_safe
  assert spec.crop_safe


@pytest.mark.parametrize(
  ("arguments", "named"),
  [
    (("cifar11", "final"), r"did you mean cifar10\?.*cifar10, cifar100, .* npz, folder, vtab/cal"),
    (("svhn", "final"), r"did you mean vtab/svhn\?"),
    (("vtab/svnh", "final"), r"did you mean vtab/svhn\?"),
    (("mnist-1d", "final"), "Unknown data set 'mnist-1d'; the data sets are"),
    (("cifar10", "finale"), "final, select"),
  ],
)
def test_mistakes_name_what_is_allowed(arguments, named):
  with pytest.raises(errors.UserError, match=named):
    datasets.find(*arguments)


def test_imports_neither_numpy_nor_jax_nor_tensorflow(printed_by):
  code = (
    "import sys; from bit_jax.data import datasets, labels, vtab;"
    "datasets.find('vtab/clevr-count', 'final'); labels.clevr_distance([3]); vtab.find('svhn');"
    "print({'numpy', 'jax', 'tensorflow'} & set(sys.modules))"
  )
  assert printed_by(code).strip() == "set()"


def test_a_text_is_the_name_of_a_data_set_or_the_path_of_images(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  for text in ("photos", "folder", "npz", ""):
    with pytest.raises(errors.UserError, match=f"'{text}' is neither a file or folder here nor"):
      datasets.named(text, "rename it")
  for text in ("photos", "folder", "npz"):
    (tmp_path / text).mkdir()
  for text, name in (
    *((text, "folder") for text in ("photos", "a.csv", "folder", "npz", "./digits", "s3://x")),
    *((text, "npz") for text in ("a.npz", "~/a/B.NPZ")),
  ):
    assert datasets.named(text, "rename it") == datasets.Request(name, path=text)
  for text in ("digits", "vtab/svhn"):
    assert datasets.named(text, "rename it") == datasets.Request(text)
    (tmp_path / text).mkdir(parents=True)
    with pytest.raises(errors.UserError, match=f"give './{text}' for the file, or rename it"):
      datasets.named(text, "rename it")
