"""Tests of bit_jax.data.stream."""

import contextlib
import itertools
import os
import threading
import time
import weakref

import numpy as np
import pytest

from bit_jax.data import resizing, stream
from bit_jax.runtime import errors


class Pictures:
  """Small images that can be told apart; some take long, some can't be read."""

  def __init__(self, n, slow=(), bad=(), side=lambda i: 4):
    self.n, self.slow, self.bad, self.side = n, set(slow), set(bad), side
    self.asked, self._lock = [], threading.Lock()

  def __len__(self):
    return self.n

  def image(self, index):
    random = np.random.default_rng(index)
    return random.integers(0, 256, (self.side(index), 4, 3), dtype=np.uint8)

  def read(self, index):
    with self._lock:
      self.asked.append(index)
    if index in self.slow:
      time.sleep(0.02)
    if index in self.bad:
      raise errors.UserError(f"The image {index}.png is cut short.")
    return self.image(index), index % 3


def image_threads():
  return [t for t in threading.enumerate() if t.name.startswith("images")]


def wait_until(condition):
  for _ in range(500):
    if condition():
      return
    time.sleep(0.01)
  pytest.fail("it did not come about in 5 s")


def assert_batches(found, source, expected):
  assert len(found) == len(expected)
  for (images, labels), indices in zip(found, expected, strict=True):
    np.testing.assert_array_equal(images, [source.image(i) for i in indices])
    assert labels.tolist() == [i % 3 for i in indices]
    assert (images.dtype, labels.dtype) == (np.uint8, np.int32)


def test_batches_keep_their_order_and_sizes_whatever_takes_long():
  source = Pictures(40, slow=(0, 5, 6, 31))
  random = np.random.default_rng(0)
  expected = [random.permutation(40)[:size] for size in (8, 8, 3, 1, 12, 8)]
  assert_batches(list(stream.batches(source, expected, None)), source, expected)
  assert sorted(source.asked) == sorted(itertools.chain(*expected))  # each as often as it is due


def test_no_batches_of_no_indices():
  assert list(stream.batches(Pictures(3), [], None)) == []


def test_images_are_resized():
  source = Pictures(6, side=lambda i: 4 + i)
  ((images, _),) = stream.batches(source, [np.arange(6)], 9)
  expected = [resizing.resize(source.image(i), 9) for i in range(6)]
  np.testing.assert_array_equal(images, expected)


def test_an_endless_stream_reads_ahead_but_not_for_ever():
  source, taken = Pictures(100), []

  def indices():
    for start in itertools.count():
      taken.append(start)
      yield np.arange(10 * start, 10 * start + 10) % 100

  with contextlib.closing(stream.batches(source, indices(), None)) as found:
    next(found)
    wait_until(lambda: len(source.asked) >= 20)
    time.sleep(0.05)
    assert len(source.asked) <= 30
    assert len(taken) <= 4
    next(found)
    time.sleep(0.05)
    assert len(source.asked) <= 40


def test_a_start_in_the_middle_reads_nothing_before():
  source = Pictures(1_000)
  expected = [np.arange(s, s + 10) for s in range(500, 540, 10)]
  assert_batches(list(stream.batches(source, iter(expected), None)), source, expected)
  assert min(source.asked) == 500


def test_an_image_that_cannot_be_read_is_named_where_its_batch_is_due():
  source = Pictures(40, slow=(25,), bad=(25, 31))
  found = stream.batches(source, np.arange(40).reshape(4, 10), None)
  assert_batches([next(found), next(found)], source, [np.arange(10), np.arange(10, 20)])
  with pytest.raises(errors.UserError, match=r"The image 25\.png is cut short"):
    next(found)
  wait_until(lambda: not image_threads())


def test_a_defect_is_not_hidden():
  class Defective(Pictures):
    def read(self, index):
      return super().read(index + 0 // (index - 3))

  with pytest.raises(ZeroDivisionError):
    list(stream.batches(Defective(5), [np.arange(5)], None))


@pytest.mark.parametrize("slow", [(), (0,), (0, 1, 3)])
def test_sizes_that_differ_are_told_by_batches_too(slow):
  source = Pictures(6, slow=slow, side=lambda i: 4 if i != 2 else 1)  # 1 could be broadcast to 4
  with pytest.raises(errors.UserError, match="same size"):
    list(stream.batches(source, [np.arange(6)], None))


def test_a_stream_that_is_closed_early_stops_its_threads():
  source = Pictures(1_000, slow=range(1_000))
  found = stream.batches(source, np.arange(1_000).reshape(10, 100), None)
  next(found)
  assert image_threads()
  found.close()
  wait_until(lambda: not image_threads())
  assert len(source.asked) < 350


def test_chosen_examples_are_a_source():
  source = Pictures(40)
  some = stream.Chosen(source, np.array([7, 3, 30]))
  assert len(some) == 3
  assert_batches(list(stream.batches(some, [np.array([2, 0])], None)), source, [[30, 7]])


def test_a_set_is_gathered_with_its_labels():
  source = Pictures(600, slow=range(0, 600, 50))
  images, labels, unreadable = stream.gather(source, None, "Reading")
  assert unreadable == {}
  assert_batches([(images, labels)], source, [range(600)])


def test_what_cannot_be_read_is_listed_and_the_rest_gathered():
  source = Pictures(20, bad=(0, 13), side=lambda i: 4 + i % 5)
  images, labels, unreadable = stream.gather(source, 8, "Reading")
  assert unreadable == {i: f"The image {i}.png is cut short." for i in (0, 13)}
  for i in set(range(20)) - {0, 13}:
    np.testing.assert_array_equal(images[i], resizing.resize(source.image(i), 8))
    assert labels[i] == i % 3
  assert labels[[0, 13]].tolist() == [0, 0]


def test_a_set_of_unreadable_images_alone_is_refused():
  with pytest.raises(errors.UserError, match=r"None of 3 images can be read: The image 0\.png"):
    stream.gather(Pictures(3, bad=range(3)), None, "Reading")


def test_sizes_that_differ_are_told_where_all_should_be_of_one():
  with pytest.raises(errors.UserError, match=r"\(4, 4, 3\).*\(5, 4, 3\)"):
    stream.gather(Pictures(20, side=lambda i: 4 + (i == 9)), None, "Reading")
  wait_until(lambda: not image_threads())


def test_images_are_checked_without_being_kept():
  kept, counts = set(), []

  class Counted(Pictures):
    def read(self, index):
      image, label = super().read(index)
      kept.add(index)
      weakref.finalize(image, kept.discard, index)
      counts.append(len(kept))
      return image, label

  assert stream.unreadable(Counted(500, slow=(0,)), "Checking") == {}
  assert max(counts) <= 2 * os.cpu_count()  # those that the threads hold


def test_unreadable_images_are_found():
  source = Pictures(300, bad=(299, 4), side=lambda i: 1 + i % 7)
  found = stream.unreadable(source, "Checking")
  assert found == {i: f"The image {i}.png is cut short." for i in (4, 299)}
  assert list(found) == [4, 299]
  assert sorted(source.asked) == list(range(300))
