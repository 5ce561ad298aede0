"""The user's images as a CSV lists them: which columns hold the paths, the labels and the parts.

The delimiter and the columns are found by the header and the values. A column whose values name
parts is the split, whatever its name; one that only looks like a split is an error or a warning.
"""

import csv
import io
import itertools
import os
import pathlib
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from bit_jax.data import images
from bit_jax.data.sources import part_names, scan
from bit_jax.runtime import errors, paths, phrases

# Names of columns, by priority: of the first group that occurs in a header, the first column is
# used. Case, blanks, hyphens and underscores don't matter.
PATH_COLUMNS = (
  ("path", "file", "filename", "image"),
  ("filepath", "imagepath", "imgpath", "relativepath", "relpath", "imagefile", "imagefilename"),
  ("paths", "filepaths", "imagepaths"),
  ("imagename", "imgname", "imgfile", "img", "fname", "photo", "files", "filenames", "images"),
  ("imageid", "imgid", "id"),
)
LABEL_COLUMNS = (
  ("label", "class"),
  (
    *("labels", "classname", "classlabel", "labelname", "category", "categoryname", "target"),
    *("species", "breed", "diagnosis", "groundtruth"),
  ),
  ("classid", "labelid", "categoryid", "targetid", "classidx", "labelidx", "classindex"),
)
_SPLIT_NAMES = frozenset({"part", "mode", "dataset", "purpose", "stage"})
_SPLIT_WORDS = frozenset(
  {"split", "splits", "set", "subset", "partition", "fold", "folds", "kfold", "phase", "usage"}
  | {"setid", "traintest", "trainvaltest"}
)
_TRUE, _FALSE = {"1", "true", "yes", "t", "y", "1.0"}, {"0", "false", "no", "f", "n", "0.0"}
_ABSENT = frozenset({"NA", "N/A", "#N/A", "<NA>", "NaN", "nan", "NULL", "null"})  # missing values
_DELIMITERS = ",;\t|"
_SAMPLE = 100  # rows by which a delimiter is judged
_MOST_COLUMNS = 10_000  # each is looked at
_SHOWN = 200  # characters of a row in a message


class _Row(NamedTuple):
  """A row that isn't blank: its line in the file, and its cells without blanks around them."""

  line: int
  cells: list[str]

  def cell(self, column: int) -> str:
    """Returns a cell; '' where the row is too short."""
    return self.cells[column] if column < len(self.cells) else ""


class _Table(NamedTuple):
  """A CSV and its columns of paths and labels; `header` is all '' for a CSV without one."""

  file: pathlib.Path
  header: list[str]
  rows: list[_Row]
  path: int
  label: int


def read(file: pathlib.Path) -> scan.Scan:
  """Returns what a CSV lists.

  Raises:
    UserError: It can't be read or understood.
  """
  found = scan.Scan(root=file.parent, csv=file)
  table = _table(found, _rows(file))
  parts = _split(found, table)
  listed = [_path_and_label(table, row) for row in table.rows]
  entries = [scan.Entry(*pair, part) for pair, part in zip(listed, parts, strict=True)]
  if "" in parts and any(parts):
    raise errors.UserError(
      f"Line {table.rows[parts.index('')].line} of {file} has no split, but other lines do: add "
      f"train, val or test, or remove the column."
    )
  if not any(parts):
    found.warnings += _parts_in_paths(table)
  found.warnings += _absent_labels(table)
  lines: dict[str, int] = {}
  for entry, row in zip(entries, table.rows, strict=True):
    lines.setdefault(entry.path, row.line)
  found.missing = {path: n for path, n in lines.items() if not os.path.isfile(file.parent / path)}
  if repeated := [path for path, n in Counter(e.path for e in entries).items() if n > 1]:
    files = phrases.counted(len(repeated), "file")
    found.faults.append(f"The CSV {file} lists {files} more than once: {phrases.some(repeated)}.")
  ordered = [entries[i] for i in scan.by_digest(e.path for e in entries)]
  found.entries = [e for e in ordered if e.path not in found.missing]
  return found


