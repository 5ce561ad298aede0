"""Tests of experiments.published."""

import pytest

from experiments import published


def test_a_row_is_found_by_its_source_model_set_and_metric():
  found = published.find("big_transfer README VTAB", "BiT-M-R152x4", "vtab-1k all 19", "top1")
  assert (found.value, found.rounding) == (73.51, pytest.approx(0.005))
  assert found.source == "big_transfer README VTAB-1k table (re-runs, not the paper models)"


@pytest.mark.parametrize(
  "row",
  [
    ("timm results", "resnetv2_50x1_bit.goog_in21k_ft_in1k", "imagenet2012 val", "top6"),
    ("timm results", "resnetv2_50x1_bit", "imagenet2012 val", "top1"),  # no whole word
    ("", "BiT-M-R152x4", "cifar11", "top1"),
    ("big_transfer", "BiT-M-R50x1-CIFAR10.npz", "cifar10", "top1"),  # three sources
  ],
)
def test_one_row_must_fit(row):
  with pytest.raises(LookupError, match=r"rows of published_results\.csv"):
    published.find(*row)


@pytest.mark.parametrize(
  ("text", "half"), [("97.64", 0.005), ("84.936", 0.0005), ("80.5", 0.05), ("81", 0.5)]
)
def test_rounding_is_half_a_unit_of_the_last_digit(text, half):
  assert published.result("top1", text, "").rounding == pytest.approx(half)
