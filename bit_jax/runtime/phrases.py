"""Counts, sizes, lists and closest names in messages."""

import difflib
from collections.abc import Iterable, Mapping, Sequence

_SHOWN = 5  # names in a message


def counted(n: int, singular: str, plural: str = "") -> str:
  """Returns e.g. '1 file' or '2 files'; pass the plural if it is not the singular with an s."""
  return f"{n:,} {singular if n == 1 else plural or singular + 's'}"


def file_size(number: int) -> str:
  """Returns bytes as a text, such as '999 bytes', '2.7 kB' or '94.5 MB'; a MB is a million."""
  if number < 1000:
    return counted(number, "byte")
  size, units = number / 1000, iter(("kB", "MB", "GB"))
  unit = next(units)
  for larger in units:
    if round(size, 1) < 1000:
      break
    size, unit = size / 1000, larger
  return f"{size:,.1f} {unit}"


def some(names: Sequence[str]) -> str:
  """Returns the first five names, comma-separated, and how many more there are."""
  more = len(names) - _SHOWN
  return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


def did_you_mean(name: str, known: Iterable[str]) -> str:
  """Returns e.g. ' (did you mean cifar10?)', or '' if no known name is close.

  Args:
    name: An unknown name.
    known: Names; or {spelling: name}, to compare spellings.
  """
  close = difflib.get_close_matches(name, known, n=1)
  names = known if isinstance(known, Mapping) else {}
  return f" (did you mean {names.get(close[0], close[0])}?)" if close else ""
