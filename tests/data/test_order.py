"""Tests of bit_jax.data.order."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bit_jax.data import order
from bit_jax.runtime import errors

SEEDS = st.integers(0, 2**32)


@given(seed=SEEDS, epoch=st.integers(0, 10**6), n=st.integers(1, 200))
def test_an_epoch_is_a_permutation(seed, epoch, n):
  np.testing.assert_array_equal(np.sort(order.permutation(seed, epoch, n)), np.arange(n))


def test_epochs_and_seeds_differ():
  orders = {tuple(order.permutation(s, e, 50).tolist()) for s in range(5) for e in range(5)}
  assert len(orders) == 25


def test_a_permutation_is_fixed_for_good():
  # Recorded once: a resumed run must find the order that it began with.
  assert order.permutation(0, 0, 8).tolist() == [4, 1, 3, 6, 0, 5, 2, 7]
  assert order.permutation(7, 3, 8).tolist() == [7, 5, 1, 6, 2, 4, 0, 3]


def test_a_cached_permutation_cannot_be_spoilt():
  with pytest.raises(ValueError, match="read-only"):
    order.permutation(0, 0, 8)[0] = 5


@given(seed=SEEDS, batch_size=st.integers(1, 40), n=st.integers(1, 30), steps=st.integers(1, 6))
def test_batches_are_the_epochs_end_to_end(seed, batch_size, n, steps):
  batches = [order.batch(seed, step, batch_size, n) for step in reversed(range(steps))][::-1]
  assert {(b.shape, b.dtype) for b in batches} == {((batch_size,), np.dtype(np.int64))}
  stream = np.concatenate(batches)
  epochs = -(-len(stream) // n)
  expected = np.concatenate([order.permutation(seed, e, n) for e in range(epochs)])
  np.testing.assert_array_equal(stream, expected[: len(stream)])


def test_a_batch_larger_than_the_set_repeats_it_evenly():
  counts = np.bincount(order.batch(3, 0, 512, 100))
  assert counts.sum() == 512
  assert set(counts.tolist()) <= {5, 6}


def test_an_empty_set_has_no_batch():
  with pytest.raises(errors.UserError, match="training set is empty"):
    order.batch(0, 0, 4, 0)


@given(half=st.integers(1, 20), num_devices=st.integers(1, 8))
def test_mixup_partners_share_a_device(half, num_devices):
  batch_size = 2 * half * num_devices
  layout = order.device_layout(batch_size, num_devices)
  assert layout.shape == (num_devices, 2 * half)
  np.testing.assert_array_equal(np.sort(layout, axis=None), np.arange(batch_size))
  np.testing.assert_array_equal(layout[:, ::-1], batch_size - 1 - layout)


def test_one_device_takes_the_batch_in_order_even_an_odd_one():
  np.testing.assert_array_equal(order.device_layout(5, 1), [[0, 1, 2, 3, 4]])


def test_a_layout_by_hand():
  np.testing.assert_array_equal(order.device_layout(8, 2), [[0, 1, 6, 7], [2, 3, 4, 5]])


@pytest.mark.parametrize(
  ("batch_size", "num_devices", "sizes"),
  [(510, 4, "504 or 512"), (12, 8, "sizes: 16"), (7, 2, "4 or 8"), (4, 4, "sizes: 8")],
)
def test_a_batch_that_does_not_fit_names_the_nearest_that_do(batch_size, num_devices, sizes):
  with pytest.raises(errors.UserError, match=f"MixUp partners.*{sizes}"):
    order.device_layout(batch_size, num_devices)


@pytest.mark.parametrize(
  "call", [order.device_layout, lambda b, d: list(order.eval_batches(9, b, d))]
)
def test_a_batch_of_nothing_is_refused(call):
  with pytest.raises(errors.UserError, match="at least 1"):
    call(0, 1)


@given(n=st.integers(0, 100), batch_size=st.integers(1, 40), num_devices=st.integers(1, 8))
def test_evaluation_sees_every_example_exactly_once(n, batch_size, num_devices):
  batches = list(order.eval_batches(n, batch_size, num_devices))
  per_device = -(-batch_size // num_devices)
  seen = []
  for indices, mask in batches:
    assert indices.shape == mask.shape == (num_devices, per_device)
    assert not indices[~mask].any()
    seen.extend(indices[mask].tolist())
  assert seen == list(range(n))
  assert len(batches) == -(-n // (num_devices * per_device))


def test_no_mixup_is_a_factor_of_one():
  assert order.mixup_lambda(0, 5, 0.0) == 1.0


@pytest.mark.parametrize("alpha", [0.1, 0.2, 1.0])
def test_mixup_factors_follow_the_beta_distribution(alpha):
  factors = np.array([order.mixup_lambda(1, step, alpha) for step in range(4000)])
  assert len(set(factors.tolist())) > 1000
  assert factors.min() >= 0
  assert factors.max() <= 1
  # Symmetric: nothing takes max(lambda, 1 - lambda). Bounds are four standard errors or more.
  variance = 1 / (4 * (2 * alpha + 1))
  assert abs(factors.mean() - 0.5) < 4 * np.sqrt(variance / 4000)
  assert abs(factors.var() - variance) < 0.01


def test_a_mixup_factor_is_a_function_of_seed_and_step():
  assert order.mixup_lambda(1, 2, 0.1) == order.mixup_lambda(1, 2, 0.1)
  assert len({order.mixup_lambda(s, t, 1.0) for s in range(5) for t in range(5)}) == 25


@pytest.mark.parametrize(
  "call",
  [
    lambda: order.permutation(-1, 0, 3),
    lambda: order.batch(-1, 0, 3, 3),
    lambda: order.mixup_lambda(-1, 0, 0.1),
    lambda: order.mixup_lambda(0, 0, -0.1),
  ],
)
def test_negative_seeds_and_alphas_are_refused(call):
  with pytest.raises(errors.UserError, match="at least 0"):
    call()


def test_without_mixup_any_even_share_will_do():
  np.testing.assert_array_equal(order.device_layout(6, 2, mixup=False), [[0, 1, 2], [3, 4, 5]])
  np.testing.assert_array_equal(
    order.device_layout(8, 2, mixup=False), order.device_layout(8, 2, mixup=True)
  )
  with pytest.raises(errors.UserError, match=r"multiple of 2.*: 4 or 6"):
    order.device_layout(5, 2, mixup=False)


@given(seed=SEEDS, epoch=st.integers(0, 9), n=st.integers(1, 3_000), window=st.integers(1, 2_500))
def test_an_epoch_in_windows_is_a_permutation(seed, epoch, n, window):
  found = order.permutation(seed, epoch, n, window)
  np.testing.assert_array_equal(np.sort(found), np.arange(n))


@given(seed=SEEDS, n=st.integers(1, 3_000), more=st.integers(0, 100_000))
def test_a_window_that_holds_the_set_permutes_it_freely(seed, n, more):
  free = order.permutation(seed, 2, n)
  np.testing.assert_array_equal(order.permutation(seed, 2, n, n + more), free)


@given(
  seed=SEEDS,
  sizes=st.one_of(
    st.tuples(st.integers(1, 300), st.integers(1, 5)),
    st.tuples(st.integers(1, 20_000), st.integers(1, 4).map(lambda k: 1_024 * k)),
  ),
)
def test_the_examples_of_a_window_lie_in_few_places(seed, sizes):
  n, window = sizes
  found = order.permutation(seed, 0, n, window)
  block = min(1_024, window)
  for start in range(0, n, window):
    places = np.unique(found[start : start + window] // block)
    assert len(places) <= window // block + 1


def test_a_window_is_mixed_within_and_the_windows_among_each_other():
  n, window = 64 * 1_024, 8 * 1_024
  found = order.permutation(1, 0, n, window)
  for start in range(0, n, window):
    part = found[start : start + window]
    assert np.mean(np.diff(part) == 1) < 0.01
    assert np.ptp(part) > window  # not neighbours alone
  firsts = found.reshape(-1, window).mean(axis=1)
  assert np.any(np.diff(firsts) < 0)


def test_epochs_in_windows_differ_and_are_fixed_for_good():
  orders = {order.permutation(s, e, 5_000, 2_048).tobytes() for s in range(3) for e in range(3)}
  assert len(orders) == 9
  order.permutation.cache_clear()
  assert order.permutation(0, 0, 5_000, 2_048).tobytes() in orders
  # Recorded once: a resumed run must find the order that it began with.
  assert order.permutation(0, 0, 10, 4).tolist() == [3, 0, 2, 1, 4, 5, 7, 6, 9, 8]
  assert order.permutation(0, 0, 5_000, 2_048)[:4].tolist() == [492, 860, 4721, 4363]


@given(seed=SEEDS, batch_size=st.integers(1, 40), n=st.integers(1, 60), window=st.integers(1, 50))
def test_batches_are_the_windowed_epochs_end_to_end(seed, batch_size, n, window):
  found = np.concatenate([order.batch(seed, s, batch_size, n, window) for s in range(5)])
  epochs = range(-(-len(found) // n))
  expected = np.concatenate([order.permutation(seed, e, n, window) for e in epochs])
  np.testing.assert_array_equal(found, expected[: len(found)])


@pytest.mark.parametrize("call", [order.permutation, lambda s, e, n, w: order.batch(s, e, 2, n, w)])
def test_a_window_of_nothing_is_refused(call):
  with pytest.raises(errors.UserError, match="at least 1, not 0"):
    call(0, 0, 5, 0)


@pytest.mark.parametrize(
  ("share", "mixup", "sizes"),
  [
    (12, True, [2, 4, 6, 12]),
    (12, False, [1, 2, 3, 4, 6, 12]),
    (10, True, [2, 10]),
    (9, True, [9]),  # the one in the middle is its own partner
    (9, False, [1, 3, 9]),
    (1, True, [1]),
    (2, True, [2]),
  ],
)
def test_sizes_of_micro_batches(share, mixup, sizes):
  assert order.micro_batch_sizes(share, mixup) == sizes


def test_micro_batches_by_hand():
  np.testing.assert_array_equal(
    order.micro_batches(12, 4), [[0, 1, 10, 11], [2, 3, 8, 9], [4, 5, 6, 7]]
  )
  np.testing.assert_array_equal(order.micro_batches(6, 3), [[0, 1, 2], [3, 4, 5]])


@given(st.integers(1, 60), st.integers(1, 4), st.booleans())
def test_every_example_is_in_one_micro_batch_together_with_its_partner(half, num_devices, mixup):
  batch_size = 2 * half * num_devices
  for row in order.device_layout(batch_size, num_devices, mixup):
    for size in order.micro_batch_sizes(len(row), mixup):
      parts = order.micro_batches(len(row), size)
      assert parts.shape == (len(row) // size, size)
      assert sorted(parts.ravel()) == list(range(len(row)))
      if mixup:
        np.testing.assert_array_equal(row[parts][:, ::-1], batch_size - 1 - row[parts])