def _rows(file: pathlib.Path) -> list[_Row]:
  try:
    text = file.read_bytes().decode("utf-8-sig")
    if named := re.match(r"sep=(.)(?=\r?\n)", text):  # Excel's
      text = text[named.end() :]  # the rest is a blank line, so that later ones keep their number
    rows = list(_parsed(text, named[1] if named else _delimiter(file, text)))
  except UnicodeDecodeError:
    raise errors.UserError(f"The CSV {file} is not UTF-8 text: save it as UTF-8.") from None
  except (csv.Error, OSError) as e:
    raise errors.UserError(f"The CSV {file} can't be read: {getattr(e, 'strerror', e)}.") from None
  if not rows:
    raise errors.UserError(f"The CSV {file} is empty; it needs rows of path,label.")
  return rows


def _parsed(text: str, delimiter: str) -> Iterator[_Row]:
  """Yields the rows that aren't blank."""
  reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True)
  for row in reader:
    if len(row) > _MOST_COLUMNS:
      raise csv.Error(f"line {reader.line_num} has {len(row):,} columns, over {_MOST_COLUMNS:,}")
    cells = [cell.strip() for cell in row]
    if any(cells):
      yield _Row(reader.line_num, cells)


def _delimiter(file: pathlib.Path, text: str) -> str:
  """Returns the delimiter that gives known columns and, second, rows of one length."""
  first = next((line for line in text.splitlines() if line.strip()), "")
  if file.suffix.lower() == ".tsv" and "\t" in first:
    return "\t"

  def fits(delimiter: str) -> tuple[bool, bool]:
    sample = list(itertools.islice(_parsed(text, delimiter), _SAMPLE))
    if not sample:  # all cells are empty
      return False, False
    found = _by_header(sample[0].cells) is not None or _is_headerless(sample[0].cells)
    return found, found and len({len(row.cells) for row in sample}) == 1

  return max([d for d in _DELIMITERS if d in first] or [","], key=fits)


def _table(found: scan.Scan, rows: list[_Row]) -> _Table:
  """Finds the columns by the header; without one, the first two are path and label."""
  file, first = found.source, rows[0].cells
  if columns := _by_header(first):
    path, (label, *others) = columns
    table = _Table(file, first, rows[1:], path, label)
    _require_columns(table)
    if not others and (first[path], first[label]) != ("path", "label"):
      found.notes.append(f"Columns: {first[path]} (paths), {first[label]} (labels).")
    if others and _plain(first[label]) not in LABEL_COLUMNS[0]:
      raise errors.UserError(
        f"Several columns of the CSV {file} may hold the labels "
        f"({', '.join(first[i] for i in (label, *others))}): rename the right one to label."
      )
    if others:
      found.notes.append(f"Label column: {first[label]}; {first[others[0]]} is not used.")
    return table
  if not _is_headerless(first):
    row = ",".join(first)
    row = row if len(row) <= _SHOWN else f"{row[:_SHOWN]}…"
    raise errors.UserError(
      f"The CSV {file} has no columns of paths and labels; its first row is {row!r}. "
      f"Name one column path (or {', '.join(PATH_COLUMNS[0][1:])}) and one label (or class)."
    )
  found.notes.append(
    "The CSV has no header: the first column is read as paths, the second as labels."
  )
  return _Table(file, [""] * max(len(row.cells) for row in rows), rows, 0, 1)


def _require_columns(table: _Table) -> None:
  """Rejects values without a column, such as half of a label that contains the delimiter."""
  if not table.rows:
    raise errors.UserError(
      f"The CSV {table.file} has a header but no rows; it needs rows of path,label."
    )
  for row in table.rows:
    if any(row.cells[len(table.header) :]):
      raise errors.UserError(
        f"Line {row.line} of {table.file} has {len(row.cells)} values, but the header has "
        f"{len(table.header)} columns: quote values that contain the delimiter, or name all "
        f"columns."
      )


