"""Tests of bit_jax.inference.metrics."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bit_jax.inference import metrics
from bit_jax.inference.example_metrics import example_metrics


def outputs(*losses, top1=0.0, top5=1.0):
  n = len(losses)
  return {
    "loss": jnp.array(losses),
    "top1": jnp.full(n, top1),
    "top5": jnp.full(n, top5),
  }


def part(collection, *losses, mask=None, **others):
  return collection.single_from_model_output(mask=mask, **outputs(*losses, **others))


@pytest.mark.parametrize(("num_classes", "told"), [(2, False), (99, False), (100, True)])
def test_top5_is_told_from_100_classes_up(num_classes, told):
  result = metrics.merge([part(metrics.collection(num_classes), 1.0, 3.0)])
  assert result == {"loss": 2.0, "top1": 0.0, **({"top5": 1.0} if told else {})}
  assert all(type(v) is float for v in result.values())


def test_merging_weighs_every_example_alike():
  c = metrics.collection(10)
  parts = [part(c, 1.0, 2.0, 3.0), part(c, 10.0, top1=1.0)]
  assert metrics.merge(parts) == {"loss": 4.0, "top1": 0.25}
  assert metrics.merge(parts[::-1]) == {"loss": 4.0, "top1": 0.25}


def test_masked_examples_do_not_count():
  c = metrics.collection(100)
  mask = jnp.array([True, False, True])
  assert metrics.merge([part(c, 1.0, 99.0, 2.0, mask=mask)])["loss"] == 1.5
  assert metrics.merge([part(c, 1.0, np.nan, 2.0, mask=mask)])["loss"] == 1.5


def test_examples_of_all_devices_are_gathered():
  c = metrics.collection(10)
  losses = np.arange(8, dtype=np.float32).reshape(4, 2)
  mask = np.array([[True, True], [True, True], [True, True], [True, False]])

  @functools.partial(jax.pmap, axis_name="devices", in_axes=0, out_axes=None)
  def gather(loss, mask):
    return c.gather_from_model_output(
      axis_name="devices", mask=mask, loss=loss, top1=(loss > 4).astype(jnp.float32)
    )

  result = metrics.merge([gather(losses, mask)])
  assert result == {"loss": 3.0, "top1": pytest.approx(2 / 7)}  # of 0 to 6


def test_the_first_loss_that_is_not_finite():
  c = metrics.collection(10)
  good, nan, infinite = part(c, 1.0, 2.0), part(c, 1.0, np.nan), part(c, np.inf)
  assert metrics.first_not_finite([good, good]) is None
  assert metrics.first_not_finite([good, nan, infinite]) == 1
  assert metrics.first_not_finite([infinite]) == 0


CLASSES = 8


def softmax(x):
  e = np.exp(x - x.max(1, keepdims=True))
  return e / e.sum(1, keepdims=True)


def rank(logits, label):
  """Place of a class by decreasing logit, equal ones in the order of the classes."""
  return sorted(range(len(logits)), key=lambda c: (-logits[c], c)).index(label)


@given(
  st.lists(st.integers(-3, 3), min_size=CLASSES, max_size=CLASSES), st.integers(0, CLASSES - 1)
)
def test_example_metrics_with_ties(logits, label):
  out = example_metrics(jnp.array([logits], jnp.float32), jnp.array([label]))
  assert out["top1"][0] == (rank(logits, label) < 1)
  assert out["top5"][0] == (rank(logits, label) < 5)
  assert out["top1"][0] == (np.argmax(logits) == label)
  expected = -np.log(softmax(np.array([logits], np.float64))[0, label])
  np.testing.assert_allclose(out["loss"][0], expected, rtol=1e-5, atol=1e-6)


def test_all_logits_equal_are_right_for_the_first_classes_only():
  out = example_metrics(jnp.zeros((CLASSES, CLASSES)), jnp.arange(CLASSES))
  assert out["top1"].tolist() == [1, 0, 0, 0, 0, 0, 0, 0]
  assert out["top5"].tolist() == [1, 1, 1, 1, 1, 0, 0, 0]


def test_nan_is_never_right():
  logits = jnp.full((2, CLASSES), jnp.nan).at[1, 1:].set(0.0)
  out = example_metrics(logits, jnp.array([0, 0]))
  assert out["top1"].tolist() == out["top5"].tolist() == [0, 0]
  assert jnp.isnan(out["loss"]).all()
  out = example_metrics(logits[1:], jnp.array([1]))  # another class's NaN
  assert out["top1"].tolist() == [0]
