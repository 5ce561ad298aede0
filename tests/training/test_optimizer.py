"""Tests of bit_jax.training.optimizer."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bit_jax import hyperrule
from bit_jax.training import optimizer, steps

SHAPES = st.tuples(
  st.floats(1e-4, 10), st.integers(0, 40), st.lists(st.integers(0, 120), max_size=4).map(sorted)
)


@pytest.fixture(scope="module")
def reference(shared):
  """What the official `bit_hyperrule.py` returns."""
  with np.load(shared / "golden" / "hyperrule.npz") as file:
    return dict(file)


def get_lr(step, base_lr, warmup_steps, decay_steps):
  """The rule in plain Python: a line up, then a tenth for each boundary that lies behind."""
  if step < warmup_steps:
    return base_lr * step / warmup_steps
  return base_lr * 0.1 ** sum(boundary < step for boundary in decay_steps)


def rule_rates(num_examples, preset="code"):
  rule = hyperrule.schedule(preset, num_examples)
  return optimizer.learning_rates(
    rule.base_lr, rule.warmup_steps, rule.decay_steps, rule.total_steps
  )


@pytest.mark.parametrize(
  "num_examples", [1000, 19_999, 20_000, 50_000, 499_999, 500_000, 1_281_167]
)
def test_every_step_is_the_official_one(reference, num_examples):
  rates = rule_rates(num_examples)
  assert rates.dtype == np.float32
  np.testing.assert_allclose(rates, reference[f"lr/examples{num_examples}"], rtol=5e-7)


@pytest.mark.parametrize(
  ("num_examples", "rates"),
  [  # recorded from the official code
    (1000, {0: 0, 1: 3e-5, 90: 2.7e-3, 100: 3e-3, 200: 3e-3, 201: 3e-4, 301: 3e-5, 499: 3e-6}),
    (50_000, {0: 0, 497: 2.982e-3, 500: 3e-3, 3000: 3e-3, 3001: 3e-4, 6001: 3e-5, 9999: 3e-6}),
    (500_000, {499: 2.994e-3, 6000: 3e-3, 6001: 3e-4, 12000: 3e-4, 12001: 3e-5, 18001: 3e-6}),
  ],
)
def test_some_official_steps(num_examples, rates):
  out = rule_rates(num_examples)
  np.testing.assert_allclose([out[s] for s in rates], list(rates.values()), rtol=5e-7)


@pytest.mark.parametrize("preset", hyperrule.PRESETS)
def test_every_step_of_every_preset(preset):
  rule = hyperrule.schedule(preset, 1000)
  expected = [
    get_lr(s, rule.base_lr, rule.warmup_steps, rule.decay_steps) for s in range(rule.total_steps)
  ]
  np.testing.assert_allclose(rule_rates(1000, preset), expected, rtol=5e-7)


@given(SHAPES)
def test_any_schedule(shape):
  expected = [get_lr(s, *shape) for s in range(130)]
  np.testing.assert_allclose(optimizer.learning_rates(*shape, 130), expected, rtol=1e-6)


@given(SHAPES)
def test_the_rate_never_rises_after_the_warm_up(shape):
  base_lr, warmup_steps, _ = shape
  rates = optimizer.learning_rates(*shape, 130)
  assert np.all(np.diff(rates[warmup_steps:]) <= 0)
  assert np.all(np.diff(rates[: warmup_steps or 1]) > 0)
  assert rates.max() <= np.float32(base_lr)


@given(st.integers(0, 20), st.integers(20, 60))
def test_a_boundary_still_has_the_old_rate(warmup_steps, boundary):
  rates = optimizer.learning_rates(1.0, warmup_steps, [boundary], 70)
  assert rates[boundary] == 1
  assert rates[boundary + 1] == np.float32(0.1)


def update(sgd, state, gradients, rate):
  """Takes a step by the gradients of parameters of which none is standardised."""
  gradients = {"params": gradients, "standardized": {}}
  return steps.update(state, gradients, rate, optimizer=sgd)


def test_momentum_by_hand():
  """By hand: v = (1, 2), (3.5, 0), (1.75, 0); 1 - 0.1 - 0.35 - 0.0175 and -2 - 0.2 - 0 - 0."""
  sgd = optimizer.sgd(0.5)
  state = steps.create_state({"w": jnp.array([1.0, -2.0])}, sgd)
  for gradient, rate in (([1.0, 2.0], 0.1), ([3.0, -1.0], 0.1), ([0.0, 0.0], 0.01)):
    state = update(sgd, state, {"w": jnp.array(gradient)}, rate)
  np.testing.assert_allclose(state.params["w"], [0.5325, -2.2], rtol=1e-6)


def test_without_momentum_it_is_gradient_descent():
  sgd = optimizer.sgd(0.0)
  params = {"a": jnp.ones(3), "b": {"c": jnp.zeros(2)}}
  gradient = jax.tree.map(lambda x: x + 1, params)
  state = steps.create_state(params, sgd)
  for done in (1, 2):
    state = update(sgd, state, gradient, 0.25)
    np.testing.assert_allclose(state.params["a"], [1 - 0.5 * done] * 3)
    np.testing.assert_allclose(state.params["b"]["c"], [-0.25 * done] * 2)


def test_another_rate_compiles_nothing():
  sgd = optimizer.sgd(0.9)
  traces = []

  @jax.jit
  def step(state, gradient, rate):
    traces.append(rate)
    return update(sgd, state, gradient, rate)

  state = steps.create_state({"w": jnp.ones(2)}, sgd)
  for rate in (0.1, 0.2):
    state = step(state, {"w": jnp.ones(2)}, rate)
  assert len(traces) == 1


def test_momentum_that_is_kept_in_bfloat16_is_computed_with_in_float32():
  sgd = optimizer.sgd(0.9, "bfloat16")
  state = steps.create_state({"w": jnp.float32(0)}, sgd)
  state = update(sgd, state, {"w": jnp.float32(1.001)}, jnp.float32(1))
  assert state.params["w"] == jnp.float32(-1.001)
  assert {x.dtype for x in jax.tree.leaves(state.opt_state)} == {jnp.dtype(jnp.bfloat16)}
  state = update(sgd, state, {"w": jnp.float32(0.5)}, jnp.float32(2))
  expected = -1.001 - 2 * (0.9 * 1.0 + 0.5)  # 1.001 was rounded to 1
  np.testing.assert_allclose(state.params["w"], expected, rtol=1e-6)
