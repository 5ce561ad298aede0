"""Where a report's figures go."""

import itertools
import pathlib
import re


class Gallery:
  """Gives out the paths of a report's figures, none of them twice."""

  def __init__(self, folder: pathlib.Path):
    """Starts without any figure.

    Args:
      folder: Where they go.
    """
    self._folder = folder
    self._given: set[str] = set()

  def path(self, *parts: str) -> pathlib.Path:
    """Returns the path of a figure that `parts` tell of."""
    stem = re.sub(r"[^a-z0-9.]+", "-", " ".join(parts).lower()).strip("-.")[:80]
    names = itertools.chain([stem], (f"{stem}-{number}" for number in itertools.count(2)))
    name = next(name for name in names if name not in self._given)
    self._given.add(name)
    return self._folder / f"{name}.png"
