"""The evaluator gives every example its scores once, resident or streamed."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numbered import N, Numbered, part
from scipy import special

from bit_jax.data import augmentation, order
from bit_jax.inference import evaluation, feeds, programs
from bit_jax.models import resnet_v2
from bit_jax.runtime import parallel


@pytest.fixture(scope="module")
def resident():
  return feeds.Feed(part(streamed=False))


def test_a_resident_set_is_on_every_device_and_gives_each_what_it_asks_for():
  images = np.arange(5 * 4 * 4 * 3, dtype=np.uint8).reshape(5, 4, 4, 3)
  labels = np.array([1, 0, 2, 4, 3], np.int32)
  indices = np.array([[0, 4], [1, 1], [3, 2], [4, 0]])
  resident = programs.ResidentSet(images, labels)
  taken = resident.take(indices)
  assert (taken.images.dtype, taken.labels.dtype) == (np.uint8, np.int32)
  np.testing.assert_array_equal(taken.images, images[indices])
  np.testing.assert_array_equal(taken.labels, labels[indices])
  assert [s.index[0] for s in taken.images.addressable_shards] == [
    slice(i, i + 1) for i in range(4)
  ]


class Linear(nn.Module):
  """The smallest model of the network's form."""

  num_classes: int
  dtype: Any = np.float32

  @nn.compact
  def __call__(self, images):
    pixels = images.reshape(len(images), -1)
    weights = self.param("w", nn.initializers.normal(), (pixels.shape[1], self.num_classes))
    return pixels @ weights, {}


@pytest.mark.parametrize("batch_size", [5, 12, 50])
def test_evaluation_scores_every_example_once(resident, batch_size):
  model = Linear(N)
  params = model.init(jax.random.key(0), np.zeros((1, 3, 3, 3)))["params"]
  replicated = parallel.replicate(params)
  told = []
  found = evaluation.evaluate(resident, model, 3, replicated, batch_size, told.append)
  assert (sum(told), len(told) > 1) == (N, batch_size < N)
  streamed = evaluation.evaluate(feeds.Feed(part(streamed=True)), model, 3, replicated, batch_size)
  assert streamed.means == found.means
  for field in ("predictions", "labels", "confidence"):
    np.testing.assert_array_equal(getattr(streamed, field), getattr(found, field))
  np.testing.assert_array_equal(found.labels, np.arange(N))
  assert len(set(found.predictions)) > 3
  right = found.predictions == np.arange(N)
  assert found.means["top1"] == pytest.approx(np.mean(right), abs=1e-7)
  images, _ = part(streamed=False).some(np.arange(N))
  prepared = augmentation.prepare_eval(images, 3)
  logits = np.asarray(model.apply({"params": params}, prepared)[0], np.float64)
  exact = np.exp(logits - special.logsumexp(logits, axis=1, keepdims=True))
  np.testing.assert_allclose(found.confidence, exact.max(axis=1), rtol=1e-5)


@pytest.mark.parametrize("n", [3, 8, 9, 13, 16])
def test_every_process_streams_its_rows_of_an_evaluation(monkeypatch, n):
  """Of 3 and of 9 images, the second process has nothing but padding in the last batch."""
  monkeypatch.setattr(jax, "local_device_count", lambda: 2)
  monkeypatch.setattr(jax, "local_devices", lambda: jax.devices()[:2])
  found = [[], []]
  for process, own in enumerate(found):
    monkeypatch.setattr(jax, "process_index", lambda process=process: process)
    source = Numbered(n)
    feed = feeds.Feed(part(True, n, source))
    for indices, mask, examples in feed.batches(order.eval_batches(n, 8, 4)):
      ours, real = parallel.local_rows(indices), parallel.local_rows(mask)
      examples = programs.Examples(*map(np.asarray, examples))
      assert examples.images.shape == (2, 2, 4, 4, 3)
      assert (examples.images.dtype, examples.labels.dtype) == (np.uint8, np.int32)
      np.testing.assert_array_equal(examples.labels, ours)  # 0 where padded
      for image, index in zip(examples.images[real], ours[real], strict=True):
        np.testing.assert_array_equal(image, part(True, n).some(np.array([index]))[0][0])
      own += ours[real].tolist()
    filler = [0] if (process == 1 and n in (3, 9, 13)) or (process, n) == (0, 9) else []
    assert sorted(source.reads) == sorted(own + filler)
  assert sorted(found[0] + found[1]) == list(range(n))


def test_scores_of_a_batch():
  random = np.random.default_rng(5)
  images = random.uniform(-1, 1, (6, 2, 2, 3)).astype(np.float32)
  labels = random.integers(0, 3, 6).astype(np.int32)
  params = {"w": jnp.asarray(random.normal(size=(12, 3)), jnp.float32)}
  out, scores = programs.evaluate_batch({"params": params}, images, labels, model=Linear(3))
  logits = images.reshape(6, -1).astype(np.float64) @ np.asarray(params["w"], np.float64)
  probabilities = np.exp(logits - special.logsumexp(logits, axis=1, keepdims=True))
  assert scores.predictions.dtype == jnp.int32
  np.testing.assert_array_equal(scores.predictions, logits.argmax(1))
  np.testing.assert_array_equal(scores.labels, labels)
  np.testing.assert_allclose(scores.confidence, probabilities.max(1), rtol=1e-5)
  np.testing.assert_array_equal(out["top1"], logits.argmax(1) == labels)
  np.testing.assert_allclose(out["loss"], -np.log(probabilities[np.arange(6), labels]), rtol=1e-5)


def test_standardised_variables_are_the_models_own_on_every_device():
  kernel = np.random.default_rng(0).normal(size=(3, 3, 4, 5)).astype(np.float32)
  params = {"standardized_conv2d": {"kernel": kernel}, "head": {"bias": np.ones(2, np.float32)}}
  found = programs.standardize(parallel.replicate(params), jnp.bfloat16)
  expected = resnet_v2.standardize_params(params, jnp.bfloat16)
  assert jax.tree.structure(found) == jax.tree.structure(expected)
  for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
    assert a.dtype == b.dtype
    assert len(a.sharding.device_set) == 4
    np.testing.assert_allclose(a.astype(np.float32), b.astype(np.float32), rtol=1e-2)
