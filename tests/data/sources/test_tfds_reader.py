"""Tests of bit_jax.data.sources.tfds_reader: slow, as they import TensorFlow."""

import dataclasses
import json
import pathlib
import shutil
import socket

import generated_tfds
import numpy as np
import pytest
import resolving

from bit_jax.configs import cifar10
from bit_jax.data import datasets, opening, resizing
from bit_jax.runtime import errors

pytestmark = pytest.mark.slow

N = 10
NAMES = ("ant", "bee", "cat")


def pixels(seed, shape):
  return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def mixed(i):
  return (4 + i, 5, 3)


def objects(i):
  """Returns 3 to 5 objects, the nearest at a depth of 7.5 to 9.75."""
  return [{"pixel_coords": [1.0, 2.0, 7.5 + 0.25 * i + k]} for k in range(3 + i % 3)]


@pytest.fixture(scope="module")
def host():
  from bit_jax.data.sources import tfds_reader as module

  return module


def store(folder, name, image, extra, example, num_shards=1, version="1.2.3"):
  """Prepares a set of a train split of `N` examples and a test split of 4."""
  import tensorflow_datasets as tfds

  features = {"image": image, "label": tfds.features.ClassLabel(names=NAMES), **extra}
  splits = {
    part: [(i, {"label": i % 3, **example(i)}) for i in range(start, stop)]
    for part, start, stop in (("train", 0, N), ("test", N, N + 4))
  }
  tfds.dataset_builders.store_as_tfds_dataset(
    name=name,
    version=version,
    data_dir=str(folder),
    disable_shuffling=num_shards == 1,
    features=tfds.features.FeaturesDict(features),
    split_datasets=splits,
    download_config=tfds.download.DownloadConfig(num_shards=num_shards),
  )


@pytest.fixture(scope="module")
def tiny_dir(tmp_path_factory, host):
  """A prepared folder of small sets: colour, grey, binary, of many sizes, and with objects."""
  import tensorflow_datasets as tfds

  folder = tmp_path_factory.mktemp("tfds")

  def image(*shape):
    return tfds.features.Image(shape=shape, encoding_format="png")

  coordinates = tfds.features.Sequence(
    {"pixel_coords": tfds.features.Tensor(shape=(3,), dtype=np.float32)}
  )
  position = tfds.features.ClassLabel(num_classes=32)
  store(folder, "tiny_colour", image(4, 5, 3), {}, lambda i: {"image": pixels(i, (4, 5, 3))})
  store(folder, "tiny_shards", image(4, 5, 3), {}, lambda i: {"image": pixels(i, (4, 5, 3))}, 3)
  store(folder, "tiny_grey", image(4, 5, 1), {}, lambda i: {"image": pixels(i, (4, 5, 1))})
  store(
    *(folder, "tiny_binary", image(4, 5, 1), {"label_x_position": position}),
    lambda i: {"image": pixels(i, (4, 5, 1)) % 2, "label_x_position": 3 * i % 32},
  )
  store(
    *(folder, "tiny_mixed", image(None, None, 3), {"objects": coordinates}),
    lambda i: {"image": pixels(i, mixed(i)), "objects": objects(i)},
  )
  return folder


@pytest.fixture
def copied_dir(tiny_dir, tmp_path):
  """A copy that a test may damage."""
  return pathlib.Path(shutil.copytree(tiny_dir, tmp_path / "copy"))


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
  def refuse(*arguments, **_):
    raise AssertionError(f"the network was asked: {arguments}")

  monkeypatch.setattr(socket.socket, "connect", refuse)
  monkeypatch.setattr(socket, "getaddrinfo", refuse)


def described(name, **changes):
  fields = {"num_train": N, "num_test": 4, "num_classes": 3, "image_size": (4, 5), **changes}
  return dataclasses.replace(datasets.find("cifar10", "final"), name=name, tfds_name=name, **fields)


def opened(host, folder, name, split="train", **changes):
  return host.Split(described(name, **changes), split, str(folder))


