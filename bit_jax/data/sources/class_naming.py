"""Rules for class names: one line each, and no two that look the same."""

import unicodedata
from collections.abc import Iterable, Sequence

# Control characters, surrogates (bytes that are not UTF-8), and line and paragraph separators.
_UNPRINTABLE = ("Cc", "Cs", "Zl", "Zp")
_MOST_DIGITS = 100  # of a name that is a number; Python refuses thousands


def printable(name: str) -> bool:
  """Returns whether a name can be printed on one line."""
  return not any(unicodedata.category(c) in _UNPRINTABLE for c in name)


def escaped(text: str) -> str:
  """Returns a text on one line, with Python's escapes for characters that can't be printed."""
  return "".join(c if printable(c) else c.encode("unicode_escape").decode() for c in text)


def fault(names: Sequence[str]) -> str | None:
  """Returns the fault of the first unusable name, or None.

  Two names look the same if they differ only in white space, in characters without a width, or in
  the Unicode form of a letter with an accent.

  Args:
    names: Class names in the order of their labels.

  Returns:
    A clause without a full stop, with the name as Python writes it and its label.
  """
  seen: dict[str, int] = {}
  for label, name in enumerate(names):
    if not printable(name):
      return f"class name {label}, {name!r}, has a line end or a character that can't be printed"
    visible = "".join(c for c in name if unicodedata.category(c) != "Cf")
    shown = unicodedata.normalize("NFC", " ".join(visible.split()))
    if not shown:
      return f"class name {label}, {name!r}, is empty"
    first = seen.setdefault(shown, label)
    if first != label:
      both = f"class names {first} and {label}, {names[first]!r} and {name!r},"
      same = "are the same" if names[first] == name else "look the same"
      return f"{both} {same}"
  return None


def differ_in_case(names: Iterable[str]) -> str | None:
  """Returns names that differ only in upper and lower case, comma-separated, or None.

  Single letters may differ: data sets of letters have both cases.
  """
  spellings: dict[str, list[str]] = {}
  for name in sorted(set(names)):
    if len(name) > 1:
      spellings.setdefault(name.casefold(), []).append(name)
  return ", ".join(n for same in spellings.values() if len(same) > 1 for n in same) or None


def in_order(names: Iterable[str]) -> tuple[str, ...]:
  """Returns names sorted, as numbers if all are, of up to 100 digits."""
  names = list(names)
  if all(name.isdecimal() and len(name) <= _MOST_DIGITS for name in names):
    return tuple(sorted(names, key=lambda name: (int(name), name)))
  return tuple(sorted(names))
