"""Tests of bit_jax.runtime.phrases."""

import pytest

from bit_jax.runtime import phrases


@pytest.mark.parametrize(
  ("count", "expected"), [(0, "0 runs"), (1, "1 run"), (2, "2 runs"), (1234, "1,234 runs")]
)
def test_plurals_end_in_s(count, expected):
  assert phrases.counted(count, "run") == expected


def test_a_plural_may_be_given():
  assert phrases.counted(2, "class", "classes") == "2 classes"


def test_names_are_cut_after_five():
  assert phrases.some(list("abcde")) == "a, b, c, d, e"
  assert phrases.some(list("abcdefg")) == "a, b, c, d, e and 2 more"
