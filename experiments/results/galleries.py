"""Where a report's figures go."""

import pathlib
import re
from collections import Counter


class Gallery:
  """Gives out the paths of a report's figures, none of them twice."""

  def __init__(self, folder: pathlib.Path):
    """Starts without any figure.

    Args:
      folder: Where they go.
    """
    self._folder = folder
    self._given: Counter[str] = Counter()

  def path(self, *parts: str) -> pathlib.Path:
    """Returns the path of a figure that `parts` tell of."""
    name = re.sub(r"[^a-z0-9.]+", "-", " ".join(parts).lower()).strip("-.")[:80]
    self._given[name] += 1
    number = self._given[name]
    return self._folder / (f"{name}.png" if number == 1 else f"{name}-{number}.png")