def _by_header(header: Sequence[str]) -> tuple[int, list[int]] | None:
  """Returns the column of paths and the columns of labels, or None."""
  names = [_plain(cell) for cell in header]

  def of_first_group(groups: tuple[tuple[str, ...], ...]) -> list[int]:
    found = ([i for i, name in enumerate(names) if name in group] for group in groups)
    return next(filter(None, found), [])

  path, label = of_first_group(PATH_COLUMNS), of_first_group(LABEL_COLUMNS)
  return (path[0], label) if path and label else None


def _is_headerless(first: Sequence[str]) -> bool:
  return len(first) > 1 and os.path.splitext(first[0])[1].lower() in images.EXTENSIONS


def _plain(name: str) -> str:
  """Returns a name in lower case, without blanks, hyphens, full stops and underscores."""
  return re.sub(r"[\s_.-]+", "", name).lower()


class _Column:
  """A column that may be the split.

  Attributes:
    name: Its name in messages.
    cells: One of each row.
    values: The different cells that aren't blank, sorted.
    parts: The parts that its cells name.
    others: Whether a cell names something else.
    called_split: Whether its name is split.
    suspected: Whether its name is that of a split.
    is_split: Whether its cells name parts and nothing else.
    flag: The part that a column of true and false marks, such as is_train; None for others.
  """

  def __init__(self, table: _Table, number: int):
    """Takes a column, counted from 0."""
    header = table.header[number]
    self.name = header or f"{number + 1}"
    self.cells = [row.cell(number) for row in table.rows]
    self.values = sorted(set(self.cells) - {""})
    meanings = set(map(part_names.plain, self.values))
    self.parts, self.others = meanings - {None}, None in meanings
    self.called_split = _plain(header) == "split"
    if not any(table.header) and number == 2:  # path, label and split without a header
      self.called_split = part_names.plain(self.cells[0]) is not None
    marked = part_names.plain(re.sub(r"^(is|in|for)[\s_.-]*", "", header, flags=re.IGNORECASE))
    self.suspected = self.called_split or marked is not None or _sounds_like_split(header)
    complete = self.suspected or "" not in self.cells
    self.is_split = bool(self.parts) and not self.others and complete
    is_flag = {cell.lower() for cell in self.cells} <= _TRUE | _FALSE
    # A column called valid rather says that a row can be used.
    self.flag = marked if is_flag and _plain(header) != "valid" else None

  def settled(self) -> list[str]:
    """Returns the part of each row."""
    meant = part_names.settled(self.values)
    return [meant.get(cell, "") for cell in self.cells]


def _sounds_like_split(header: str) -> bool:
  words = re.findall(r"[^\W\d_]+", header.lower())
  return (
    not _SPLIT_WORDS.isdisjoint(words)
    or _plain(header) in _SPLIT_NAMES
    or (len(words) > 1 and all(w in part_names.PARTS or w in ("or", "and", "is") for w in words))
  )


def _split(found: scan.Scan, table: _Table) -> list[str]:
  """Returns the part of each row, '' without a split.

  Raises:
    UserError: A column named split contains something else, or columns contradict each other.
  """
  numbers = [i for i in range(len(table.header)) if i not in (table.path, table.label)]
  columns = [_Column(table, i) for i in numbers]
  for column in columns:
    if column.called_split:
      _require_parts(table, column)
  if splits := [c for c in columns if c.is_split]:
    return _by_parts(found, table, splits)
  flags = [c for c in columns if c.flag]
  if len(flags) > 1:
    raise errors.UserError(
      f"The columns {', '.join(c.name for c in flags)} of {table.file} each mark one part: write "
      f"train, val or test into one column named split."
    )
  if flags:
    (column,) = flags
    yes, no = column.flag or "", "test" if column.flag == "train" else "train"
    found.warnings.append(
      f"The column {column.name} of {table.file.name} is used as the split: true means {yes}, "
      f"false means {no}."
    )
    return [yes if cell.lower() in _TRUE else no for cell in column.cells]
  for column in columns:
    if column.suspected and column.parts:
      _require_parts(table, column)
    if (column.suspected and column.others) or {"train"} < column.parts:
      found.warnings.append(
        f"The column {column.name} of {table.file.name} may be a split but is not used: not all "
        f"its values are names of parts ({phrases.some(column.values)}). If it is the split, write "
        f"train, val and test there."
      )
  return [""] * len(table.rows)


