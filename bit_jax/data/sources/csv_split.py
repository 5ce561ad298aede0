"""Which column of a user's CSV gives the part of each row: train, val or test.

A column that names the parts is used whatever its name; one that only looks as if it did is a
mistake or a warning.
"""

import re
from collections.abc import Callable
from typing import NamedTuple

from bit_jax.data.sources import csv_table, part_names
from bit_jax.runtime import errors, phrases

_SPLIT_NAMES = frozenset({"part", "mode", "dataset", "purpose", "stage"})
_SPLIT_WORDS = frozenset(
  {"split", "splits", "set", "subset", "partition", "fold", "folds", "kfold", "phase", "usage"}
  | {"setid", "traintest", "trainvaltest"}
)
_TRUE, _FALSE = {"1", "true", "yes", "t", "y", "1.0"}, {"0", "false", "no", "f", "n", "0.0"}


class Split(NamedTuple):
  """Where the parts come from: the function of a row, with notes and warnings."""

  part: Callable[[csv_table.Row], str]
  notes: tuple[str, ...] = ()
  warnings: tuple[str, ...] = ()


class _Column(NamedTuple):
  """Whether and how a column gives the parts.

  Attributes:
    number: Which column it is, from 0.
    parts: The parts that its cells name.
    others: Whether a cell names something else.
    blanks: Whether a cell is blank.
    suspected: Whether its name is one of a split.
    split: Whether it is called split.
  """

  number: int
  parts: frozenset[str]
  others: bool
  blanks: bool
  suspected: bool
  split: bool

  @property
  def is_split(self) -> bool:
    """Whether its cells name parts and nothing else."""
    return bool(self.parts) and not self.others and (self.suspected or not self.blanks)


def find(table: csv_table.Table) -> Split:
  """Finds what gives the parts; without such a column, each row's part is ''.

  Raises:
    UserError: A column that is called split names something else, or columns contradict each other.
  """
  columns = [
    _column(table, i) for i in range(len(table.header)) if i not in (table.path, table.label)
  ]
  for column in columns:
    if column.split:
      _require_parts(table, column.number)
  if splits := [c for c in columns if c.is_split]:
    return _of_columns(table, splits)
  flags = [c.number for c in columns if _is_flag(table, c.number)]
  if len(flags) == 1:
    return _of_flag(table, flags[0])
  if flags:
    raise errors.UserError(
      f"The columns {', '.join(map(table.named, flags))} of {table.file} each hold one part: put "
      f"train, val or test into one column split."
    )
  warnings = []
  for column in columns:
    if column.suspected and column.parts:
      _require_parts(table, column.number)
    if (column.suspected and column.others) or {"train"} < column.parts:
      warnings.append(
        f"The column {table.named(column.number)} of {table.file.name} may be a split, but not all "
        f"its values name parts ({phrases.some(table.values(column.number))}): it is not used. If "
        f"it is the split, write train, val and test there."
      )
  return Split(lambda row: "", (), tuple(warnings))


def _column(table: csv_table.Table, number: int) -> _Column:
  values = table.values(number)
  parts = frozenset(filter(None, map(part_names.plain, values)))
  split = csv_table.plain(table.header[number]) == "split"
  if not any(table.header) and number == 2:  # path, label and split without a header
    split = part_names.plain(table.rows[0].cell(number)) is not None
  return _Column(
    number=number,
    parts=parts,
    others=not all(map(part_names.plain, values)),
    blanks=not all(row.cell(number) for row in table.rows),
    suspected=split or _sounds_like_split(table.header[number]),
    split=split,
  )


def _sounds_like_split(name: str) -> bool:
  words = re.findall(r"[^\W\d_]+", name.lower())
  return (
    not _SPLIT_WORDS.isdisjoint(words)
    or csv_table.plain(name) in _SPLIT_NAMES
    or _flagged(name) is not None
    or (len(words) > 1 and all(w in part_names.PARTS or w in ("or", "and", "is") for w in words))
  )


def _require_parts(table: csv_table.Table, column: int) -> None:
  for row in table.rows:
    value = row.cell(column)
    if value and not part_names.plain(value):
      named = (
        ""
        if csv_table.plain(table.header[column]) in ("split", "")
        else f" ({table.named(column)})"
      )
      raise errors.UserError(
        f"Line {row.line} of {table.file} names the split {value!r}{named}; it is one of "
        f"{', '.join(part_names.PARTS)}."
      )


def _of_columns(table: csv_table.Table, splits: list[_Column]) -> Split:
  """Takes the column that is called split, or else one that sounds so, or else the only one."""
  preferred = (
    [c for c in splits if c.split and c.parts] or [c for c in splits if c.suspected] or splits
  )
  number = preferred[0].number
  meant = part_names.settled(table.values(number))

  def part(row: csv_table.Row) -> str:
    return meant.get(row.cell(number), "")

  others = []
  for column in splits:
    other = part_names.settled(table.values(column.number))
    if any(other.get(row.cell(column.number), "") != part(row) for row in table.rows):
      others.append(column)
  if any(c in preferred for c in others):
    raise errors.UserError(
      f"The columns {', '.join(table.named(c.number) for c in preferred)} of {table.file} all name "
      f"parts, but not the same: name the right one split."
    )
  warnings = [
    f"The column {table.named(c.number)} of {table.file.name} names other parts than "
    f"{table.named(number)}, which is used."
    for c in others
  ]
  notes = () if preferred[0].split else (f"The column {table.named(number)} gives the parts.",)
  return Split(part, notes, tuple(warnings))


def _flagged(name: str) -> str | None:
  """Returns the part that a column such as is_train, is_valid or IsTestImage asks for, or None."""
  return part_names.plain(re.sub(r"^(is|in|for)[\s_.-]*", "", name, flags=re.IGNORECASE))


def _is_flag(table: csv_table.Table, column: int) -> bool:
  name = table.header[column]
  if (
    _flagged(name) is None or csv_table.plain(name) == "valid"
  ):  # rather says that a row can be used
    return False
  return all(row.cell(column).lower() in _TRUE | _FALSE for row in table.rows)


def _of_flag(table: csv_table.Table, column: int) -> Split:
  yes = _flagged(table.header[column]) or ""
  no = "test" if yes == "train" else "train"
  return Split(
    lambda row: yes if row.cell(column).lower() in _TRUE else no,
    warnings=(
      f"The column {table.named(column)} of {table.file.name} is read as the split: where it is "
      f"true, a row is {yes}, elsewhere {no}.",
    ),
  )