def assert_read_is_load(split, size):
  examples = split.load(size)
  assert len(split) == len(examples)
  for i in reversed(range(len(split))):
    image, label = split.read(i)
    assert image.dtype == np.uint8
    assert type(label) is int
    resized = image if size is None else resizing.resize(image, size)
    np.testing.assert_array_equal(resized, examples.images[i])
    assert label == examples.labels[i]
  np.testing.assert_array_equal(split.read_labels(), examples.labels)


def test_examples_come_decoded_and_in_order(host, tiny_dir):
  split = opened(host, tiny_dir, "tiny_colour")
  examples = split.load(None)
  np.testing.assert_array_equal(examples.images, [pixels(i, (4, 5, 3)) for i in range(N)])
  assert examples.images.dtype == np.uint8
  assert examples.labels.tolist() == [i % 3 for i in range(N)]
  assert examples.labels.dtype == split.read_labels().dtype == np.int32
  assert examples.class_names == split.class_names == NAMES
  assert split.version == "tiny_colour 1.2.3"
  assert not split.shuffled  # so `tiny_colour` was prepared
  assert split.read_sizes().tolist() == [[4, 5]] * N


@pytest.mark.parametrize("size", [None, 8])
@pytest.mark.parametrize("name", ["tiny_colour", "tiny_grey", "tiny_shards"])
def test_one_by_one_is_as_all_at_once(host, tiny_dir, name, size):
  assert_read_is_load(opened(host, tiny_dir, name), size)


@pytest.mark.parametrize(
  "split", ["train[:80%]", "train[3:7]", "train[8:]+test[1:3]", "test+train[:2]", "train[-3:]"]
)
def test_parts_of_several_shards_come_in_the_order_of_the_expression(host, tiny_dir, split):
  part = opened(host, tiny_dir, "tiny_shards", split)
  assert_read_is_load(part, None)
  whole = {p: opened(host, tiny_dir, "tiny_shards", p).load(None) for p in ("train", "test")}
  slices = {
    "train[:80%]": [("train", slice(8))],
    "train[3:7]": [("train", slice(3, 7))],
    "train[8:]+test[1:3]": [("train", slice(8, None)), ("test", slice(1, 3))],
    "test+train[:2]": [("test", slice(None)), ("train", slice(2))],
    "train[-3:]": [("train", slice(-3, None))],
  }
  expected = np.concatenate([whole[p].images[s] for p, s in slices[split]])
  np.testing.assert_array_equal(part.load(None).images, expected)


def test_a_set_is_shuffled_unless_it_was_prepared_otherwise(host, tiny_dir):
  assert opened(host, tiny_dir, "tiny_shards").shuffled


def test_the_shards_are_several(tiny_dir):
  assert len(list(tiny_dir.glob("tiny_shards/*/*train.tfrecord*"))) == 3


def test_images_of_many_sizes_are_resized(host, tiny_dir):
  split = opened(host, tiny_dir, "tiny_mixed")
  expected = [resizing.resize(pixels(i, mixed(i)), 6) for i in range(N)]
  np.testing.assert_array_equal(split.load(6).images, expected)
  assert split.read_sizes().tolist() == [list(mixed(i)[:2]) for i in range(N)]
  assert_read_is_load(split, 6)


def test_images_that_have_another_size_than_described_are_told(host, tiny_dir):
  with pytest.raises(errors.UserError, match=r"tiny_mixed in .* is incomplete or damaged"):
    opened(host, tiny_dir, "tiny_mixed").load(None)


def test_grey_images_get_three_equal_channels(host, tiny_dir):
  split = opened(host, tiny_dir, "tiny_grey")
  images = split.load(None).images
  assert images.shape == (N, 4, 5, 3)
  for channel in range(3):
    np.testing.assert_array_equal(images[3, ..., channel], pixels(3, (4, 5, 1))[..., 0])


def test_grey_levels_are_scaled(host, tiny_dir):
  split = opened(host, tiny_dir, "tiny_binary", pixel_scale=255)
  assert_read_is_load(split, None)
  expected = np.repeat(pixels(2, (4, 5, 1)) % 2 * 255, 3, axis=2)
  np.testing.assert_array_equal(split.read(2)[0], expected)
  assert set(np.unique(split.load(None).images)) == {0, 255}


