"""Values that others wrote."""

import datetime
import math

import pytest

from experiments.results import fields


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
  assert fields.number(value) == number
  assert fields.positive(value) == positive
  assert fields.whole(value) == whole


def test_texts():
  assert fields.text(" a\n b ") == fields.plain(" a\n b ") == "a b"
  assert fields.text(["a"]) == ""
  assert fields.plain(["a"]) == "['a']"
  assert fields.plain("\ud800\udcff\x00\x1b") == "????"
  assert fields.plain("Bär 权重") == "Bär 权重"
  assert fields.plain("x" * 300) == "x" * 300
  assert fields.plain("x" * 301) == "x" * 299 + "…"


@pytest.mark.parametrize(
  ("value", "found"),
  [
    ("2026-11-22T10:00:00+01:00", "2026-11-22T09:00:00+00:00"),
    ("2026-11-22T09:00:00", "2026-11-22T09:00:00+00:00"),
    ("yesterday", None),
    (5, None),
    (None, None),
  ],
)
def test_times(value, found):
  assert fields.time(value) == (found and datetime.datetime.fromisoformat(found))
