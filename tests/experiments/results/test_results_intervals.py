"""Medians, extremes and what resampling says of the median."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from experiments.results import intervals


def test_few_values():
  assert intervals.summarize([3.0]) == intervals.Summary(1, 3.0, 3.0, 3.0, None)
  assert intervals.summarize([4, 1, 3, 2]) == intervals.Summary(4, 2.5, 1.0, 4.0, None)


def test_five_values_say_no_more_than_their_range():
  # The median of a resample is the lowest value if three of five draws are: in 5.8 % of resamples.
  assert intervals.summarize([5.0, 1.0, 2.0, 4.0, 3.0]) == intervals.Summary(5, 3.0, 1.0, 5.0, None)


def test_seven_values_leave_the_extremes_out():
  # Four of seven draws are the lowest in 1.0 % of resamples, the two lowest alone in 9.5 %.
  assert intervals.summarize([7.0, 1.0, 3.0, 2.0, 5.0, 6.0, 4.0]).interval == (2.0, 6.0)


def test_many_values_have_the_interval_of_the_normal_distribution():
  values = np.random.default_rng(1).normal(0, 1, 400)
  low, high = intervals.summarize(values).interval
  error = 1.2533 / 20  # of the median of 400 values
  median = np.median(values)
  np.testing.assert_allclose([low - median, high - median], [-2 * error, 2 * error], atol=0.06)


@given(st.lists(st.floats(0, 100), min_size=1, max_size=9), st.randoms())
def test_the_order_is_of_no_consequence(values, random):
  shuffled = list(values)
  random.shuffle(shuffled)
  found = intervals.summarize(values)
  assert found == intervals.summarize(shuffled)
  assert found.low <= found.median <= found.high
