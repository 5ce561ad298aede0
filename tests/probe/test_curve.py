"""The fit of learning curves, and the coverage of forecasts, on power laws that are known."""

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies
from scipy import optimize, special

from bit_jax.probe import curve

laws = strategies.builds(
  curve.PowerLaw,
  a=strategies.floats(0.05, 0.9),
  b=strategies.floats(0.1, 1.8),
  c=strategies.floats(0, 0.4),
)


def measured(seed, law, available, num_images, num_seeds=20, sigma=0.04):
  """Returns measurements with all that varies: subsets, the pool, and test images.

  Examples are good or bad to train on; the error of a subset deviates from the law by their mean.
  Test images are hard or easy, and a classifier of each seed errs on them with its own noise.
  """
  random = np.random.default_rng(seed)
  sizes = np.array(curve.sizes(available))
  pool = sigma * random.normal(size=available)
  hardness = random.normal(size=num_images) * np.sqrt(0.75)
  wrong = np.zeros((num_seeds, len(sizes), num_images), bool)
  for s in range(num_seeds):
    order, of_seed = random.permutation(available), random.normal(size=num_images)
    for k, n in enumerate(sizes):
      if n == available and s:
        wrong[s, k] = wrong[0, k]  # the same subset
        continue
      error = law.at(n) + pool[order[:n]].mean()
      noise = np.sqrt(0.125) * (of_seed + random.normal(size=num_images))
      wrong[s, k] = hardness + noise < special.ndtri(np.clip(error, 1e-6, 1 - 1e-6))
  return curve.Measurements(sizes, wrong, sizes / available)


@hypothesis.given(law=laws, available=strategies.integers(10, 5000))
@hypothesis.settings(max_examples=40)
def test_a_law_without_noise_is_recovered(law, available):
  sizes = np.array(curve.sizes(available))
  found = curve.fit(sizes, law.at(sizes))
  np.testing.assert_allclose(found.at(sizes), law.at(sizes), atol=1e-7)
  np.testing.assert_allclose(found.at(2 * available), law.at(2 * available), atol=1e-5)
  np.testing.assert_allclose([found.a, found.b, found.c], [law.a, law.b, law.c], atol=5e-3)


@hypothesis.given(
  errors=strategies.lists(strategies.floats(0, 1), min_size=4, max_size=7),
  seed=strategies.integers(0),
)
@hypothesis.settings(max_examples=40)
def test_any_fit_falls_and_stays_above_zero(errors, seed):
  sizes = np.array([1, 2, 5, 10, 20, 50, 100][: len(errors)])
  weights = np.random.default_rng(seed).uniform(0.1, 10, len(errors))
  law = curve.fit(sizes, np.array(errors), weights)
  assert law.a >= 0
  assert law.c >= 0
  assert 0.02 <= law.b <= 2
  assert np.all(np.diff(law.at(np.arange(1, 300))) <= 1e-12)


@hypothesis.given(law=laws, seed=strategies.integers(0, 2**31))
@hypothesis.settings(max_examples=6)
def test_no_fit_is_better(law, seed):
  random = np.random.default_rng(seed)
  sizes = np.array([1, 2, 5, 10, 20, 50])
  weights = random.uniform(0.2, 5, 6)
  errors = np.clip(law.at(sizes) + 0.02 * random.normal(size=6), 0, 1)

  def loss(x):
    return np.average((errors - x[0] * sizes ** -x[1] - x[2]) ** 2, weights=weights)

  found = curve.fit(sizes, errors, weights)
  for start in [(0.5, 0.3, 0.1), (0.2, 1.0, 0.0), (law.a, law.b, law.c)]:
    other = optimize.minimize(loss, start, bounds=[(0, None), (0.02, 2), (0, None)])
    assert loss([found.a, found.b, found.c]) <= other.fun + 1e-9


