"""The rows and columns of a user's CSV."""

import pathlib
import re
from typing import NamedTuple


class Row(NamedTuple):
  """A row that isn't blank: its line in the file, and its cells without blanks around them."""

  line: int
  cells: list[str]

  def cell(self, column: int) -> str:
    """Returns a cell; '' where the row is too short."""
    return self.cells[column] if column < len(self.cells) else ""


class Table(NamedTuple):
  """A CSV with its columns found; `header` has '' for each column of a CSV without one."""

  file: pathlib.Path
  header: list[str]
  rows: list[Row]
  path: int
  label: int

  def named(self, column: int) -> str:
    """Returns how messages call a column."""
    return self.header[column] or f"{column + 1}"

  def values(self, column: int) -> list[str]:
    """Returns the different values of a column that aren't blank, sorted."""
    return sorted({row.cell(column) for row in self.rows} - {""})


def plain(name: str) -> str:
  """Returns a name in lower case, without blanks, hyphens, full stops and underscores."""
  return re.sub(r"[\s_.-]+", "", name).lower()
