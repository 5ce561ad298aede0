"""What was noted of attempts."""

import datetime

import pytest

from experiments.results import attempts


def one(seconds=1.5, started="2020-01-01T00:00:00+00:00", outcome="finished"):
  return {"started": started, "seconds": seconds, "outcome": outcome}


@pytest.mark.parametrize(
  ("noted", "seconds"),
  [
    ([one(1.5), one(2)], 3.5),
    ([one(1.5), one(None)], None),
    ([one(1.5), one("2")], None),
    ([one(1.5), one(True)], None),
    ([one(1.5), 2], None),
    ([one(1.5), {"seconds": 2}], None),
    ([one(1e308), one(1e308)], None),
    ([one(10**400)], None),
    ([one(1.5), one(-2.5)], None),
    ([one(float("nan"))], None),
    ([one(0)], None),
    ([one(1.5), one(outcome=None)], None),
    ([], None),
    ("x", None),
    (None, None),
  ],
)
def test_seconds(noted, seconds):
  assert attempts.seconds(noted) == seconds


@pytest.mark.parametrize(
  ("last", "began"),
  [
    ("2026-11-22T10:00:00+01:00", "2026-11-22T09:00:00+00:00"),
    ("2026-11-22T09:00:00", "2026-11-22T09:00:00+00:00"),
    ("yesterday", None),
    ("", None),
    (5, None),
  ],
)
def test_the_last_one_began(last, began):
  expected = None if began is None else datetime.datetime.fromisoformat(began)
  assert attempts.last_began([one(), one(started=last)]) == expected


@pytest.mark.parametrize("noted", [[], [1], [{}], {"started": "2026-11-22"}, None])
def test_nothing_noted(noted):
  assert attempts.last_began(noted) is None