def test_sizes_end_with_all():
  assert curve.sizes(4) == [1, 2, 3, 4]
  assert curve.sizes(9) == list(range(1, 10))
  assert curve.sizes(10) == [1, 2, 5, 10]
  assert curve.sizes(40) == [1, 2, 5, 10, 20, 40]
  assert curve.sizes(60) == [1, 2, 5, 10, 20, 60]  # 50 is too close to 60
  assert curve.sizes(5000)[-3:] == [1000, 2000, 5000]
  for available in range(4, 300):
    assert len(curve.sizes(available)) >= curve.LEAST


CASES = {
  "few images": (curve.PowerLaw(0.6, 0.5, 0.05), 40, 200),
  "a high floor": (curve.PowerLaw(0.4, 0.3, 0.3), 40, 200),
  "no floor": (curve.PowerLaw(0.5, 0.5, 0.0), 100, 500),
  "steep": (curve.PowerLaw(0.5, 1.0, 0.02), 50, 500),
}


def coverage(law, available, num_images, count):
  """Returns the shares of data sets whose interval of the gain is right, too low, too high."""
  low = high = 0
  for seed in range(count):
    found = curve.forecast(measured(seed, law, available, num_images))
    least, most = found.interval(2 * available)
    gain = law.at(available) - law.at(2 * available)
    low += found.now - least < gain
    high += found.now - most > gain
  return 1 - (low + high) / count, low / count, high / count


@pytest.mark.parametrize("case", ["few images", "no floor"])
def test_the_interval_covers_the_gain(case, monkeypatch):
  monkeypatch.setattr(curve, "_REPLICATES", 200)
  monkeypatch.setattr(curve, "_EXPONENTS", np.geomspace(0.02, 2, 50))
  covered, _, _ = coverage(*CASES[case], count=30)
  assert covered >= 25 / 30  # of 95%, with a probability of 0.997


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_the_interval_covers_the_gain_in_many_data_sets(case):
  covered, low, high = coverage(*CASES[case], count=300)
  assert 0.92 <= covered <= 0.995
  assert max(low, high) <= 0.08


def test_a_flat_curve_shows_no_gain():
  flat = curve.PowerLaw(0, 1, 0.3)
  shown = [curve.forecast(measured(seed, flat, 40, 100)).shows_gain for seed in range(12)]
  assert sum(shown) <= 2  # 2.5% of flat curves are expected to


def test_a_clear_gain_is_shown_and_the_interval_widens_with_the_distance():
  law = curve.PowerLaw(0.6, 0.5, 0.02)
  found = curve.forecast(measured(0, law, 100, 2000))
  assert found.shows_gain
  least, most = found.interval(200)
  assert least < found.error(200) < most < found.now
  assert found.interval(100) == pytest.approx((found.now, found.now))
  widths = [np.ptp(found.interval(n)) for n in (110, 150, 200, 400)]
  assert widths == sorted(widths)
  assert curve.forecast(measured(0, law, 100, 2000)).interval(200) == (least, most)  # no chance


def test_small_sizes_are_left_out_where_the_law_does_not_hold():
  # Chance level up to 10 examples, then a steep law: a straight fit would be off.
  kinked = measured(3, curve.PowerLaw(0.9, 0.5, 0.0), 500, 4000, sigma=0.005)
  wrong = kinked.wrong.copy()
  for k in range(5):
    wrong[:, k] = wrong[:, 4]  # no better below 20 examples
  found = curve.forecast(curve.Measurements(kinked.sizes, wrong, kinked.share))
  assert kinked.sizes[found.first] >= 20
  assert found.error(1000) == pytest.approx(0.9 * 1000**-0.5, abs=0.01)


@pytest.mark.parametrize("value", [False, True])
def test_errors_without_any_variance(value):
  wrong = np.full((3, 5, 20), value)
  sizes = np.array([1, 2, 5, 10, 20])
  found = curve.forecast(curve.Measurements(sizes, wrong, sizes / 20))
  assert found.now == float(value)
  assert not found.shows_gain
