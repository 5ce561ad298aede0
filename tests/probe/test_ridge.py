"""Ridge regression against scikit-learn and against the normal equations, in both forms."""

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies
from sklearn import linear_model

from bit_jax.probe import ridge


def examples(seed, n, dimension, num_classes):
  """Returns features of which some correlate with the label, [N, F] float32, and labels."""
  random = np.random.default_rng(seed)
  labels = random.integers(0, num_classes, n)
  centres = random.normal(size=(num_classes, dimension))
  features = 0.5 * centres[labels] + random.normal(size=(n, dimension)) * random.uniform(
    0.01, 3, dimension
  )
  return np.abs(features).astype(np.float32), labels


def whitened(features, others):
  """Returns both shifted and scaled by the first, with big_vision's constant feature."""
  features, others = features.astype(np.float64), others.astype(np.float64)
  mean, std = features.mean(0), features.std(0) + 1e-5
  return [
    np.pad((x - mean) / std, ((0, 0), (0, 1)), constant_values=100) for x in (features, others)
  ]


def targets(labels, num_classes):
  return 2.0 * np.eye(num_classes)[labels] - 1


def scores(fitted, features):
  return features.astype(np.float64) @ fitted.weights + fitted.offsets


# More features than examples, more examples than features, and as many.
SHAPES = [(12, 40, 3), (90, 20, 5), (30, 30, 2), (7, 1, 2), (5, 6, 8)]


@pytest.mark.parametrize("shape", SHAPES)
def test_scores_are_those_of_the_normal_equations_with_the_bias_as_a_feature(shape):
  features, labels = examples(0, *shape)
  others, _ = examples(1, *shape)
  x, x_others = whitened(features, others)
  y = targets(labels, shape[2])
  primal = np.linalg.solve(x.T @ x + 1024 * np.eye(x.shape[1]), x.T @ y)
  dual = x.T @ np.linalg.solve(x @ x.T + 1024 * np.eye(len(x)), y)
  np.testing.assert_allclose(primal, dual, atol=1e-9)  # the reference agrees with itself
  found = scores(ridge.fit(features, labels, shape[2]), others)
  np.testing.assert_allclose(found, x_others @ primal, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("l2", [0.5, 1024.0])
def test_scores_are_those_of_scikit_learn(shape, l2):
  features, labels = examples(2, *shape)
  others, _ = examples(3, *shape)
  x, x_others = whitened(features, others)
  model = linear_model.Ridge(alpha=l2, fit_intercept=False, solver="svd")
  model.fit(x, targets(labels, shape[2]))
  expected = model.predict(x_others).reshape(len(others), -1)
  found = scores(ridge.fit(features, labels, shape[2], l2), others)
  np.testing.assert_allclose(found, expected, rtol=1e-8, atol=1e-8)


@hypothesis.given(
  seed=strategies.integers(0, 2**31),
  n=strategies.integers(1, 40),
  dimension=strategies.integers(1, 40),
  num_classes=strategies.integers(2, 6),
)
@hypothesis.settings(max_examples=40)
def test_predictions_do_not_depend_on_blocks_or_on_scale_and_shift(seed, n, dimension, num_classes):
  features, labels = examples(seed, n, dimension, num_classes)
  others, _ = examples(seed + 1, n, dimension, num_classes)
  fitted = ridge.fit(features, labels, num_classes)
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(ridge, "_BLOCK", 3 * dimension)  # three rows at once
    in_blocks = ridge.fit(features, labels, num_classes)
    np.testing.assert_allclose(in_blocks.weights, fitted.weights, atol=1e-9)
    expected = np.argmax(scores(fitted, others), axis=1)
    assert in_blocks.predict(others).tolist() == expected.tolist()
  # Features that are multiplied and shifted give the same scores, up to the 1e-5.
  moved = ridge.fit(features.astype(np.float64) * 8 + 3, labels, num_classes)
  spread = features.std(0, dtype=np.float64)
  if spread.min() > 0.1:
    changed = scores(moved, others.astype(np.float64) * 8 + 3)
    np.testing.assert_allclose(changed, scores(fitted, others), rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("n", [4, 60])  # both forms
def test_a_feature_that_is_constant_in_training_has_no_say(n):
  features, labels = examples(4, n, 10, 2)
  others, _ = examples(5, n, 10, 2)
  without = scores(ridge.fit(features, labels, 2), others)
  for value in (0.0, 0.1, 1e4):
    constant = np.insert(features, 3, value, axis=1)
    wild = np.insert(others, 3, 1e4, axis=1)  # another value in the test set
    found = scores(ridge.fit(constant, labels, 2), wild)
    np.testing.assert_allclose(found, without, atol=1e-5)


def test_one_example_per_class_predicts_itself():
  features, _ = examples(6, 9, 50, 9)
  fitted = ridge.fit(features, np.arange(9), 9)
  assert fitted.predict(features).tolist() == list(range(9))


def test_all_features_constant_predicts_the_largest_class():
  features = np.ones((6, 4), np.float32)
  fitted = ridge.fit(features, np.array([0, 1, 1, 2, 1, 0]), 4)  # and one class is absent
  assert fitted.predict(features).tolist() == [1] * 6


@pytest.mark.parametrize("n", [3, 40])
def test_an_absent_class_is_not_predicted(n):
  features, _ = examples(7, n, 20, 2)
  labels = np.arange(n) % 3  # of four classes
  assert ridge.fit(features, labels, 4).predict(features).max() <= 2


def test_21843_classes_need_no_matrix_of_examples_and_classes():
  # One example of each class and 16 features: targets alone would take 3.8 GB.
  num_classes, dimension = 21_843, 16
  random = np.random.default_rng(8)
  features = random.normal(size=(num_classes, dimension)).astype(np.float32)
  labels = random.permutation(num_classes)
  fitted = ridge.fit(features, labels, num_classes)
  some = slice(0, 50)
  x, others = whitened(features, features[some])
  weights = np.linalg.solve(
    x.T @ x + 1024 * np.eye(dimension + 1),
    2 * x[np.argsort(labels)].T - x.sum(0)[:, None],
  )
  np.testing.assert_allclose(scores(fitted, features[some]), others @ weights, atol=1e-9)


def test_float32_features_lose_nothing_in_the_gram_matrix():
  # A float32 Gram matrix of features far from zero would be off by more than the penalty.
  features, labels = examples(9, 200, 15, 3)
  features = features + np.float32(1000)
  x, _ = whitened(features, features)
  y = targets(labels, 3)
  expected = x @ np.linalg.solve(x.T @ x + 1024 * np.eye(16), x.T @ y)
  found = scores(ridge.fit(features, labels, 3), features)
  np.testing.assert_allclose(found, expected, atol=1e-8)
