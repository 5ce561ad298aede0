"""Runs of one setting: points, medians, extremes, and what resampling says of the median."""

import math

import numpy as np
import pytest
import run_folders
from hypothesis import given
from hypothesis import strategies as st

from experiments.results import seeds


def of_shots(tmp_path, *settings):
  runs = [(run_folders.config(f"model=R14x0.5,shots={n},seed={s}"), t) for n, s, t in settings]
  return run_folders.table(tmp_path, *runs)


def test_runs_that_differ_in_their_seeds_are_a_point(tmp_path):
  found = of_shots(tmp_path, (5, 0, 0.3), (10, 0, 0.6), (5, 1, 0.5), (5, 2, 0.35))
  points = seeds.points(found, ["shots"])
  assert list(points.shots) == [5, 10]
  assert [len(runs) for runs in points.runs] == [3, 1]
  top1 = points.top1[0]
  assert (top1.low, top1.median, top1.high) == pytest.approx((30, 35, 50))


def test_metrics_that_some_runs_have_not_recorded(tmp_path):
  settings = [(5, 0, {"macro_f1": 0.25}), (5, 1, {"macro_f1": 0.35}), (5, 2, {}), (10, 0, {})]
  runs = [
    (run_folders.config(f"model=R14x0.5,shots={n},seed={seed}"), 0.5, {"result": result})
    for n, seed, result in settings
  ]
  few, more = seeds.rows(seeds.points(run_folders.table(tmp_path, *runs), ["shots"]))
  assert str(few.macro_f1) == "30.0 (25.0 to 35.0), 2 seeds"
  assert (few.balanced_accuracy, more.macro_f1) == ("not available", "not available")


def test_the_number_of_parameters():
  assert seeds.num_parameters("R50x1") == 23_500_352
  assert seeds.num_parameters("ViT-B/16") == math.inf


def test_differences_are_of_runs_with_the_same_seed(tmp_path):
  def runs(name, **top1):
    settings = ((5, int(seed[1:]), value) for seed, value in top1.items())
    return list(of_shots(tmp_path / name, *settings).run)

  reference = runs("a", s0=0.40, s1=0.45, s2=0.50, s3=0.10)
  other = runs("b", s2=0.52, s1=0.44, s7=0.9)
  assert sorted(seeds.paired_differences(other, reference)) == pytest.approx([-1, 2])
  assert seeds.paired_differences(runs("c", s7=0.5), reference) == []


@pytest.mark.parametrize(
  ("values", "said"),
  [
    ([50.0], "50.0, 1 seed"),
    ([50.0, 52.0], "51.0 (50.0 to 52.0), 2 seeds"),
    ([50.0] * 20 + [10.0], "50.0 (10.0 to 50.0), 21 seeds, median in 50.0 to 50.0"),
    ([50.0] * 6, "50.0 (50.0 to 50.0), 6 seeds"),
  ],
)
def test_summaries_as_text(values, said):
  assert str(seeds.summarize(values)) == said


def test_few_values():
  assert seeds.summarize([3.0]) == seeds.Summary(1, 3.0, 3.0, 3.0)
  assert seeds.summarize([4, 1, 3, 2]) == seeds.Summary(4, 2.5, 1.0, 4.0)


def test_five_values_say_no_more_than_their_range():
  # The median of a resample is the lowest value if three of five draws are: in 5.8 % of resamples.
  assert seeds.summarize([5.0, 1.0, 2.0, 4.0, 3.0]) == seeds.Summary(5, 3.0, 1.0, 5.0)


def test_seven_values_leave_the_extremes_out():
  # Four of seven draws are the lowest in 1.0 % of resamples, the two lowest alone in 9.5 %.
  assert seeds.summarize([7.0, 1.0, 3.0, 2.0, 5.0, 6.0, 4.0]).interval == (2.0, 6.0)


def test_many_values_have_the_interval_of_the_normal_distribution():
  values = np.random.default_rng(1).normal(0, 1, 400)
  low, high = seeds.summarize(values).interval
  error = 1.2533 / 20  # of the median of 400 values
  median = np.median(values)
  np.testing.assert_allclose([low - median, high - median], [-2 * error, 2 * error], atol=0.06)


@given(st.lists(st.floats(0, 100), min_size=1, max_size=9), st.randoms())
def test_the_order_is_of_no_consequence(values, random):
  shuffled = list(values)
  random.shuffle(shuffled)
  found = seeds.summarize(values)
  assert found == seeds.summarize(shuffled)
  assert found.low <= found.median <= found.high
