"""Values of JSON that others may have written: each as what it should be, or as not on record."""

import datetime
import math
from typing import Any

from experiments import ledger

_LONGEST = 300  # characters of a foreign text that are shown
_TOO_LARGE = 2**63


def plain(value: Any) -> str:
  """Returns a foreign value as one line of text, not too long, that any file can hold."""
  shown = "".join(c if c.isprintable() else "?" for c in " ".join(str(value).split()))
  return shown if len(shown) <= _LONGEST else f"{shown[: _LONGEST - 1]}…"


def text(value: Any) -> str:
  """Returns a text as `plain` does, and '' for what is none."""
  return plain(value) if isinstance(value, str) else ""


def number(value: Any) -> float | None:
  """Returns a finite number, or None for what is none."""
  if isinstance(value, bool) or not isinstance(value, int | float):
    return None
  try:
    return float(value) if math.isfinite(value) else None
  except OverflowError:
    return None


def positive(value: Any) -> float | None:
  """Returns a number above 0, or None for what is none, or is larger than any that is meant so."""
  found = number(value)
  return found if found is not None and 0 < found < _TOO_LARGE else None


def whole(value: Any) -> int | None:
  """Returns a whole number, or None for what is none, or is larger than any that is meant so."""
  return value if type(value) is int and abs(value) < _TOO_LARGE else None


def time(value: Any) -> datetime.datetime | None:
  """Returns an ISO 8601 time with its zone, UTC where it names none; None for what is no time."""
  try:
    return ledger.moment(text(value))
  except ValueError:
    return None
