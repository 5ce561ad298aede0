"""Tests of bit_jax.data.labels."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bit_jax.data import labels


def below(x):
  return np.nextafter(np.float32(x), np.float32(-np.inf))


def above(x):
  return np.nextafter(np.float32(x), np.float32(np.inf))


def around(thresholds):
  """Returns (value, class): just below, at and just above each threshold."""
  return [
    pair
    for i, t in enumerate(thresholds)
    for pair in ((below(t), i), (np.float32(t), i), (above(t), i + 1))
  ]


def derive(name, example):
  label = labels.DERIVATIONS[name].derive(example)
  assert type(label) is int
  return label


def objects(**features):
  return {"objects": features}


def coordinates(*depths):
  return np.array([(1.0, 2.0, z) for z in depths], np.float32).reshape(-1, 3)


@pytest.mark.parametrize("name", ["label", "smallnorb-azimuth", "smallnorb-elevation"])
def test_a_stored_label_is_taken_as_it_is(name):
  (feature,) = labels.DERIVATIONS[name].features
  assert feature == {"label": "label"}.get(name, name.replace("smallnorb-", "label_"))
  assert [derive(name, {feature: np.int64(i)}) for i in (0, 7, 17)] == [0, 7, 17]


@pytest.mark.parametrize("count", range(3, 11))
def test_clevr_count_starts_at_three_objects(count):
  example = objects(pixel_coords=coordinates(*[9.0] * count))
  assert derive("clevr-count", example) == count - 3


@pytest.mark.parametrize(
  ("depth", "label"),
  [*around([8, 8.5, 9, 9.5, 10]), (0.0, 0), (100.0, 5), (101.0, 5)],
)
def test_clevr_distance_is_that_of_the_nearest_object(depth, label):
  assert derive("clevr-distance", objects(pixel_coords=coordinates(depth))) == label
  example = objects(pixel_coords=coordinates(500, depth, 300))
  assert derive("clevr-distance", example) == label


@pytest.mark.parametrize(
  ("depth", "label"), [*around([8, 20]), (-5.0, 0), (0.0, 0), (998.0, 2), (999.0, 2)]
)
@pytest.mark.parametrize("kind", [0, 1, 2])
def test_kitti_distance_is_that_of_the_nearest_vehicle(kind, depth, label):
  example = objects(
    type=np.array([3, kind, 0, 7]), location=coordinates(min(1, depth - 1), depth, 1500, -99)
  )
  assert derive("kitti-distance", example) == label


@pytest.mark.parametrize("types", [[], [3], [3, 4, 5, 6, 7]])
def test_kitti_without_a_vehicle_is_a_class_of_its_own(types):
  example = objects(type=np.array(types, np.int64), location=coordinates(*[5.0] * len(types)))
  assert derive("kitti-distance", example) == 3


def test_dsprites_positions_fall_in_pairs():
  found = [derive("dsprites-xpos", {"label_x_position": np.int64(i)}) for i in range(32)]
  assert found == [i for i in range(16) for _ in range(2)]


def test_dsprites_orientations_fall_as_in_float32():
  found = [derive("dsprites-orientation", {"label_orientation": np.int64(i)}) for i in range(40)]
  expected = np.floor_divide(np.arange(40, dtype=np.float32), np.float32(2.5)).astype(int)
  np.testing.assert_array_equal(found, expected)
  np.testing.assert_array_equal(np.bincount(found), [3, 2] * 8)


@given(st.lists(st.floats(-100, 1e6, width=32), min_size=1, max_size=10))
def test_distance_classes_against_the_definition(depths):
  nearest = min(depths)
  thresholds = [-np.inf, 8, 8.5, 9, 9.5, 10]
  expected = max(i for i, t in enumerate(thresholds) if t < nearest)
  assert labels.clevr_distance(depths) == expected
  thresholds = [-np.inf, 8, 20, 999]
  expected = max(i for i, t in enumerate(thresholds) if t < nearest)
  assert labels.kitti_distance([0] * len(depths), depths) == expected


@given(st.permutations(range(6)))
def test_the_order_of_the_objects_does_not_matter(order):
  types, depths = [0, 1, 2, 3, 4, 7], [30.0, 12.0, 40.0, 3.0, 1.0, 0.5]
  assert labels.kitti_distance([types[i] for i in order], [depths[i] for i in order]) == 1
