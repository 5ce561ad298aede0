"""Streamed and resident sets give every step the same, wherever it begins and whoever takes it."""

import math

import jax
import ml_collections
import numpy as np
import pytest
from numbered import Numbered, part

from bit_jax.data import order, pipeline
from bit_jax.data.sources import arrays
from bit_jax.inference import feeds
from bit_jax.training import batches

N, BATCH, STEPS = 13, 8, 10  # 80 examples: more than six epochs, which end within batches


def config(**changes):
  fields = {"seed": 3, "batch_size": BATCH, "total_steps": STEPS}
  return ml_collections.ConfigDict({**fields, **changes})


def layouts(processes):
  """Returns the share of each process of four devices."""
  return np.split(order.device_layout(BATCH, 4), processes)


def training(monkeypatch, streamed, layout, first=0, window=None):
  """Returns the images and labels of each step from `first` on, for a process of these devices."""
  monkeypatch.setattr(jax, "local_devices", lambda: jax.devices()[: len(layout)])
  given = batches.of_steps(feeds.Feed(part(streamed, window=window)), config(), layout, first)
  return [(np.asarray(images), np.asarray(labels)) for images, labels in given]


@pytest.mark.parametrize("first", [0, 4, STEPS])
@pytest.mark.parametrize("window", [None, 5], ids=["permuted", "windows"])
@pytest.mark.parametrize("processes", [1, 2])
def test_streamed_and_resident_sets_give_the_same(monkeypatch, processes, window, first):
  for layout in layouts(processes):
    streamed = training(monkeypatch, True, layout, first, window)
    placed = training(monkeypatch, False, layout, first, window)
    assert len(streamed) == len(placed) == STEPS - first
    for ours, theirs in zip(streamed, placed, strict=True):
      for a, b in zip(ours, theirs, strict=True):
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("window", [None, 5], ids=["permuted", "windows"])
def test_two_processes_together_take_the_order_s_batches(monkeypatch, window):
  given = [training(monkeypatch, True, share, 0, window) for share in layouts(2)]
  whole = []
  for step, parts in enumerate(zip(*given, strict=True)):
    batch = np.full(BATCH, -1)
    batch[order.device_layout(BATCH, 4)] = np.concatenate([labels for _, labels in parts])
    np.testing.assert_array_equal(batch, order.batch(3, step, BATCH, N, window))
    whole += batch.tolist()
  for start in range(0, len(whole), N):
    epoch = whole[start : start + N]
    assert len(set(epoch)) == len(epoch)  # every image once


def test_a_stream_from_the_middle_reads_nothing_of_what_came_before():
  n, first = 1_000, 6  # all ten steps lie within one epoch
  source = Numbered(n)
  given = batches.of_steps(feeds.Feed(part(True, n, source)), config(), layouts(1)[0], first)
  assert source.reads == []
  examples = next(given)
  given.close()
  batch = order.batch(3, first, BATCH, n)
  assert sorted(np.ravel(examples.labels)) == sorted(batch)
  ahead = [order.batch(3, first + i, BATCH, n) for i in range(4)]
  assert set(batch) <= set(source.reads) <= set(np.concatenate(ahead))
  assert len(source.reads) == len(set(source.reads))


CLASSES, SHOTS = 1_000, 100


def distinct_classes(batch_size):
  """Returns mean and standard deviation of the number of classes in a random batch of the set."""
  n = CLASSES * SHOTS

  def absent(classes):  # the probability that none of these classes occurs
    outside = n - classes * SHOTS
    terms = (math.lgamma(k + 1) for k in (outside, n - batch_size, outside - batch_size, n))
    a, b, c, d = terms
    return math.exp(a + b - c - d)

  one, two = absent(1), absent(2)
  variance = CLASSES * one * (1 - one) + CLASSES * (CLASSES - 1) * (two - one**2)
  return CLASSES * (1 - one), math.sqrt(variance)


class Sorted(Numbered):
  """A source of one pixel for each example, sorted by class."""

  def read(self, index):
    return np.zeros((1, 1, 3), np.uint8), index // SHOTS


def test_the_batches_of_a_sorted_set_hold_as_many_classes_as_random_ones():
  n, batch_size = CLASSES * SHOTS, 512
  layout = order.device_layout(batch_size, 4)
  labels = np.repeat(np.arange(CLASSES, dtype=np.int32), SHOTS)
  names = tuple(map(str, range(CLASSES)))
  examples = arrays.Examples(np.zeros((n, 1, 1, 3), np.uint8), labels, names)
  resident = feeds.Feed(pipeline.Part(examples, None, names, examples, labels))
  steps = n // batch_size  # 195, an epoch
  settings = config(batch_size=batch_size, total_steps=steps)
  placed = [np.asarray(given.labels) for given in batches.of_steps(resident, settings, layout, 0)]
  mean, deviation = distinct_classes(batch_size)
  counts = [len(np.unique(batch)) for batch in placed]
  assert len(counts) == steps
  assert max(abs(count - mean) for count in counts) < 4 * deviation
  streamed = feeds.Feed(pipeline.Part(Sorted(n), None, names, None, None))
  first = steps - 8  # where windows held a few of the classes
  given = batches.of_steps(streamed, settings, layout, first)
  for batch, other in zip(placed[first:], given, strict=True):
    np.testing.assert_array_equal(batch, np.asarray(other.labels))
