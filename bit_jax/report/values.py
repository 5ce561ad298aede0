"""Values from files that a user may have edited: each is checked before it is shown or compared."""

from typing import Any

_LONGEST = 300  # characters of a foreign text that are shown
_TOO_LARGE = 2**63


def plain(value: Any, longest: int = _LONGEST) -> str:
  """Returns any value as one printable line of at most `longest` characters."""
  line = " ".join(str(value).split())[: longest + 1]
  shown = "".join(c if c.isprintable() else "?" for c in line)
  return shown if len(shown) <= longest else f"{shown[: longest - 1]}…"


def text(value: Any) -> str:
  """Returns a string as `plain` does; '' for other types."""
  return plain(value) if isinstance(value, str) else ""


def number(value: Any) -> float | None:
  """Returns a finite number, or None for anything else."""
  if type(value) not in (int, float) or not abs(value) < _TOO_LARGE**2:  # NaN isn't less either
    return None
  return float(value)


def positive(value: Any) -> float | None:
  """Returns a number above 0, or None for anything else, such as an absurdly large number."""
  found = number(value)
  return found if found is not None and 0 < found < _TOO_LARGE else None


def whole(value: Any) -> int | None:
  """Returns an integer, or None for anything else, such as an absurdly large integer."""
  return value if type(value) is int and abs(value) < _TOO_LARGE else None