@pytest.mark.parametrize(
  ("name", "label", "num_classes", "expected"),
  [
    ("tiny_binary", "dsprites-xpos", 16, [3 * i % 32 // 2 for i in range(N)]),
    ("tiny_mixed", "clevr-count", 8, [i % 3 for i in range(N)]),
    # Depths 7.5, 7.75, ... 9.75; a threshold itself belongs below.
    ("tiny_mixed", "clevr-distance", 6, [0, 0, 0, 1, 1, 2, 2, 3, 3, 4]),
  ],
)
def test_labels_are_derived(host, tiny_dir, name, label, num_classes, expected):
  class_names = tuple(str(i) for i in range(num_classes))
  changes = {"label": label, "num_classes": num_classes, "class_names": class_names}
  split = opened(host, tiny_dir, name, **changes)
  assert split.read_labels().tolist() == expected
  assert split.class_names == class_names
  assert_read_is_load(split, 6)


def test_a_label_out_of_range_is_told(host, tiny_dir):
  changes = {"label": "dsprites-xpos", "class_names": ("low", "high")}
  split = opened(host, tiny_dir, "tiny_binary", **changes)
  assert split.read(0)[1] == 0
  for call in (split.read_labels, lambda: split.load(6), lambda: split.read(9)):
    with pytest.raises(errors.UserError, match=r"tiny_binary has the label 13 .* 2 classes"):
      call()


def test_a_missing_feature_is_named(host, tiny_dir):
  with pytest.raises(errors.UserError, match="tiny_colour have no feature 'objects'"):
    opened(host, tiny_dir, "tiny_colour", label="clevr-count")


def test_an_unprepared_set_says_where_it_looked_and_what_prepares_it(host, tmp_path):
  with pytest.raises(errors.UserError) as caught:
    host.Split(datasets.find("vtab/svhn", "final"), "train", str(tmp_path))
  message = str(caught.value)
  assert str(tmp_path / "svhn_cropped") in message
  assert "python -m bit_jax.data doctor vtab/svhn --download" in message
  assert "TFDS_DATA_DIR" in message
  assert not list(tmp_path.iterdir())


def test_an_unknown_set_and_an_unknown_split_are_named(host, tiny_dir):
  with pytest.raises(errors.UserError, match="no data set 'tiny_absent'"):
    opened(host, tiny_dir, "tiny_absent")
  for split in ("validation", "train[:5", "train[:800]+validation[:200]", "train[50:60]"):
    with pytest.raises(errors.UserError, match="tiny_colour has no split") as caught:
      opened(host, tiny_dir, "tiny_colour", split)
    assert split in str(caught.value)


def calls(split):
  return (
    lambda: split.load(None),
    lambda: split.read(len(split) - 1),
    split.read_labels,
    split.read_sizes,
  )


def test_a_file_that_is_cut_short_or_missing_is_noticed(host, copied_dir):
  split = opened(host, copied_dir, "tiny_colour")
  (record,) = copied_dir.glob("tiny_colour/*/*train.tfrecord*")
  record.write_bytes(record.read_bytes()[:-10])
  for call in calls(split):
    with pytest.raises(errors.UserError, match="is incomplete"):
      call()
  record.unlink()
  for call in (*calls(opened(host, copied_dir, "tiny_colour")), split.fingerprint):
    with pytest.raises(errors.UserError, match=r"incomplete or damaged|can't be read"):
      call()


def test_fewer_examples_than_the_description_says_are_noticed(host, copied_dir):
  (description,) = copied_dir.glob("tiny_colour/*/dataset_info.json")
  content = json.loads(description.read_text())
  for split in content["splits"]:
    split["shardLengths"] = [str(int(n) + 2) for n in split["shardLengths"]]
  description.write_text(json.dumps(content))
  for call in calls(opened(host, copied_dir, "tiny_colour")):
    with pytest.raises(errors.UserError, match="is incomplete"):
      call()


def test_an_image_that_is_damaged_is_noticed(host, copied_dir):
  (record,) = copied_dir.glob("tiny_colour/*/*train.tfrecord*")
  data = record.read_bytes()
  record.write_bytes(data.replace(b"\x89PNG", b"\x88PNG"))
  split = opened(host, copied_dir, "tiny_colour")
  for call in (lambda: split.load(None), lambda: split.read(0)):
    with pytest.raises(errors.UserError, match="damaged"):
      call()


def test_what_another_version_of_tfds_prepared_is_read(host, tmp_path):
  import tensorflow_datasets as tfds

  image = tfds.features.Image(shape=(32, 32, 3), encoding_format="png")
  example = {"version": "1.0.0", "example": lambda i: {"image": pixels(i, (32, 32, 3))}}
  store(tmp_path, "cifar10", image, {}, **example)
  split = host.Split(datasets.find("cifar10", "final"), "train", str(tmp_path))
  assert split.version == "cifar10 1.0.0"
  np.testing.assert_array_equal(split.read(7)[0], pixels(7, (32, 32, 3)))


def test_the_fingerprint_changes_with_files_and_split(host, copied_dir):
  def fingerprint(split="train"):
    return opened(host, copied_dir, "tiny_shards", split).fingerprint()

  before = fingerprint()
  assert fingerprint() == before
  parts = {before, fingerprint("train[:5]"), fingerprint("test")}
  record = min(copied_dir.glob("tiny_shards/*/*train.tfrecord*"))
  record.touch()
  assert len({*parts, fingerprint()}) == 4


def test_tensorflow_sees_no_accelerator(host):
  assert host.tf.config.get_visible_devices("GPU") == []


def test_cifar10_is_the_official_one(host, tfds_dir):
  def load(protocol):
    config = cifar10.get_config(f"protocol={protocol}")
    config.data_dir = str(tfds_dir)
    return resolving.load(config)

  select, final = load("select"), load("final")
  assert select.version.startswith("cifar10 3.")
  assert select.warnings == final.warnings == []
  assert np.bincount(final.train.labels).tolist() == [5000] * 10
  assert np.bincount(final.test.labels).tolist() == [1000] * 10
  # Published statistics of the training set: mean (0.4914, 0.4822, 0.4465).
  images = final.train.examples.images
  mean = images.reshape(-1, 3).mean(axis=0) / 255
  np.testing.assert_allclose(mean, [0.4914, 0.4822, 0.4465], atol=5e-5)
  labels = np.concatenate([select.train.labels, select.test.labels])
  np.testing.assert_array_equal(labels, final.train.labels)
  np.testing.assert_array_equal(select.test.examples.images, images[49_000:])


def test_two_tasks_of_one_set_differ_in_their_fingerprint(host, tiny_dir):
  changes = ({}, {"label": "dsprites-xpos", "num_classes": 16}, {"pixel_scale": 255})
  found = {opened(host, tiny_dir, "tiny_binary", **c).fingerprint() for c in changes}
  assert len(found) == 3


def test_another_split_can_be_evaluated(host, tmp_path):
  parts = {"train": [(0, 3, True)], "test": [(0, 5, True)]}
  generated_tfds.prepare("cifar10", tmp_path, parts)
  data = opening.open_set(datasets.Request("cifar10", data_dir=str(tmp_path)))
  other = data.evaluating("train[1:]")
  sources = other.sources(test_only=True)
  assert (len(sources.test), other.spec.num_test) == (2, 2)  # nothing to warn of
  whole = data.sources().train.read_labels()
  np.testing.assert_array_equal(sources.test.read_labels(), whole[1:])
  with pytest.raises(errors.UserError, match="has no split 'dev'"):
    data.evaluating("dev").sources(test_only=True)


def test_a_size_of_what_is_no_image(host, tiny_dir):
  split = opened(host, tiny_dir, "tiny_colour")
  for encoded in (b"", b"no image", b"\x89PNG\r\n\x1a\n\0"):
    with pytest.raises(errors.UserError, match="incomplete or damaged"):
      split._size(encoded)
