"""Values from files that anyone may have edited."""

import math

import pytest

from bit_jax.report import values


@pytest.mark.parametrize(
  ("value", "number", "positive", "whole"),
  [
    (2, 2.0, 2.0, 2),
    (0, 0.0, None, 0),
    (-1.5, -1.5, None, None),
    (True, None, None, None),
    ("2", None, None, None),
    (None, None, None, None),
    (math.nan, None, None, None),
    (-math.inf, None, None, None),
    (10**400, None, None, None),
    (2**63 - 1, 2.0**63, None, 2**63 - 1),
    (-(2**63), -(2.0**63), None, None),
  ],
)
def test_numbers(value, number, positive, whole):
  assert values.number(value) == number
  assert values.positive(value) == positive
  assert values.whole(value) == whole


def test_texts():
  assert values.text(" a\n b ") == values.plain(" a\n b ") == "a b"
  assert values.text(["a"]) == ""
  assert values.plain(["a"]) == "['a']"
  assert values.plain("\ud800\udcff\x00\x1b") == "????"
  assert values.plain("Bär 权重") == "Bär 权重"
  assert values.plain("x" * 300) == "x" * 300
  assert values.plain("x" * 301) == "x" * 299 + "…"
