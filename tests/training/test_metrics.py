"""Tests of bit_jax.training.metrics."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bit_jax.training import metrics


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
