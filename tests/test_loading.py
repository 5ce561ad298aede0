"""Tests of bit_jax.data.loading."""

import dataclasses
import hashlib
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import sklearn

from bit_jax import errors
from bit_jax.data import datasets, loading


@pytest.fixture
def npz_path(tmp_path):
  rng = np.random.default_rng(0)
  path = tmp_path / "set.npz"
  np.savez(
    path,
    train_images=rng.integers(0, 256, (20, 4, 5, 3), dtype=np.uint8),
    train_labels=np.arange(20) % 2,
    test_images=rng.integers(0, 256, (6, 4, 5, 3), dtype=np.uint8),
    test_labels=np.arange(6) % 2,
  )
  return str(path)


@pytest.mark.parametrize("protocol", datasets.PROTOCOLS)
@pytest.mark.parametrize("name", ["digits", "npz"])
def test_sizes_are_those_of_the_description(name, protocol, npz_path):
  spec = datasets.find(name, protocol, npz_path if name == "npz" else None)
  train, test, _ = loading.load(spec)
  assert (len(train), len(test)) == (spec.num_train, spec.num_test)
  assert train.images.shape[1:] == test.images.shape[1:] == (*spec.image_size, 3)


def test_select_never_touches_the_test_set():
  pool, _, _ = loading.load(datasets.find("digits", "final"))
  train, held_out, _ = loading.load(datasets.find("digits", "select"))
  found = sorted(image.tobytes() for part in (train, held_out) for image in part.images)
  assert found == sorted(image.tobytes() for image in pool.images)


def test_the_version_identifies_the_data(npz_path):
  _, _, digits = loading.load(datasets.find("digits", "final"))
  _, _, npz = loading.load(datasets.find("npz", "final", npz_path))
  assert digits == f"digits of scikit-learn {sklearn.__version__}"
  path = pathlib.Path(npz_path)
  assert npz == f"{path.name}, sha256 {hashlib.sha256(path.read_bytes()).hexdigest()[:16]}"


@pytest.mark.parametrize(
  ("change", "said"),
  [
    ({"num_train": 798}, "797 training images where 798 were expected"),
    ({"num_test": 999}, "1000 test images where 999"),
    ({"num_classes": 11}, "10 classes where 11"),
    ({"image_size": (8, 9)}, r"\(8, 8\) pixels in each training image where \(8, 9\)"),
  ],
)
def test_another_version_is_noticed(change, said):
  spec = dataclasses.replace(datasets.find("digits", "final"), **change)
  with pytest.raises(errors.UserError, match=said):
    loading.load(spec)


def test_without_tensorflow_arrays_load_and_a_tfds_set_says_what_is_missing(npz_path):
  code = f"""
import sys
sys.modules["tensorflow"] = sys.modules["tensorflow_datasets"] = None
from bit_jax import errors
from bit_jax.data import arrays, datasets, device, fewshot, loading, order
print(*(len(e) for e in loading.load(datasets.find("digits", "final"))[:2]))
print(*(len(e) for e in loading.load(datasets.find("npz", "final", {npz_path!r}))[:2]))
try:
  loading.load(datasets.find("cifar10", "final"))
except errors.UserError as e:
  print(e)
"""
  done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
  digits, npz, message = done.stdout.splitlines()
  assert (digits, npz) == ("797 1000", "20 6")
  assert "read with tensorflow and tensorflow-datasets" in message
