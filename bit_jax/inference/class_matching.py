"""Matches the classes of labelled images with those of a network, by name."""

import difflib
import unicodedata
from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from bit_jax.runtime import errors, phrases

# In a message: unknown names, and class names that are close to one of them.
_LISTED, _CLOSE = 20, 3


def match(
  names: Sequence[str],
  class_names: Sequence[str],
  where: object,
  other_names: Mapping[str, int] | None = None,
) -> np.ndarray:
  """Returns the class of a network that each name means.

  A name that is no class of the network, letter by letter, may differ in upper and lower case, in
  blanks for underscores, and in the Unicode form of an accent, if one class alone remains.

  Args:
    names: M names of classes, all different.
    class_names: C names of the network's classes, all different.
    where: The folder or file that the names are from, for messages.
    other_names: {name: class} of further names that classes go by.

  Returns:
    [M] int32 in [0, C), all different.

  Raises:
    UserError: Names are unknown, mean several classes, or two mean the same one.
  """
  exact = {name: label for label, name in enumerate(class_names)}
  spellings = defaultdict(list)
  for name, label in exact.items():
    spellings[_plain(name)].append(label)
  known = {**(other_names or {}), **exact}
  labels: list[int] = []
  unknown: list[str] = []
  several: list[str] = []
  for name in names:
    close = [known[name]] if name in known else spellings.get(_plain(name), [])
    if len(close) == 1:
      labels += close
    else:
      (several if close else unknown).append(name)
  if unknown:
    raise errors.UserError(*_unknown(unknown, class_names, where))
  if several:
    found = ", ".join(class_names[label] for label in spellings[_plain(several[0])])
    raise errors.UserError(
      f"The class {several[0]!r} in {where} may be any of the network's classes {found}, which "
      f"differ in case, blanks or underscores alone: rename it to one of them."
    )
  by_label: dict[int, str] = {}
  for name, label in zip(names, labels, strict=True):
    if (other := by_label.setdefault(label, name)) != name:
      raise errors.UserError(
        f"The classes {other!r} and {name!r} in {where} are the same class of the network, "
        f"{class_names[label]!r}: merge them."
      )
  return np.array(labels, np.int32)


def _unknown(unknown: Sequence[str], class_names: Sequence[str], where: object) -> list[str]:
  """Returns lines on names that are no classes: each with close ones, as far as they fit."""
  known = {_plain(name): name for name in reversed(class_names)}
  texts = []
  for name in unknown[:_LISTED]:
    close = difflib.get_close_matches(_plain(name), known, n=_CLOSE)
    similar = f" (close: {', '.join(known[c] for c in close)})" if close else ""
    texts.append(f"  {name}{similar}")
  if len(unknown) > _LISTED:
    texts.append(f"  and {len(unknown) - _LISTED} more")
  classes = phrases.counted(len(unknown), "class", "classes")
  are = "is not a class" if len(unknown) == 1 else "are not classes"
  return [
    f"{classes} in {where} {are} of the network:",
    *texts,
    f"Its {len(class_names):,} classes are {phrases.some(class_names)}. Rename the "
    f"unknown ones, or leave their images out.",
  ]


def _plain(name: str) -> str:
  """Returns a name without what may differ between two spellings of it."""
  return " ".join(unicodedata.normalize("NFC", name).casefold().replace("_", " ").split())
