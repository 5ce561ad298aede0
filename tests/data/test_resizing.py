"""Tests of bit_jax.data.resizing."""

from concurrent import futures

import numpy as np
import pytest

from bit_jax.data import augmentation, resizing

SIZES = [((5, 7), 16), ((100, 60), 40), ((31, 32), 32), ((64, 64), 32), ((3, 200), 48), ((1, 1), 9)]


def picture(height, width):
  random = np.random.default_rng(height * 1000 + width)
  return random.integers(0, 256, (height, width, 3), dtype=np.uint8)


def interpolated(image, size):
  rows, columns = (
    augmentation.interpolation_matrix(n, size).astype(float) for n in image.shape[:2]
  )
  return np.einsum("hy,wx,yxc->hwc", rows, columns, image.astype(float), optimize=True)


def assert_rounded(resized, exact):
  """Half a grey level is what rounding takes; the rest is float32."""
  assert resized.dtype == np.uint8
  assert resized.shape == exact.shape
  assert np.abs(resized - exact).max() <= 0.5 + 2e-3


@pytest.mark.parametrize(("shape", "size"), SIZES)
def test_it_is_the_interpolation_of_the_device(shape, size):
  image = picture(*shape)
  assert_rounded(resizing.resize(image, size), interpolated(image, size))


@pytest.mark.slow
@pytest.mark.parametrize(("shape", "size"), [*SIZES, ((375, 500), 512)])
def test_it_is_the_interpolation_of_tensorflow(shape, size):
  import tensorflow as tf

  image = picture(*shape)
  assert_rounded(resizing.resize(image, size), tf.image.resize(image, (size, size)).numpy())


@pytest.mark.parametrize(("shape", "size"), [((300, 400), 160), ((128, 128), 64), ((90, 70), 512)])
def test_images_become_neither_lighter_nor_darker(shape, size):
  image = picture(*shape)
  assert abs(np.mean(resizing.resize(image, size) - interpolated(image, size))) < 0.01


def test_what_has_the_size_stays_as_it_is():
  image = picture(20, 20)
  np.testing.assert_array_equal(resizing.resize(image, 20), image)


@pytest.mark.parametrize("level", [0, 1, 127, 254, 255])
def test_a_level_keeps_its_level(level):
  assert np.all(resizing.resize(np.full((33, 21, 3), level, np.uint8), 50) == level)


@pytest.mark.parametrize(("shape", "size"), [*SIZES, ((20, 20), 20)])
def test_it_fills_an_array_at_hand(shape, size):
  image = picture(*shape)
  batch = np.full((3, size, size, 3), 99, np.uint8)
  resizing.resize(image, size, out=batch[1])
  np.testing.assert_array_equal(batch[1], resizing.resize(image, size))
  assert np.all(batch[[0, 2]] == 99)


def test_what_came_before_does_not_show(monkeypatch):
  monkeypatch.setattr(resizing, "_KEPT_VALUES", 3 * 40 * 50)  # the second takes new memory
  shapes = [(30, 40), (50, 60), (7, 9), (40, 50), (30, 40)]
  resized = [resizing.resize(picture(*shape), 24) for shape in shapes]
  for image, shape in zip(resized, shapes, strict=True):
    assert_rounded(image, interpolated(picture(*shape), 24))


def test_threads_do_not_disturb_each_other():
  pictures = [picture(20 + i, 90 - i) for i in range(40)]
  with futures.ThreadPoolExecutor(4) as pool:
    together = list(pool.map(lambda image: resizing.resize(image, 33), pictures * 5))
  for image, alone in zip(together, pictures * 5, strict=True):
    np.testing.assert_array_equal(image, resizing.resize(alone, 33))


def test_an_image_is_fitted_into_a_white_square_with_its_shape():
  image = np.full((10, 30, 3), (255, 0, 10), np.uint8)
  fitted = resizing.contain(image, 60)
  assert (fitted.shape, fitted.dtype) == ((60, 60, 3), np.uint8)
  assert (fitted[20:40] == (255, 0, 10)).all()
  assert (fitted[:20] == 255).all()
  assert (fitted[40:] == 255).all()
