"""Tests of bit_jax.data.augmentation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bit_jax.data import augmentation, order

GREY_LEVEL = 1 / 127.5  # in images scaled to [-1, 1]
SIZES = [((8, 8), 24), ((32, 32), 80), ((97, 61), 33), ((61, 97), 128), ((5, 7), 3), ((1, 1), 4)]


def random_images(batch_size, size, seed=0):
  return np.random.default_rng(seed).integers(0, 256, (batch_size, *size, 3), dtype=np.uint8)


def keys(batch_size, step=0):
  return augmentation.example_keys(jax.random.key(0), step, jnp.arange(batch_size))


def augment(images, example_keys, resize, crop, *, flip=True, random_crop=True):
  return np.asarray(
    augmentation.augment(
      images,
      example_keys,
      resize=resize,
      crop=crop,
      flip=jnp.asarray(flip),
      random_crop=jnp.asarray(random_crop),
    )
  )


def coordinate(i, source, target):
  """Where target pixel i lies in the source; in float32, as TensorFlow computes it."""
  centre = np.float32(i + 0.5) * (np.float32(source) / np.float32(target)) - np.float32(0.5)
  return float(np.clip(centre, 0, source - 1))


def resize_by_hand(image, height, width):
  """Bilinear, half-pixel centres, edges clamped: one target pixel after the other, in float64."""
  result = np.empty((height, width, 3))
  for i in range(height):
    for j in range(width):
      y, x = coordinate(i, image.shape[0], height), coordinate(j, image.shape[1], width)
      top, left = int(y), int(x)
      bottom, right = min(top + 1, image.shape[0] - 1), min(left + 1, image.shape[1] - 1)
      (a, b), (c, d) = image[[top, bottom]][:, [left, right]].astype(float)
      upper, lower = a + (b - a) * (x - left), c + (d - c) * (x - left)
      result[i, j] = upper + (lower - upper) * (y - top)
  return result


@pytest.mark.parametrize(("size", "target"), SIZES)
def test_resize_equals_bilinear_interpolation_by_hand(size, target):
  images = random_images(2, size)
  found = np.asarray(augmentation.prepare_eval(jnp.asarray(images), target)) * 127.5 + 127.5
  for image, resized in zip(images, found, strict=True):
    np.testing.assert_allclose(resized, resize_by_hand(image, target, target), atol=1e-3, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize(
  ("size", "target"),
  [*SIZES, ((32, 32), 160), ((32, 32), 128), ((96, 96), 128), ((500, 333), 128), ((33, 33), 512)],
)
def test_resize_equals_tensorflow(size, target):
  import tensorflow as tf

  images = random_images(2, size)
  expected = tf.image.resize(images, (target, target)).numpy()
  found = np.asarray(augmentation.prepare_eval(jnp.asarray(images), target)) * 127.5 + 127.5
  np.testing.assert_allclose(found, expected, atol=1e-3, rtol=0)


@given(source=st.integers(1, 200), target=st.integers(1, 200))
def test_interpolation_averages_at_most_two_neighbours(source, target):
  matrix = augmentation.interpolation_matrix(source, target)
  assert matrix.shape == (target, source)
  assert matrix.dtype == np.float32
  assert matrix.min() >= 0
  np.testing.assert_allclose(matrix.sum(axis=1), 1, atol=1e-6)
  assert (matrix > 0).sum(axis=1).max() <= 2


@given(size=st.integers(1, 200))
def test_resize_to_the_same_size_is_the_identity(size):
  np.testing.assert_array_equal(augmentation.interpolation_matrix(size, size), np.eye(size))


def test_scaling_maps_the_grey_levels_onto_minus_one_to_one():
  levels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1).repeat(3, axis=-1)
  found = np.asarray(augmentation.prepare_eval(jnp.asarray(levels), 16))
  assert found.dtype == np.float32
  expected = (np.arange(256) - 127.5) / 127.5
  np.testing.assert_allclose(found[0, ..., 0].ravel(), expected, atol=1e-7, rtol=0)
  assert (found.min(), found.max()) == (-1, 1)


def placements(images, resize, crop):
  """Returns {(top, left, mirrored): [B, crop, crop, 3]} of all crops of the resized images."""
  resized = np.asarray(augmentation.prepare_eval(jnp.asarray(images), resize))
  views = {}
  for top in range(resize - crop + 1):
    for left in range(resize - crop + 1):
      view = resized[:, top : top + crop, left : left + crop]
      views[top, left, False], views[top, left, True] = view, view[:, :, ::-1]
  return views


def which(found, views, index):
  """Returns the one placement that an augmented image equals."""
  equal = [p for p, v in views.items() if np.abs(v[index] - found).max() < 1e-3 * GREY_LEVEL]
  assert len(equal) == 1
  return equal[0]


@pytest.mark.parametrize("size", [(8, 10), (12, 12)])  # through products, and through slices
def test_an_augmented_image_is_a_mirrored_crop_of_the_resized_one(size):
  images = random_images(64, size)
  views = placements(images, 12, 9)
  found = augment(images, keys(64), 12, 9)
  drawn = [which(image, views, i) for i, image in enumerate(found)]
  tops, lefts, mirrored = (set(values) for values in zip(*drawn, strict=True))
  assert tops == lefts == {0, 1, 2, 3}
  assert mirrored == {False, True}
  assert 20 <= sum(p[2] for p in drawn) <= 44  # p = 1/2, three standard deviations
  assert len({(top, left) for top, left, _ in drawn}) > 10  # drawn apart


@pytest.mark.parametrize("size", [(8, 10), (12, 12)])
def test_flip_off_mirrors_nothing(size):
  images = random_images(32, size)
  views = placements(images, 12, 9)
  found = augment(images, keys(32), 12, 9, flip=False)
  assert not any(which(image, views, i)[2] for i, image in enumerate(found))


@pytest.mark.parametrize("size", [(8, 10), (12, 12)])
def test_random_crop_off_resizes_as_at_test_time(size):
  images = random_images(16, size)
  found = augment(images, keys(16), 12, 9, flip=False, random_crop=False)
  expected = np.asarray(augmentation.prepare_eval(jnp.asarray(images), 9))
  np.testing.assert_allclose(found, expected, atol=1e-3 * GREY_LEVEL, rtol=0)


def test_slices_give_exactly_the_pixels():
  images = random_images(8, (12, 12))
  found = augment(images, keys(8), 12, 12, flip=False)
  np.testing.assert_allclose(found, (images - 127.5) / 127.5, atol=1e-7, rtol=0)


def test_flip_and_crop_are_arguments_of_one_compiled_program():
  images = random_images(4, (8, 8))
  compiled = jax.jit(augmentation.augment, static_argnames=("resize", "crop"))
  results = [
    np.asarray(compiled(images, keys(4), resize=12, crop=9, flip=flip, random_crop=crop))
    for flip in (jnp.array(False), jnp.array(True))
    for crop in (jnp.array(False), jnp.array(True))
  ]
  assert compiled._cache_size() == 1
  assert len({r.tobytes() for r in results}) == 4


def test_keys_depend_on_seed_step_and_position_alone():
  data = {
    (seed, step, position): tuple(jax.random.key_data(key).tolist())
    for seed in range(2)
    for step in range(3)
    for position, key in enumerate(
      augmentation.example_keys(jax.random.key(seed), jnp.asarray(step), jnp.arange(4))
    )
  }
  assert len(set(data.values())) == len(data) == 24
  shuffled = augmentation.example_keys(jax.random.key(1), jnp.asarray(2), jnp.array([3, 0]))
  assert [tuple(k) for k in jax.random.key_data(shuffled).tolist()] == [
    data[1, 2, 3],
    data[1, 2, 0],
  ]


def test_mixup_by_hand():
  images = jnp.asarray(np.arange(3, dtype=np.float32).reshape(3, 1, 1, 1))
  mixed, labels = augmentation.mixup(images, jnp.eye(3), jnp.float32(0.25))
  np.testing.assert_allclose(np.ravel(mixed), [1.5, 1, 0.5])
  np.testing.assert_allclose(labels, [[0.25, 0, 0.75], [0, 1, 0], [0.75, 0, 0.25]])


def test_mixup_with_a_factor_of_one_changes_nothing():
  images = jnp.asarray(np.random.default_rng(0).normal(size=(4, 2, 2, 3)).astype(np.float32))
  mixed, labels = augmentation.mixup(images, jnp.eye(4), jnp.float32(1))
  np.testing.assert_array_equal(mixed, images)
  np.testing.assert_array_equal(labels, np.eye(4))


def test_four_devices_see_what_one_sees():
  """Augmentation and MixUp of a batch laid out over devices equal those of the whole batch."""
  assert jax.device_count() >= 4
  images = jnp.asarray(random_images(16, (8, 8)))
  one_hot = jnp.eye(16)

  def prepare(images, one_hot, positions):
    augmented = augmentation.augment(
      images,
      augmentation.example_keys(jax.random.key(0), 3, positions),
      resize=12,
      crop=9,
      flip=jnp.array(True),
      random_crop=jnp.array(True),
    )
    return augmentation.mixup(augmented, one_hot, jnp.float32(0.3))

  whole_images, whole_labels = jax.jit(prepare)(images, one_hot, jnp.arange(16))
  layout = order.device_layout(16, 4)
  split_images, split_labels = jax.pmap(prepare)(images[layout], one_hot[layout], layout)
  np.testing.assert_allclose(split_images, np.asarray(whole_images)[layout], atol=1e-6)
  np.testing.assert_array_equal(split_labels, np.asarray(whole_labels)[layout])
