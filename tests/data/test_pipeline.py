"""Tests of bit_jax.data.pipeline."""

import collections
import dataclasses
import shutil

import numpy as np
import pytest
import resolving
from PIL import Image

from bit_jax.configs import folder, npz, quickstart
from bit_jax.data import datasets, fewshot, opening, pipeline, resizing
from bit_jax.data.sources import arrays
from bit_jax.runtime import cache, errors

FIELDS = {"resize": 12, "crop": 8, "batch_size": 4}
TRAIN_BYTES, TEST_BYTES = 24 * 12 * 12 * 3, 6 * 8 * 8 * 3  # of `folder_path`, decoded


def changed(config, **changes):
  config.update({**FIELDS, **changes})
  return config


@pytest.fixture
def folder_path(tmp_path):
  """24 images to train on and 6 to score, of three classes and many sizes."""
  random = np.random.default_rng(1)
  for part, count in (("train", 8), ("test", 2)):
    for name in ("ant", "bee", "cat"):
      directory = tmp_path / "set" / part / name
      directory.mkdir(parents=True)
      for i in range(count):
        pixels = random.integers(0, 256, (20 + i, 30 + 5 * i, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(directory / f"{i}.png")
  return tmp_path / "set"


def load_folder(path, arguments="", memory=float("inf"), **changes):
  return resolving.load(changed(folder.get_config(f"{arguments}path={path}"), **changes), memory)


def load_part(path, part="test", memory=float("inf"), arguments="", *, facts=(), **changes):
  config = changed(folder.get_config(f"{arguments}path={path}"), **changes)

  def load(data, selection, memory):
    return pipeline.load_part(data, selection, part, memory)

  return resolving.load(config, memory, load=load, **dict(facts))


def spoil(path):
  path.write_bytes(path.read_bytes()[:60])  # its header stays


def everything(part):
  return part.some(np.arange(len(part)))


def assert_same(part, other):
  assert len(part) == len(other)
  for a, b in zip(everything(part), everything(other), strict=True):
    np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("protocol", datasets.PROTOCOLS)
@pytest.mark.parametrize("name", ["digits", "npz"])
def test_arrays_are_taken_as_they_are(name, protocol, npz_path):
  config = (
    quickstart.get_config(f"protocol={protocol}")
    if name == "digits"
    else npz.get_config(f"protocol={protocol},path={npz_path}")
  )
  config.shots = None
  data, (_, spec) = resolving.load(changed(config)), resolving.resolve(config)
  assert (len(data.train), len(data.test)) == (spec.num_train, spec.num_test)
  for part in (data.train, data.test):
    assert part.size is None  # the device resizes them, in float32
    assert part.examples.images.shape == (len(part), *spec.image_size, 3)
    np.testing.assert_array_equal(part.labels, part.examples.labels)
  assert (data.chosen, data.left_out, data.warnings, data.origin) == (None, {}, [], None)


@pytest.mark.parametrize(
  ("fixed", "native", "side", "host", "device"),
  [
    (False, (8, 8), 12, 12, (12, 12)),
    (True, (12, 12), 12, None, (12, 12)),
    (True, (13, 12), 12, 12, (12, 12)),
    (True, (4, 30), 12, None, (4, 30)),  # 120 of at most 144 pixels
  ],
)
def test_images_of_one_size_that_need_not_shrink_are_resized_on_the_device(
  fixed, native, side, host, device
):
  cifar = datasets.find("cifar10", "final")
  spec = dataclasses.replace(cifar, fixed_size=fixed, image_size=native)
  assert (spec.host_size(side), spec.device_size(side)) == (host, device)


def test_training_images_are_only_as_large_as_their_crop_needs(folder_path):
  assert load_folder(folder_path, "crop=False,").train.size == 8
  assert load_folder(folder_path).train.size == 12
  assert load_folder(folder_path, test_size=10).test.size == 10


def test_images_of_a_folder_are_decoded_and_resized(folder_path):
  data = load_folder(folder_path)
  assert (data.train.size, data.test.size) == (12, 8)
  assert data.train.class_names == ("ant", "bee", "cat")
  images, labels = data.train.examples.images, data.train.labels
  assert images.shape == (24, 12, 12, 3)
  found = {(labels[i], images[i].tobytes()) for i in range(24)}
  expected = {
    (k, resizing.resize(np.array(Image.open(path)), 12).tobytes())
    for k, name in enumerate(("ant", "bee", "cat"))
    for path in (folder_path / "train" / name).iterdir()
  }
  assert found == expected
  assert "train for training, test for evaluation" in data.origin
  assert data.version.startswith("set, sha256 ")


@pytest.mark.parametrize("memory", [0, float("inf")])
def test_images_to_look_at_are_the_files_as_they_are(folder_path, memory):
  part = load_folder(folder_path, memory=memory, resize=4, crop=4).test
  assert part.size == 4
  shown = part.to_look_at(np.array([2, 0]), 50)
  for image, index in zip(shown, (2, 0), strict=True):
    original, _ = part.originals.read(index)
    assert original.shape[0] > 4
    np.testing.assert_array_equal(image, resizing.contain(original, 50))


@pytest.mark.parametrize("memory", [float("inf"), TEST_BYTES, TEST_BYTES - 1])
def test_what_is_scored_can_be_loaded_alone(folder_path, memory):
  whole = load_folder(folder_path)
  alone = load_part(folder_path, memory=memory)
  assert (alone.part.examples is None) == (memory < TEST_BYTES)
  assert (alone.version, alone.left_out, alone.warnings) == (whole.version, {}, [])
  assert alone.image_size == (8, 8)
  assert alone.paths == whole.paths("test")
  assert_same(alone.part, whole.test)


def test_what_is_scored_has_its_own_remarks(folder_path):
  facts = {"num_train": 9_999, "num_test": 7}
  alone = load_part(folder_path, min_side=21, facts=facts)
  assert alone.left_out == {"test images of odd size": 3}
  assert len(alone.part) == len(alone.paths) == 3
  (warning,) = alone.warnings  # none of the training images
  assert "holds 6 test images where 7 were expected" in warning
  with pytest.raises(errors.UserError, match="holds 3 classes where 4 were expected"):
    load_part(folder_path, facts={"num_classes": 4})


def test_an_unreadable_image_of_those_that_are_scored(folder_path):
  spoil(folder_path / "train/ant/0.png")
  assert len(load_part(folder_path).part) == 6  # the others aren't read
  spoil(folder_path / "test/ant/0.png")
  with pytest.raises(errors.UserError, match=r"1 of 6 images can't be read"):
    load_part(folder_path)


@pytest.mark.parametrize(
  ("memory", "resident"),
  [
    (TRAIN_BYTES + TEST_BYTES, (True, True)),
    (TRAIN_BYTES + TEST_BYTES - 1, (True, False)),
    (TRAIN_BYTES, (True, False)),
    (TRAIN_BYTES - 1, (False, True)),
    (TEST_BYTES - 1, (False, False)),
    (0, (False, False)),
  ],
)
def test_a_part_lives_in_memory_if_there_is_room_after_the_one_before(
  folder_path, memory, resident
):
  data = load_folder(folder_path, memory=memory)
  assert (data.train.examples is not None, data.test.examples is not None) == resident
  for part in (data.train, data.test):
    np.testing.assert_array_equal(part.labels, everything(part)[1])


@pytest.mark.parametrize("arguments", ["", "shots=3,seed=5,", "crop=False,"])
@pytest.mark.parametrize("cached", [False, True])
def test_what_is_streamed_is_what_is_resident(folder_path, arguments, cached):
  resident = load_folder(folder_path, arguments)
  streamed = load_folder(folder_path, arguments, memory=0, decoded_cache=cached)
  assert streamed.train.examples is None
  for _ in range(2):  # from the files, and from the cache where there is one
    assert_same(streamed.train, resident.train)
    assert_same(streamed.test, resident.test)
  np.testing.assert_array_equal(everything(resident.train)[0], resident.train.examples.images)
  np.testing.assert_array_equal(everything(resident.train)[1], resident.train.labels)


def test_arrays_that_are_streamed_are_those_that_are_resident(npz_path):
  config = changed(npz.get_config(f"shots=4,path={npz_path}"))
  resident, streamed = (resolving.load(config, memory) for memory in (1e9, 0))
  assert streamed.train.examples is None
  assert len(streamed.train) == 8
  assert_same(streamed.train, resident.train)
  assert_same(streamed.test, resident.test)


def test_few_shot_indices_are_into_the_whole_part(folder_path):
  whole, some = load_folder(folder_path), load_folder(folder_path, "shots=3,seed=5,")
  expected = fewshot.select(whole.train.labels, 3, 5, ("ant", "bee", "cat"))
  np.testing.assert_array_equal(some.chosen, expected)
  assert some.chosen.dtype == np.int64
  np.testing.assert_array_equal(some.train.examples.images, whole.train.examples.images[expected])
  assert np.bincount(some.train.labels).tolist() == [3, 3, 3]
  assert_same(some.test, whole.test)


def test_more_shots_than_a_class_has_are_refused_with_its_name(folder_path):
  (folder_path / "train" / "bee" / "0.png").unlink()
  with pytest.raises(errors.UserError, match="bee"):
    load_folder(folder_path, "shots=8,")


def test_a_filter_leaves_out_and_counts_in_both_parts(folder_path):
  whole = load_folder(folder_path)
  data = load_folder(folder_path, min_side=21, max_aspect=2.2)
  # Sizes are 20 + i by 30 + 5 i: i = 0 is too small, i from 6 on is too long.
  assert (len(data.train), len(data.test)) == (15, 3)
  assert data.left_out == {"training images of odd size": 9, "test images of odd size": 3}
  kept = {image.tobytes() for image in data.train.examples.images}
  assert kept < {image.tobytes() for image in whole.train.examples.images}


@pytest.mark.parametrize("memory", [1e9, 0])
def test_unreadable_images_of_both_parts_stop_a_run_with_their_list(folder_path, memory):
  for name in ("train/ant/3.png", "train/cat/0.png", "test/bee/1.png"):
    spoil(folder_path / name)
  with pytest.raises(errors.UserError, match="3 of 30 images can't be read") as caught:
    load_folder(folder_path, memory=memory)
  for name in ("train/ant/3.png", "train/cat/0.png", "test/bee/1.png"):
    assert f"  The image {folder_path / name} is truncated" in str(caught.value)


@pytest.mark.parametrize("memory", [1e9, 0])
def test_or_are_left_out_and_counted(folder_path, memory):
  whole = load_folder(folder_path)
  for name in ("train/ant/3.png", "train/cat/0.png", "test/bee/1.png"):
    spoil(folder_path / name)
  data = load_folder(folder_path, "on_bad_image=skip,", memory)
  assert data.left_out == {"unreadable training images": 2, "unreadable test images": 1}
  assert (len(data.train), len(data.test)) == (22, 5)
  assert np.bincount(everything(data.train)[1]).tolist() == [7, 8, 7]
  kept = {image.tobytes() for image in everything(data.train)[0]}
  assert kept < {image.tobytes() for image in whole.train.examples.images}
  assert data.warnings == []  # it is told as left out


@pytest.mark.parametrize("memory", [1e9, 0])
def test_an_unreadable_image_that_is_not_used_does_no_harm(folder_path, memory):
  spoil(folder_path / "train" / "ant" / "0.png")  # by its header, 20 x 30
  data = load_folder(folder_path, memory=memory, min_side=21)
  assert data.left_out == {"training images of odd size": 3, "test images of odd size": 3}


@pytest.mark.parametrize("memory", [1e9, 0])
def test_the_decoded_cache_is_filled_and_read(folder_path, monkeypatch, memory):
  plain = load_folder(folder_path)
  data = load_folder(folder_path, memory=memory, decoded_cache=True)
  assert_same(data.train, plain.train)
  assert_same(data.test, plain.test)
  sizes = sorted(p.name.rsplit("-", 1)[1] for p in cache.directory().glob("decoded/*"))
  assert sizes == ["12x12", "8x8"]
  again = load_folder(folder_path, memory=memory, decoded_cache=True)
  monkeypatch.setattr(opening.folder.images, "decode", lambda _: pytest.fail("decoded"))
  assert_same(again.train, plain.train)
  assert_same(again.test, plain.test)


def test_a_run_goes_on_without_a_decoded_cache_where_the_disk_is_full(folder_path, monkeypatch):
  plain = load_folder(folder_path)
  usage = shutil.disk_usage(folder_path)._replace(free=0)
  monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
  data = load_folder(folder_path, decoded_cache=True)
  assert_same(data.train, plain.train)
  assert_same(data.test, plain.test)
  for line in data.caches:
    assert line.startswith("warning: The cache of decoded images in ")
    assert line.endswith("decoded_cache=False. This run decodes images each time.")
  assert len(data.caches) == 2


def test_images_that_keep_their_size_are_cached_where_they_are_streamed(tmp_path, monkeypatch):
  random = np.random.default_rng(2)
  for name in ("ant", "bee"):
    (tmp_path / "wide" / name).mkdir(parents=True)
    for i in range(10):
      pixels = random.integers(0, 256, (5, 9, 3), dtype=np.uint8)
      Image.fromarray(pixels).save(tmp_path / "wide" / name / f"{i}.png")
  resident = load_folder(tmp_path / "wide", decoded_cache=True)
  assert resident.train.size is None
  assert not (cache.directory() / "decoded").exists()
  for _ in range(2):
    streamed = load_folder(tmp_path / "wide", memory=0, decoded_cache=True)
    assert everything(streamed.train)[0].shape == (16, 5, 9, 3)
    assert_same(streamed.train, resident.train)
    assert_same(streamed.test, resident.test)
    monkeypatch.setattr(opening.folder.images, "decode", lambda _: pytest.fail("decoded"))
  assert {p.name.rsplit("-", 1)[1] for p in cache.directory().glob("decoded/*")} == {"5x9"}


@pytest.mark.parametrize("memory", [1e9, 0])
def test_links_to_nowhere_are_listed_or_left_out(folder_path, memory):
  for name in ("train/ant/gone.png", "test/bee/gone.png"):
    (folder_path / name).symlink_to(folder_path / "nowhere.png")
  with pytest.raises(errors.UserError, match="2 of 32 images can't be read") as caught:
    load_folder(folder_path, memory=memory)
  assert str(folder_path / "train/ant/gone.png") in str(caught.value)
  data = load_folder(folder_path, "on_bad_image=skip,", memory)
  assert (len(data.train), len(data.test)) == (24, 6)
  assert data.left_out == {"unreadable training images": 1, "unreadable test images": 1}


@pytest.mark.parametrize("arguments", ["", "shots=1,"])
def test_a_class_that_is_left_out_as_a_whole_stops_a_run(folder_path, arguments):
  for path in (folder_path / "train" / "bee").iterdir():
    spoil(path)
  with pytest.raises(errors.UserError, match="training images of bee were excluded"):
    load_folder(folder_path, arguments + "on_bad_image=skip,")


def test_a_class_of_which_no_test_image_is_left_does_no_harm(folder_path):
  for path in (folder_path / "test" / "bee").iterdir():
    spoil(path)
  assert len(load_folder(folder_path, "on_bad_image=skip,").test) == 4


@pytest.mark.parametrize("memory", [1e9, 0])
def test_the_listing_tells_what_is_left_out(folder_path, memory):
  whole = load_folder(folder_path).listing
  assert {(path.split("/")[1], path.split("/")[0]) for path, _, _ in whole} == {
    row[1:] for row in whole
  }
  spoiled = {"train/ant/3.png", "test/bee/1.png"}
  for name in spoiled:
    spoil(folder_path / name)
  data = load_folder(folder_path, "on_bad_image=skip,", memory, min_side=21)
  small = {p for p, _, _ in whole if p.endswith("/0.png")}
  expected = tuple(
    (path, name, "left out" if path in spoiled | small else part) for path, name, part in whole
  )
  assert data.listing == expected
  few = load_folder(folder_path, "on_bad_image=skip,shots=2,", memory, min_side=21)
  assert [row[2] for row in few.listing].count("train") == 2 * len(few.train.class_names)
  for i, (before, after) in enumerate(zip(expected, few.listing, strict=True)):
    skipped = before[2] == "train" and i not in few.chosen
    assert after == (*before[:2], "not chosen" if skipped else before[2])


@pytest.fixture
def three_parts(folder_path):
  """`folder_path` with six more images to choose on, of sizes of their own."""
  for name in ("ant", "bee", "cat"):
    (folder_path / "val" / name).mkdir(parents=True)
    for i in range(2):
      picture = np.full((30 + i, 100, 3), 10 * i, np.uint8)
      Image.fromarray(picture).save(folder_path / "val" / name / f"{i}.png")
  return folder_path


@pytest.mark.parametrize("memory", [1e9, 0])
def test_val_is_apart_where_weights_are_chosen_on_it(three_parts, memory):
  pooled = load_folder(three_parts, memory=memory)
  assert (len(pooled.train), pooled.validation, pooled.chosen_on) == (30, None, None)
  assert pooled.during is pooled.test
  for fields in ({"keep_best": True}, {"patience": 2}):
    data = load_folder(three_parts, memory=memory, **fields)
    assert [len(p) for p in (data.train, data.validation, data.test)] == [24, 6, 6]
    assert (data.during, data.validation.size) == (data.validation, 8)
    assert (data.validation.examples is None) == (memory == 0)
    assert sorted(data.validation.labels.tolist()) == [0, 0, 1, 1, 2, 2]
    assert data.version == pooled.version
    assert data.chosen_on.startswith("val, sha256 ")
    assert {(path.split("/")[0], part) for path, _, part in data.listing} == {
      ("train", "train"),
      ("val", "val"),
      ("test", "test"),
    }
    assert_same(data.test, pooled.test)
  select = load_folder(three_parts, "protocol=select,", memory, keep_best=True)
  assert (len(select.train), len(select.test), select.validation) == (24, 6, None)


@pytest.mark.parametrize("memory", [1e9, 0])
def test_val_is_filtered_and_counted_and_no_shots_are_drawn_from_it(three_parts, memory):
  spoil(three_parts / "val/ant/1.png")
  with pytest.raises(errors.UserError, match="1 of 36 images can't be read"):
    load_folder(three_parts, memory=memory, keep_best=True)
  data = load_folder(three_parts, "on_bad_image=skip,", memory, keep_best=True, min_side=21)
  assert data.left_out == {
    "training images of odd size": 3,
    "test images of odd size": 3,
    "unreadable validation images": 1,
  }
  assert [len(p) for p in (data.train, data.validation, data.test)] == [21, 5, 3]
  marked = {path: part for path, _, part in data.listing}
  assert (marked["val/ant/1.png"], marked["val/ant/0.png"]) == ("left out", "val")
  few = load_folder(three_parts, "on_bad_image=skip,shots=2,", memory, keep_best=True)
  assert (len(few.train), len(few.validation)) == (6, 5)
  assert {few.listing[i][0].split("/")[0] for i in few.chosen} == {"train"}
  parts = [part for _, _, part in few.listing]
  assert [parts.count(p) for p in ("train", "val", "test", "not chosen")] == [6, 5, 6, 18]
  with pytest.raises(errors.UserError, match="All 6 validation images are left out"):
    load_folder(three_parts, "on_bad_image=skip,", memory, keep_best=True, max_aspect=3.0)


@pytest.mark.parametrize("arguments", ["", "shots=3,seed=2,"])
def test_paths_are_those_of_the_images(three_parts, arguments):
  spoil(three_parts / "test/bee/0.png")
  data = load_folder(three_parts, f"on_bad_image=skip,{arguments}", min_side=21, keep_best=True)
  for name, part in (("train", data.train), ("test", data.test), ("val", data.validation)):
    paths = data.paths(name)
    size = 12 if name == "train" else 8
    read = [np.asarray(Image.open(three_parts / path)) for path in paths]
    images, labels = everything(part)
    np.testing.assert_array_equal(images, [resizing.resize(pixels, size) for pixels in read])
    assert [path.split("/")[1] for path in paths] == [part.class_names[i] for i in labels]


@pytest.mark.parametrize("arguments", ["", "shots=3,seed=2,"])
@pytest.mark.parametrize("part", ["train", "val"])
def test_the_other_parts_are_prepared_as_test_images_where_they_are_evaluated(
  three_parts, part, arguments
):
  """Training images are resized to the crop at once, without augmentation."""
  spoil(three_parts / part / "bee/1.png")
  arguments = f"on_bad_image=skip,{arguments}"
  fields = {"min_side": 21, "keep_best": True}
  alone = load_part(three_parts, part, arguments=arguments, **fields)
  whole = load_folder(three_parts, arguments, resize=8, **fields)
  assert alone.paths == whole.paths(part)
  assert_same(alone.part, {"train": whole.train, "val": whole.validation}[part])
  assert alone.left_out.items() <= whole.left_out.items()


def test_a_validation_part_that_is_not_there_is_named(folder_path):
  with pytest.raises(errors.UserError, match="folder has no validation part"):
    load_part(folder_path, "val")


def test_arrays_have_no_paths(npz_path):
  assert resolving.load(changed(npz.get_config(f"path={npz_path}"))).paths("test") is None


def test_arrays_need_no_cache(npz_path):
  resolving.load(changed(npz.get_config(f"path={npz_path}"), decoded_cache=True), 0)
  assert not (cache.directory() / "decoded").exists()


@pytest.mark.parametrize(
  ("change", "said"),
  [
    ({"num_train": 798}, "digits holds 797 training images where 798 were expected"),
    ({"num_test": 9_999}, "digits holds 1,000 test images where 9,999 were expected"),
  ],
)
def test_other_counts_are_a_warning(change, said):
  data = resolving.load(quickstart.get_config("weights=none"), **change)
  (warning,) = data.warnings
  assert said in warning
  assert "another version, or incomplete" in warning


def test_other_classes_are_an_error():
  with pytest.raises(errors.UserError, match="holds 10 classes where 11 were expected"):
    resolving.load(quickstart.get_config("weights=none"), num_classes=11)


def test_some_examples_come_in_the_order_asked_for(folder_path):
  for memory in (1e9, 0):
    part = load_folder(folder_path, memory=memory).train
    images, labels = everything(part)
    some = part.some(np.array([7, 2, 2]))
    np.testing.assert_array_equal(some[0], images[[7, 2, 2]])
    np.testing.assert_array_equal(some[1], labels[[7, 2, 2]])


def test_examples_at_hand_are_not_copied():
  config = quickstart.get_config("weights=none")
  config.shots = None
  data = resolving.load(config)
  assert isinstance(data.test.source, arrays.Examples)
  assert data.test.source is data.test.examples


@pytest.mark.parametrize(
  ("shuffled", "shots", "windows"), [(False, None, False), (True, None, True), (True, 2, False)]
)
@pytest.mark.parametrize("memory", [0, float("inf")])
def test_only_a_whole_set_that_tfds_shuffled_is_permuted_in_windows(
  monkeypatch, npz_path, shuffled, shots, windows, memory
):
  sources = opening._Npz.sources
  monkeypatch.setattr(
    opening._Npz,
    "sources",
    lambda *a, **k: dataclasses.replace(sources(*a, **k), shuffled=shuffled),
  )
  config = npz.get_config(f"path={npz_path}")
  data = resolving.load(changed(config, shots=shots, shuffle_window=7), memory)
  assert (data.train.examples is None) == (memory == 0)
  assert data.train.window == (7 if windows else None)


class Pictures:
  """A set whose images have given sizes, (-1, -1) for an unreadable header; some can't be read."""

  class_names = ("a", "b")

  def __init__(self, sizes, bad=(), fingerprint="0" * 64):
    self.sizes, self.bad, self._fingerprint = np.array(sizes), set(bad), fingerprint
    self.asked = collections.Counter()

  def __len__(self):
    return len(self.sizes)

  def read(self, index):
    self.asked[index] += 1
    if index in self.bad:
      raise errors.UserError(f"The image {index}.png is cut short.")
    return np.zeros((4, 4, 3), np.uint8), index % 2

  def read_labels(self):
    return np.arange(len(self)) % 2

  def read_sizes(self):
    return self.sizes

  def fingerprint(self):
    return self._fingerprint


def selection(**changes):
  return datasets.Selection(train_size=8, test_size=8, **changes)


SIZES = [(10, 10), (9, 40), (40, 10), (10, 39), (-1, -1), (8, 8), (100, 20)]


@pytest.mark.parametrize(
  ("changes", "kept"),
  [
    ({}, [0, 1, 2, 3, 4, 5, 6]),
    ({"min_side": 10}, [0, 2, 3, 4, 6]),
    ({"max_aspect": 4.0}, [0, 2, 3, 4, 5]),
    ({"max_aspect": 3.9}, [0, 3, 4, 5]),
    ({"min_side": 9, "max_aspect": 4.5}, [0, 1, 2, 3, 4]),
    ({"on_bad_image": "skip"}, [0, 2, 3, 5, 6]),
    ({"on_bad_image": "skip", "min_side": 10}, [0, 2, 3, 6]),
  ],
)
def test_what_a_config_leaves_out_is_left_out_and_counted(changes, kept):
  source = Pictures(SIZES, bad=(1, 4))
  indices, left_out = pipeline.usable(source, "training", selection(**changes), unchecked=True)
  assert indices.tolist() == kept
  assert indices.dtype == np.int64
  assert sum(left_out.values()) == len(SIZES) - len(kept)  # one is not counted for two reasons
  assert all(left_out.values())
  if changes == {"on_bad_image": "skip", "min_side": 10}:
    assert left_out == {"training images of odd size": 2, "unreadable training images": 1}


def test_images_that_tfds_prepared_are_not_checked():
  source = Pictures(SIZES, bad=(1,))
  indices, left_out = pipeline.usable(
    source, "test", selection(on_bad_image="skip"), unchecked=False
  )
  assert (len(indices), left_out) == (7, {})
  assert not source.asked


def test_a_set_of_which_nothing_is_left_is_refused():
  source = Pictures([(5, 5), (6, 6), (50, 50)], bad=(2,))
  with pytest.raises(errors.UserError, match="All 3 test images are left out") as caught:
    pipeline.usable(source, "test", selection(min_side=20, on_bad_image="skip"), unchecked=True)
  assert "2 test images of odd size, 1 unreadable test images" in str(caught.value)


def test_a_part_without_images_is_refused():
  with pytest.raises(errors.UserError, match="There are no test images"):
    pipeline.usable(Pictures(np.empty((0, 2))), "test", selection(), unchecked=False)


def test_what_is_unreadable_is_remembered():
  first, second, changed = (Pictures(SIZES, bad=(1, 4), fingerprint=f * 64) for f in "aab")
  expected = {i: f"The image {i}.png is cut short." for i in (1, 4)}
  assert [pipeline.unreadable(s, "test") for s in (first, second, changed)] == [expected] * 3
  assert first.asked == changed.asked == dict.fromkeys(range(7), 1)
  assert second.asked == {1: 1, 4: 1}


def test_an_image_that_can_be_read_again_is_not_unreadable_any_more():
  """Such as one whose permissions were mended, which changes neither its size nor its time."""
  source = Pictures(SIZES, bad=(1, 4, 6))
  assert list(pipeline.unreadable(source, "test")) == [1, 4, 6]
  source.bad = {6}
  assert pipeline.unreadable(source, "test") == {6: "The image 6.png is cut short."}
  assert source.asked == {**dict.fromkeys(range(7), 1), 1: 2, 4: 2, 6: 2}


def test_the_record_of_a_set_without_unreadable_images_is_believed():
  source = Pictures(SIZES)
  for _ in range(2):
    assert pipeline.unreadable(source, "test") == {}
  assert source.asked == dict.fromkeys(range(7), 1)


@pytest.mark.parametrize("content", ["", "{}", "7", '["a"]', "[1", "nonsense"])
def test_a_damaged_record_is_made_again(content):
  source = Pictures(SIZES, bad=(1,))
  expected = pipeline.unreadable(source, "test")
  (record,) = cache.directory().glob("unreadable/*.json")
  record.write_text(content)
  for _ in range(2):
    assert pipeline.unreadable(source, "test") == expected
  assert source.asked == {**dict.fromkeys(range(7), 2), 1: 3}  # the one that is bad, by the record
  assert [p.suffix for p in record.parent.iterdir()] == [".json"]


def test_a_record_that_cannot_be_written_costs_time_and_nothing_else(monkeypatch, tmp_path):
  (tmp_path / "file").touch()
  monkeypatch.setenv("BIT_JAX_CACHE", str(tmp_path / "file"))
  source = Pictures(SIZES, bad=(1,))
  assert list(pipeline.unreadable(source, "test")) == [1]
  assert list(pipeline.unreadable(source, "test")) == [1]


@pytest.fixture
def many(monkeypatch):
  """A set whose labels are worth a record, which counts how often they are read."""
  monkeypatch.setattr(pipeline, "_MANY", 10)
  source = Pictures([(4, 4)] * 10)
  source.readings = 0

  def read_labels():
    source.readings += 1
    return np.arange(10, dtype=np.int32) % 2

  source.read_labels = read_labels
  return source


def choose(source):
  return pipeline.read_labels(source).tolist()


def test_many_labels_are_read_once(many):
  assert choose(many) == choose(many)
  assert many.readings == 1
  (record,) = cache.directory().glob("labels/*")
  np.testing.assert_array_equal(np.fromfile(record, np.int32), np.arange(10) % 2)


@pytest.mark.parametrize(
  "spoil",
  [
    lambda record: record.write_bytes(b""),
    lambda record: record.write_bytes(record.read_bytes()[:-1]),
    lambda record: record.write_bytes(b"nonsense"),
    lambda record: np.zeros(9, np.int32).tofile(record),
  ],
  ids=["empty", "cut short", "nonsense", "fewer"],
)
def test_damaged_records_of_labels_are_made_again(many, spoil):
  expected = choose(many)
  (record,) = cache.directory().glob("labels/*")
  spoil(record)
  for _ in range(2):
    assert choose(many) == expected
  assert many.readings == 2


def test_a_class_of_which_nothing_is_left_is_named():
  source = Pictures([(4, 4)] * 5)
  pipeline._require_all_classes(source, np.array([1, 2]))
  with pytest.raises(errors.UserError, match=r"training images of a were excluded: .*min_side"):
    pipeline._require_all_classes(source, np.array([1, 3]))


def test_the_list_of_unreadable_images_is_short(folder_path):
  for path in sorted(folder_path.glob("train/*/*.png"))[1:]:
    spoil(path)
  with pytest.raises(errors.UserError) as caught:
    load_folder(folder_path)
  first, *others = str(caught.value).splitlines()
  assert first.startswith("23 of 30 images can't be read")
  assert "--config.on_bad_image=skip" in first
  assert (len(others), others[-1]) == (21, "  and 3 more")
