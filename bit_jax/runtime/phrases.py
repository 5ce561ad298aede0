"""Counts and lists in messages."""

from collections.abc import Sequence

_SHOWN = 5  # names in a message


def counted(n: int, singular: str, plural: str = "") -> str:
  """Returns e.g. '1 file' or '2 files'; pass the plural if it is not the singular with an s."""
  return f"{n:,} {singular if n == 1 else plural or singular + 's'}"


def some(names: Sequence[str]) -> str:
  """Returns the first five names, comma-separated, and how many more there are."""
  more = len(names) - _SHOWN
  return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
