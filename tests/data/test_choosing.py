"""Tests of bit_jax.data.choosing."""

import collections

import ml_collections
import numpy as np
import pytest

from bit_jax.data import choosing, fewshot
from bit_jax.runtime import errors


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


def config(**changes):
  fields = {"min_side": 0, "max_aspect": 0.0, "on_bad_image": "stop"}
  return ml_collections.ConfigDict({**fields, **changes})


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
  indices, left_out = choosing.usable(source, "training", config(**changes), unchecked=True)
  assert indices.tolist() == kept
  assert indices.dtype == np.int64
  assert sum(left_out.values()) == len(SIZES) - len(kept)  # one is not counted for two reasons
  assert all(left_out.values())
  if changes == {"on_bad_image": "skip", "min_side": 10}:
    assert left_out == {"training images of odd size": 2, "unreadable training images": 1}


def test_images_that_tfds_prepared_are_not_checked():
  source = Pictures(SIZES, bad=(1,))
  indices, left_out = choosing.usable(source, "test", config(on_bad_image="skip"), unchecked=False)
  assert (len(indices), left_out) == (7, {})
  assert not source.asked


def test_a_set_of_which_nothing_is_left_is_refused():
  source = Pictures([(5, 5), (6, 6), (50, 50)], bad=(2,))
  with pytest.raises(errors.UserError, match="All 3 test images are left out") as caught:
    choosing.usable(source, "test", config(min_side=20, on_bad_image="skip"), unchecked=True)
  assert "2 test images of odd size, 1 unreadable test images" in str(caught.value)


def test_what_is_unreadable_is_remembered():
  first, second, changed = (Pictures(SIZES, bad=(1, 4), fingerprint=f * 64) for f in "aab")
  expected = {i: f"The image {i}.png is cut short." for i in (1, 4)}
  assert [choosing.unreadable(s, "test") for s in (first, second, changed)] == [expected] * 3
  assert first.asked == changed.asked == dict.fromkeys(range(7), 1)
  assert second.asked == {1: 1, 4: 1}


def test_an_image_that_can_be_read_again_is_not_unreadable_any_more():
  """Such as one whose permissions were mended, which changes neither its size nor its time."""
  source = Pictures(SIZES, bad=(1, 4, 6))
  assert list(choosing.unreadable(source, "test")) == [1, 4, 6]
  source.bad = {6}
  assert choosing.unreadable(source, "test") == {6: "The image 6.png is cut short."}
  assert source.asked == {**dict.fromkeys(range(7), 1), 1: 2, 4: 2, 6: 2}


def test_the_record_of_a_set_without_unreadable_images_is_believed():
  source = Pictures(SIZES)
  for _ in range(2):
    assert choosing.unreadable(source, "test") == {}
  assert source.asked == dict.fromkeys(range(7), 1)


@pytest.mark.parametrize("content", ["", "{}", "7", '["a"]', "[1", "nonsense"])
def test_a_damaged_record_is_made_again(content):
  source = Pictures(SIZES, bad=(1,))
  expected = choosing.unreadable(source, "test")
  (record,) = choosing.cache.directory().glob("unreadable/*.json")
  record.write_text(content)
  for _ in range(2):
    assert choosing.unreadable(source, "test") == expected
  assert source.asked == {**dict.fromkeys(range(7), 2), 1: 3}  # the one that is bad, by the record
  assert [p.suffix for p in record.parent.iterdir()] == [".json"]


def test_a_record_that_cannot_be_written_costs_time_and_nothing_else(monkeypatch, tmp_path):
  (tmp_path / "file").touch()
  monkeypatch.setenv("BIT_JAX_CACHE", str(tmp_path / "file"))
  source = Pictures(SIZES, bad=(1,))
  assert list(choosing.unreadable(source, "test")) == [1]
  assert list(choosing.unreadable(source, "test")) == [1]


def test_the_few_shot_subset_is_of_usable_images():
  source = Pictures([(4, 4)] * 40)
  usable = np.arange(5, 35)
  found = choosing.few_shot(source, usable, 6, 3)
  labels = source.read_labels()
  assert np.bincount(labels[found]).tolist() == [6, 6]
  assert set(found) <= set(usable)
  assert found.tolist() == usable[fewshot.select(labels[usable], 6, 3, ("a", "b"))].tolist()


@pytest.fixture
def many(monkeypatch):
  """A set whose labels are worth a record, which counts how often they are read."""
  monkeypatch.setattr(choosing, "_MANY", 10)
  source = Pictures([(4, 4)] * 10)
  source.readings = 0

  def read_labels():
    source.readings += 1
    return np.arange(10) % 2

  source.read_labels = read_labels
  return source


def choose(source):
  return choosing.few_shot(source, np.arange(10), 2, 0).tolist()


def test_many_labels_are_read_once(many):
  assert choose(many) == choose(many)
  assert many.readings == 1
  (record,) = choosing.cache.directory().glob("labels/*")
  np.testing.assert_array_equal(np.load(record), np.arange(10) % 2)


@pytest.mark.parametrize(
  "spoil",
  [
    lambda record: record.write_bytes(b""),
    lambda record: record.write_bytes(record.read_bytes()[:-1]),
    lambda record: record.write_bytes(b"nonsense"),
    lambda record: np.save(record, np.zeros(9, np.int64)),
    lambda record: np.save(record, np.zeros((10, 1), np.int64)),
  ],
  ids=["empty", "cut short", "nonsense", "fewer", "another shape"],
)
def test_damaged_records_of_labels_are_made_again(many, spoil):
  expected = choose(many)
  (record,) = choosing.cache.directory().glob("labels/*")
  spoil(record)
  for _ in range(2):
    assert choose(many) == expected
  assert many.readings == 2


def test_a_class_of_which_nothing_is_left_is_named():
  labels = np.array([0, 1, 2, 1, 0])
  choosing.require_all_classes(labels, np.array([1, 2, 4]), ("ant", "bee", "cat", "dog"))
  with pytest.raises(errors.UserError, match=r"No training image is left of ant, cat: .*min_side"):
    choosing.require_all_classes(labels, np.array([1, 3]), ("ant", "bee", "cat", "dog"))


def test_a_class_that_has_too_few_usable_images_is_named():
  source = Pictures([(4, 4)] * 10)
  with pytest.raises(errors.UserError, match="b"):
    choosing.few_shot(source, np.array([0, 2, 4, 5, 6]), 2, 0)


def test_unreadable_images_stop_a_run_with_their_list():
  choosing.require_readable([], 100)
  with pytest.raises(errors.UserError) as caught:
    choosing.require_readable([f"The image {i}.png is cut short." for i in range(23)], 1_234)
  lines = str(caught.value).splitlines()
  assert lines[0].startswith("23 of 1,234 images can't be read")
  assert "--config.on_bad_image=skip" in lines[0]
  assert lines[1:] == [*(f"  The image {i}.png is cut short." for i in range(20)), "  and 3 more"]
