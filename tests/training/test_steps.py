"""Tests of bit_jax.training.steps."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bit_jax.models import architectures, resnet_v2
from bit_jax.training import optimizer, steps

CLASSES = 8


class Linear(nn.Module):
  """The smallest model of the same form: one layer on the flattened images."""

  num_classes: int

  @nn.compact
  def __call__(self, images):
    weights = self.param("w", nn.initializers.zeros, (images[0].size, self.num_classes))
    return images.reshape(len(images), -1) @ weights, {}


def batch(seed, n=4, size=2):
  random = np.random.default_rng(seed)
  images = random.uniform(-1, 1, (n, size, size, 3)).astype(np.float32)
  return images, random.integers(0, 3, n).astype(np.int32)


def linear_state(momentum=0.9):
  sgd = optimizer.sgd(momentum)
  state = steps.create_state({"w": jnp.zeros((12, 3))}, sgd)
  return state, functools.partial(steps.train_step, model=Linear(3), optimizer=sgd)


def softmax(x):
  e = np.exp(x - x.max(1, keepdims=True))
  return e / e.sum(1, keepdims=True)


def test_a_step_by_hand():
  # With zero weights every class has 1/3: the gradient is x^T (1/3 - one_hot) / batch.
  images, labels = batch(0)
  state, step = linear_state(momentum=0.5)
  x, one_hot = images.reshape(4, -1).astype(np.float64), np.eye(3)[labels]
  weights, velocity = np.zeros((12, 3)), np.zeros((12, 3))
  for i, rate in enumerate((0.1, 0.1, 0.01)):
    probabilities = softmax(x @ weights)
    loss = -np.log((probabilities * one_hot).sum(1))
    state, out = step(state, images, labels, 1.0, rate)
    np.testing.assert_allclose(out["loss"], loss, rtol=1e-5)
    velocity = 0.5 * velocity + x.T @ (probabilities - one_hot) / 4
    weights = weights - rate * velocity
    np.testing.assert_allclose(state.params["w"], weights, rtol=1e-5, atol=1e-7)
    assert int(state.step) == i + 1


def test_mixup_is_training_on_mixed_images_and_labels():
  images, labels = batch(1)
  lam = 0.3
  state, step = linear_state()
  state = state.replace(params={"w": jnp.asarray(np.random.default_rng(2).normal(size=(12, 3)))})
  mixed = lam * images + (1 - lam) * images[::-1]
  targets = lam * np.eye(3)[labels] + (1 - lam) * np.eye(3)[labels[::-1]]
  before = np.asarray(state.params["w"], np.float64)
  x = mixed.reshape(4, -1).astype(np.float64)
  probabilities = softmax(x @ before)

  state, out = step(state, images, labels, lam, 0.1)
  np.testing.assert_allclose(out["loss"], -(targets * np.log(probabilities)).sum(1), rtol=1e-5)
  expected = before - 0.1 * x.T @ (probabilities - targets) / 4
  np.testing.assert_allclose(state.params["w"], expected, rtol=1e-5, atol=1e-6)
  np.testing.assert_array_equal(out["top1"], probabilities.argmax(1) == labels)


def test_rematerialisation_changes_the_memory_alone():
  tiny = architectures.Architecture("tiny", (2, 1, 0, 0), 0.5)
  images, labels = batch(4, size=16)
  model = resnet_v2.ResNetV2(tiny, 3)
  params = model.init(jax.random.key(0), images)["params"]
  params["head"]["conv2d"]["kernel"] = jax.random.normal(jax.random.key(1), (1, 1, 256, 3))
  variables = resnet_v2.standardize_params(params)
  gradients = functools.partial(steps.micro_batch_gradients, variables, images, labels, 0.7)
  kept, out = gradients(model=model)
  again, out_again = gradients(model=model.clone(remat=True))
  jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6), again, kept)
  np.testing.assert_allclose(out_again["loss"], out["loss"], rtol=1e-6)
  assert all(np.abs(g).max() > 0 for g in jax.tree.leaves(kept))
  programs = [
    str(jax.make_jaxpr(functools.partial(gradients, model=m))())
    for m in (model, model.clone(remat=True))
  ]
  assert ["remat" in p or "checkpoint" in p for p in programs] == [False, True]


def test_mixup_with_factor_1_changes_nothing_and_0_swaps():
  images, labels = batch(3)
  state, step = linear_state()
  plain, _ = step(state, images, labels, 1.0, 0.1)
  swapped, _ = step(state, images[::-1], labels[::-1], 0.0, 0.1)
  np.testing.assert_array_equal(plain.params["w"], swapped.params["w"])


def test_gradients_are_averaged_over_devices():
  images, labels = batch(4, n=8)
  state, step = linear_state()
  together, _ = step(state, images, labels, 1.0, 0.1)
  sharded, out = jax.pmap(
    functools.partial(step, axis_name="d"),
    "d",
    in_axes=(None, 0, 0, None, None),
    out_axes=(None, 0),
  )(state, images.reshape(4, 2, 2, 2, 3), labels.reshape(4, 2), 1.0, 0.1)
  np.testing.assert_allclose(sharded.params["w"], together.params["w"], rtol=1e-5, atol=1e-8)
  assert out["loss"].shape == (4, 2)


@pytest.mark.slow
def test_the_network_learns_a_batch():
  shallow = architectures.Architecture("shallow", (1, 1, 0, 0), 0.5)
  model = resnet_v2.ResNetV2(shallow, 3)
  images, labels = batch(7, n=8, size=32)
  params = jax.jit(model.init)(jax.random.key(0), images)["params"]
  sgd = optimizer.sgd(0.9)
  step = jax.jit(functools.partial(steps.train_step, model=model, optimizer=sgd))
  state = steps.create_state(params, sgd)
  losses = []
  for _ in range(30):
    state, out = step(state, images, labels, 1.0, 0.01)
    losses.append(float(out["loss"].mean()))
  assert losses[0] == pytest.approx(np.log(3), rel=1e-5)  # the head starts at zero
  assert losses[-1] < 0.5 * losses[0]