def _require_parts(table: _Table, column: _Column) -> None:
  for row, value in zip(table.rows, column.cells, strict=True):
    if value and not part_names.plain(value):
      raise errors.UserError(
        f"Line {row.line} of {table.file} has the unknown split {value!r} (column {column.name}): "
        f"use one of {', '.join(part_names.PARTS)}."
      )


def _by_parts(found: scan.Scan, table: _Table, splits: Sequence[_Column]) -> list[str]:
  """Uses the column named split, or else one whose name suggests it, or else the only one."""
  called, suspected = [c for c in splits if c.called_split], [c for c in splits if c.suspected]
  preferred = called or suspected or splits
  used = preferred[0]
  parts = used.settled()
  others = [c for c in splits if c.settled() != parts]
  if any(c in preferred for c in others):
    raise errors.UserError(
      f"The columns {', '.join(c.name for c in preferred)} of {table.file} contain different "
      f"splits: rename the right one to split."
    )
  found.warnings += [
    f"The column {c.name} of {table.file.name} contains another split than {used.name}, which is "
    f"used."
    for c in others
  ]
  if not used.called_split:
    found.notes.append(f"Split column: {used.name}.")
  return parts


def _parts_in_paths(table: _Table) -> list[str]:
  """Warns of a split that only the paths show: train/cat/1.jpg, test/cat/2.jpg."""
  folders = [re.split(r"[/\\]", row.cell(table.path))[:-1] for row in table.rows]
  named = {next(filter(None, map(part_names.plain, above)), "") for above in folders}
  if "" in named or not {"train"} < named:
    return []
  return [
    f"The paths in {table.file.name} are in folders of parts ({', '.join(sorted(named))}), but no "
    f"column gives the split, so these parts are mixed. Add a column split to keep them apart."
  ]


def _absent_labels(table: _Table) -> list[str]:
  """Warns of labels that R, pandas or a database writes where a value is missing."""
  found = _ABSENT.intersection(row.cell(table.label) for row in table.rows)
  return [
    f"The label {label} in {table.file.name} is read as a class, but other programs write it for a "
    f"missing value: remove these rows if they have no label."
    for label in sorted(found)
  ]


def _path_and_label(table: _Table, row: _Row) -> tuple[str, str]:
  """Returns the path, as `_relative` does, and the label of a row."""
  path, label, fault = row.cell(table.path), row.cell(table.label), None
  if not path or not label:
    fault = f"no {'label' if path else 'path'}"
  elif "\0" in path:
    fault = "a path with a null character, which no file has: save the CSV as UTF-8"
  if fault:
    raise errors.UserError(f"Line {row.line} of {table.file} has {fault}.")
  if "://" in path and paths.is_url(path):
    try:
      path = paths.expanded(path)
    except errors.UserError as e:
      raise errors.UserError(f"Line {row.line} of {table.file}: {e}") from None
  return _relative(str(table.file.parent), path), label


def _relative(root: str, path: str) -> str:
  """Returns a path relative to the root if it is below it, otherwise absolute; posix.

  A name without extension gets the extension of the existing file. Backslashes (Windows) separate
  folders unless such a file exists.
  """
  full = os.path.abspath(os.path.join(root, os.path.expanduser(path)))
  if "\\" in path and not os.path.isfile(full):
    full = os.path.abspath(os.path.join(root, os.path.expanduser(path.replace("\\", "/"))))
  if os.path.splitext(full)[1].lower() not in images.EXTENSIONS and not os.path.isfile(full):
    existing = [full + e for e in sorted(images.EXTENSIONS) if os.path.isfile(full + e)]
    full = existing[0] if len(existing) == 1 else full
  return full.removeprefix(root.rstrip("/") + "/")
