"""Logits and features: equal to the network's own, in order, whatever can't be read."""

import jax
import numpy as np
import pytest
import synthetic
from numbered import Numbered
from scipy import special

from bit_jax.data import augmentation, resizing
from bit_jax.inference import networks, outputs
from bit_jax.models import resnet_v2
from bit_jax.runtime import errors

SIZE = 16
# Another batch is another program. Norms over one place amplify rounding: 2e-5 was seen for
# features of up to 3.
ROUNDING = {"rtol": 1e-4, "atol": 5e-5}


@pytest.fixture(scope="module")
def network():
  params = synthetic.parameters("R14x0.5", 5)
  model = resnet_v2.create("R14x0.5", 5)
  return networks.Network("synthetic", model, params, tuple("abcde"), SIZE, None, "")


@pytest.fixture(scope="module")
def forward(network):
  return outputs.Forward(network, batch_size=8)


def expected(network, images):
  prepared = augmentation.prepare_eval(np.stack(images), SIZE)
  logits, stages = jax.jit(network.model.apply)({"params": network.params}, prepared)
  softmax = special.softmax(np.asarray(logits, np.float64), axis=1)
  return np.asarray(logits), softmax, np.asarray(stages["pre_logits"])


def joined(batches):
  return [np.concatenate(parts) for parts in zip(*batches, strict=True)]


@pytest.mark.parametrize("count", [1, 8, 21])
def test_outputs_are_those_of_the_network(network, forward, count):
  source, sent, unreadable = Numbered(count), [], {}
  indices, *computed = joined(forward.run(source, unreadable, report=sent.append))
  assert (indices.tolist(), unreadable, sum(sent)) == (list(range(count)), {}, count)
  images = [resizing.resize(Numbered(count).read(i)[0], SIZE) for i in range(count)]
  for found, wanted in zip(computed, expected(network, images), strict=True):
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, wanted, **ROUNDING)


def test_images_of_one_small_size_are_resized_on_the_device(network, forward):
  random = np.random.default_rng(0)
  images = random.integers(0, 256, (9, 6, 7, 3), dtype=np.uint8)

  class Small(Numbered):
    def read(self, index):
      return images[index], 0

  _, *computed = joined(forward.run(Small(9), {}, image_size=(6, 7)))
  for found, wanted in zip(computed, expected(network, images), strict=True):
    np.testing.assert_allclose(found, wanted, **ROUNDING)


def test_images_that_cannot_be_read_are_named_and_the_others_go_on(forward):
  class Damaged(Numbered):
    def read(self, index):
      if index in (0, 4, 5, 6, 7, 11):
        raise errors.UserError(f"image {index} is truncated")
      return super().read(index)

  unreadable = {}
  indices, logits, *_ = joined(forward.run(Damaged(12), unreadable))
  assert indices.tolist() == [1, 2, 3, 8, 9, 10]
  assert unreadable == {i: f"image {i} is truncated" for i in (0, 4, 5, 6, 7, 11)}
  whole = joined(forward.run(Numbered(12), {}))[1]
  np.testing.assert_allclose(logits, whole[indices], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("first", [0, 3, 8, 11, 16, 20, 21])
def test_outputs_from_an_image_on(forward, first):
  source, sent = Numbered(21), []
  batches = list(forward.run(source, {}, first=first, report=sent.append))
  assert sum(sent) == 21 - first
  read = set(source.reads) - {0}  # padding repeats the first image
  assert min(read, default=first) >= first // 8 * 8  # earlier batches are not read
  whole = joined(forward.run(Numbered(21), {}))
  for found, wanted in zip(joined(batches) if batches else (), whole, strict=bool(batches)):
    np.testing.assert_array_equal(found, wanted[first:])


def test_nothing_is_computed_of_no_images(forward):
  assert list(forward.run(Numbered(0), {})) == []


def test_settings_of_the_caller_change_nothing_and_stay(forward):
  with jax.default_matmul_precision("bfloat16"), jax.enable_x64(True):
    given = joined(forward.run(Numbered(5), {}))
    assert jax.config.jax_enable_x64
  for found, wanted in zip(given, joined(forward.run(Numbered(5), {})), strict=True):
    np.testing.assert_array_equal(found, wanted)
