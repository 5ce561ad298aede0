"""Tests of bit_jax.data.host: slow ones, for importing TensorFlow alone takes seconds."""

import pathlib
import socket

import numpy as np
import pytest

from bit_jax import errors
from bit_jax.data import datasets, loading

pytestmark = pytest.mark.slow


def pixels(seed, shape):
  return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


@pytest.fixture(scope="module")
def host():
  from bit_jax.data import host as module

  return module


@pytest.fixture(scope="module")
def tiny_dir(tmp_path_factory, host):
  """A prepared folder with three small sets: colour, grey, and of many sizes."""
  import tensorflow_datasets as tfds

  folder = str(tmp_path_factory.mktemp("tfds"))
  forms = {
    "tiny_colour": ((4, 5, 3), lambda i: (4, 5, 3)),
    "tiny_grey": ((4, 5, 1), lambda i: (4, 5, 1)),
    "tiny_mixed": ((None, None, 3), lambda i: (4 + i, 5, 3)),
  }
  for name, (shape, shape_of) in forms.items():
    image = tfds.features.Image(shape=shape, encoding_format="png")
    label = tfds.features.ClassLabel(names=["ant", "bee", "cat"])
    tfds.dataset_builders.store_as_tfds_dataset(
      name=name,
      version="1.2.3",
      data_dir=folder,
      disable_shuffling=True,
      features=tfds.features.FeaturesDict({"image": image, "label": label}),
      split_datasets={
        "train": [(i, {"image": pixels(i, shape_of(i)), "label": i % 3}) for i in range(10)],
      },
    )
  return folder


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
  def refuse(*arguments, **_):
    raise AssertionError(f"the network was asked: {arguments}")

  monkeypatch.setattr(socket.socket, "connect", refuse)
  monkeypatch.setattr(socket, "getaddrinfo", refuse)


def test_records_come_decoded_and_in_order(host, tiny_dir):
  examples, version = host.load_split("tiny_colour", "train", tiny_dir)
  np.testing.assert_array_equal(examples.images, [pixels(i, (4, 5, 3)) for i in range(10)])
  assert examples.images.dtype == np.uint8
  assert examples.labels.tolist() == [i % 3 for i in range(10)]
  assert examples.labels.dtype == np.int32
  assert examples.class_names == ("ant", "bee", "cat")
  assert version == "1.2.3"


def test_parts_of_a_split_are_its_records_in_order(host, tiny_dir):
  whole, _ = host.load_split("tiny_colour", "train", tiny_dir)
  for split, indices in (("train[:80%]", range(8)), ("train[80%:]", range(8, 10))):
    part, _ = host.load_split("tiny_colour", split, tiny_dir)
    np.testing.assert_array_equal(part.images, whole.images[list(indices)])
    np.testing.assert_array_equal(part.labels, whole.labels[list(indices)])


def test_grey_images_get_three_equal_channels(host, tiny_dir):
  examples, _ = host.load_split("tiny_grey", "train", tiny_dir)
  assert examples.images.shape == (10, 4, 5, 3)
  for channel in range(3):
    np.testing.assert_array_equal(examples.images[3, ..., channel], pixels(3, (4, 5, 1))[..., 0])


def test_images_of_many_sizes_are_refused(host, tiny_dir):
  with pytest.raises(errors.UserError, match="tiny_mixed differ in size"):
    host.load_split("tiny_mixed", "train", tiny_dir)


def test_an_unprepared_set_says_where_it_looked_and_how_to_prepare_it(host, tmp_path):
  with pytest.raises(errors.UserError) as caught:
    host.load_split("cifar10", "train", str(tmp_path))
  message = str(caught.value)
  assert str(tmp_path / "cifar10") in message
  assert "tfds.builder('cifar10').download_and_prepare()" in message
  assert "TFDS_DATA_DIR" in message
  assert not list(tmp_path.rglob("*.tfrecord*"))


def test_an_unknown_set_and_an_unknown_split_are_named(host, tiny_dir):
  with pytest.raises(errors.UserError, match="no data set 'tiny_absent'"):
    host.load_split("tiny_absent", "train", tiny_dir)
  for split in ("test", "train[:5"):
    with pytest.raises(errors.UserError, match="tiny_colour has no split") as caught:
      host.load_split("tiny_colour", split, tiny_dir)
    assert split in str(caught.value)


def test_a_missing_or_damaged_file_is_noticed(host, tiny_dir):
  (record,) = pathlib.Path(tiny_dir).glob("tiny_colour/*/*.tfrecord*")
  intact = record.read_bytes()
  try:
    record.write_bytes(intact[:-10])
    with pytest.raises(errors.UserError, match="incomplete or damaged"):
      host.load_split("tiny_colour", "train", tiny_dir)
    record.unlink()
    with pytest.raises(errors.UserError, match="incomplete or damaged"):
      host.load_split("tiny_colour", "train", tiny_dir)
  finally:
    record.write_bytes(intact)


def test_tensorflow_sees_no_accelerator(host, tiny_dir):
  import tensorflow as tf

  host.load_split("tiny_colour", "train", tiny_dir)
  assert tf.config.get_visible_devices("GPU") == []


def test_cifar10_is_the_official_one(tfds_dir):
  spec = datasets.find("cifar10", "select")
  final = datasets.find("cifar10", "final")
  train, held_out, version = loading.load(spec, str(tfds_dir))
  whole, test, _ = loading.load(final, str(tfds_dir))
  assert version.startswith("cifar10 3.")
  assert np.bincount(whole.labels).tolist() == [5000] * 10
  assert np.bincount(test.labels).tolist() == [1000] * 10
  # Published statistics of the training set: mean (0.4914, 0.4822, 0.4465).
  mean = whole.images.reshape(-1, 3).mean(axis=0) / 255
  np.testing.assert_allclose(mean, [0.4914, 0.4822, 0.4465], atol=5e-5)
  np.testing.assert_array_equal(np.concatenate([train.labels, held_out.labels]), whole.labels)
  np.testing.assert_array_equal(held_out.images, whole.images[49_000:])
