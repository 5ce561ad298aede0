"""Calibration, against sums over bins that are made one by one."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bit_jax.inference import calibration


def of_bins(confidence, correct, bins=15):
  """Returns the error as the code of Guo et al. adds it up, bin by bin."""
  error = 0.0
  for m in range(bins):
    low, high = m / bins, (m + 1) / bins
    inside = (confidence > low) & (confidence <= high)
    if inside.any():
      gap = abs(correct[inside].mean() - confidence[inside].mean())
      error += gap * inside.mean()
  return error


@given(st.lists(st.tuples(st.floats(2**-20, 1, width=32), st.booleans()), min_size=1, max_size=60))
def test_it_is_the_sum_over_bins(pairs):
  confidence, correct = np.array([p[0] for p in pairs]), np.array([p[1] for p in pairs])
  assert calibration.calibration_error(confidence, correct) == pytest.approx(
    of_bins(confidence, correct), abs=1e-12
  )


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n", range(1, 16))
def test_a_bin_includes_its_upper_edge(dtype, n):
  """Were n / 15 one bin higher, it would be together with the other value and cancel out."""
  edge = dtype(n / 15)
  above = np.nextafter(edge, dtype(2)) if n < 15 else edge
  error = calibration.calibration_error(np.array([edge, above]), np.array([True, False]))
  gaps = (1 - edge, above)
  expected = (sum(gaps) if n < 15 else abs(gaps[0] - gaps[1])) / 2
  assert error == pytest.approx(expected, abs=1e-6)


def test_known_values():
  certain = np.ones(4, np.float32)
  assert calibration.calibration_error(certain, np.array([True] * 4)) == 0
  assert calibration.calibration_error(certain, np.array([True, True, True, False])) == 0.25
  assert calibration.calibration_error(certain, np.array([False] * 4)) == 1
  assert calibration.calibration_error(np.zeros(2, np.float32), np.array([False] * 2)) == 0
  # Of those at 80 % four of five are right, of those at 50 % none: (5 * 0 + 2 * 0.5) / 7.
  confidence = np.array([0.8] * 5 + [0.5] * 2)
  correct = np.array([True] * 4 + [False] * 3)
  assert calibration.calibration_error(confidence, correct) == pytest.approx(1 / 7, abs=1e-12)


def test_half_precision_is_not_summed_in():
  confidence = np.full(100_000, 0.7, np.float32)
  correct = np.arange(100_000) % 10 < 7
  assert calibration.calibration_error(confidence, correct) == pytest.approx(0, abs=1e-7)
