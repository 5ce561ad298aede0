"""Tests of bit_jax.data.sources.class_naming."""

import pytest

from bit_jax.data.sources import class_naming


@pytest.mark.parametrize(
  ("names", "expected"),
  [
    (("10", "9", "009"), ("009", "9", "10")),
    (("10", "9", "a"), ("10", "9", "a")),
    (("9" * 5000, "10", "9"), ("10", "9", "9" * 5000)),  # Python makes no number of it
  ],
)
def test_the_order_is_that_of_numbers_where_all_are(names, expected):
  assert class_naming.in_order(names) == expected
