"""Tests of bit_jax.data.datasets."""

import subprocess
import sys

import numpy as np
import pytest

from bit_jax import errors
from bit_jax.data import datasets


@pytest.mark.parametrize(("name", "num_classes"), [("cifar10", 10), ("cifar100", 100)])
def test_cifar_final_is_all_of_train_and_the_official_test_set(name, num_classes):
  spec = datasets.find(name, "final")
  assert (spec.train_split, spec.test_split) == ("train", "test")
  assert (spec.num_train, spec.num_test, spec.num_classes) == (50_000, 10_000, num_classes)
  assert (spec.source, spec.tfds_name, spec.image_size) == ("tfds", name, (32, 32))
  assert spec.flip_safe
  assert spec.crop_safe


def test_cifar_select_holds_out_the_official_two_percent():
  spec = datasets.find("cifar10", "select")
  assert (spec.train_split, spec.test_split) == ("train[:98%]", "train[98%:]")
  assert (spec.num_train, spec.num_test) == (49_000, 1_000)


def test_digits_are_not_flipped():
  spec = datasets.find("digits", "final")
  assert (spec.num_train, spec.num_test, spec.image_size) == (797, 1_000, (8, 8))
  assert not spec.flip_safe
  assert spec.crop_safe


def test_npz_sizes_come_from_the_file(tmp_path):
  path = str(tmp_path / "a.npz")
  labels = np.repeat(np.arange(3), 10)
  images = np.zeros((30, 5, 7, 3), np.uint8)
  np.savez(
    path, train_images=images, train_labels=labels, test_images=images[:4], test_labels=labels[:4]
  )
  final, select = (datasets.find("npz", protocol, path) for protocol in datasets.PROTOCOLS)
  assert (final.num_train, final.num_test, final.num_classes) == (30, 4, 3)
  assert final.image_size == (5, 7)
  assert final.path == path
  assert (select.num_train, select.num_test) == (24, 6)


@pytest.mark.parametrize(
  ("arguments", "named"),
  [
    (("cifar11", "final"), "cifar10, cifar100, digits, npz"),
    (("cifar10", "finale"), "final, select"),
    (("npz", "final"), "path=FILE.npz"),
    (("digits", "final", "a.npz"), "takes no path"),
  ],
)
def test_mistakes_name_what_is_allowed(arguments, named):
  with pytest.raises(errors.UserError, match=named):
    datasets.find(*arguments)


def test_imports_neither_numpy_nor_jax_nor_tensorflow():
  code = (
    "import sys; from bit_jax.data import datasets; datasets.find('cifar10', 'final');"
    "print({'numpy', 'jax', 'tensorflow'} & set(sys.modules))"
  )
  done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
  assert done.stdout.strip() == "set()"
