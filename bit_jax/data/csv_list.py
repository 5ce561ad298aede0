"""A user's images as a CSV lists them: which column holds the paths, which the labels and parts.

The delimiter and the columns are found by the header and the values. A column that gives the parts
is used whatever its name; one that only looks as if it did is a mistake or a warning.
"""

import csv
import io
import itertools
import os
import pathlib
import re
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from bit_jax import errors, paths
from bit_jax.data import images, part_names, scan

# Names of columns, in the order in which they are looked for: of the first group that occurs in a
# header, its first column counts. Case, blanks, hyphens and underscores don't matter.
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
    "labels",
    "classname",
    "classlabel",
    "labelname",
    "category",
    "categoryname",
    "target",
    "species",
    "breed",
    "diagnosis",
    "groundtruth",
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


class _Row(NamedTuple):
  """A row that isn't blank: its line in the file, and its cells without blanks around them."""

  line: int
  cells: list[str]

  def cell(self, column: int) -> str:
    """Returns a cell; '' where the row is too short."""
    return self.cells[column] if column < len(self.cells) else ""


class _Split(NamedTuple):
  """Where the parts come from: the function of a row, and what to say of it."""

  part: Callable[[_Row], str]
  notes: tuple[str, ...] = ()
  warnings: tuple[str, ...] = ()


class _Table(NamedTuple):
  """A CSV with its columns found; `header` has '' for each column of a CSV without one."""

  file: pathlib.Path
  header: list[str]
  rows: list[_Row]
  path: int
  label: int

  def named(self, column: int) -> str:
    """Returns how messages call a column."""
    return self.header[column] or f"{column + 1}"

  def values(self, column: int) -> list[str]:
    """Returns the different values of a column that aren't blank, sorted."""
    return sorted({row.cell(column) for row in self.rows} - {""})


def read(file: pathlib.Path) -> scan.Scan:
  """Returns what a CSV lists.

  Raises:
    UserError: It can't be read or understood.
  """
  rows = _rows(file)
  if not rows:
    raise errors.UserError(f"The CSV {file} is empty; it needs rows of path,label.")
  table, notes = _table(file, rows)
  split = _split(table)
  entries = [
    scan.Entry(
      _relative(file.parent, _required(table, row)), row.cell(table.label), split.part(row)
    )
    for row in table.rows
  ]
  parts = {e.part for e in entries}
  if "" in parts and len(parts) > 1:
    line = next(r.line for r, e in zip(table.rows, entries, strict=True) if not e.part)
    raise errors.UserError(
      f"Line {line} of {file} names no split although others do: fill in train, val or test, or "
      f"leave the column out."
    )
  unique = dict.fromkeys(e.path for e in entries)
  missing = {p for p in unique if not os.path.isfile(file.parent / p)}
  ordered = [entries[i] for i in scan.by_digest(e.path for e in entries)]
  return scan.Scan(
    root=file.parent,
    entries=tuple(e for e in ordered if e.path not in missing),
    missing=tuple(p for p in unique if p in missing),
    faults=_repeated(file, [e.path for e in entries]),
    notes=(*notes, *split.notes),
    warnings=(
      *split.warnings,
      *(_parts_in_paths(table) if parts == {""} else ()),
      *_absent_labels(table),
    ),
  )


def _rows(file: pathlib.Path) -> list[_Row]:
  try:
    with file.open(encoding="utf-8-sig", newline="") as opened:
      text = opened.read()
    lines = 0
    delimiter = ""
    if told := re.match(r"sep=(.)\r?\n", text):  # Excel's
      text, lines, delimiter = text[told.end() :], 1, told[1]
    return list(_parsed(text, delimiter or _delimiter(file, text), lines))
  except UnicodeDecodeError:
    raise errors.UserError(f"The CSV {file} is not text in UTF-8: save it as UTF-8.") from None
  except csv.Error as e:
    raise errors.UserError(f"The CSV {file} can't be read: {e}.") from None
  except OSError as e:
    raise errors.UserError(f"The CSV {file} can't be read: {e.strerror}.") from None


def _parsed(text: str, delimiter: str, lines: int = 0) -> Iterable[_Row]:
  """Yields the rows that aren't blank, after so many lines that aren't in `text`."""
  reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True)
  for row in reader:
    cells = [cell.strip() for cell in row]
    if any(cells):
      yield _Row(lines + reader.line_num, cells)


def _delimiter(file: pathlib.Path, text: str) -> str:
  """Returns the delimiter by which columns are found and, then, rows are of one length."""
  first = next((line for line in text.splitlines() if line.strip()), "")
  if file.suffix.lower() == ".tsv" and "\t" in first:
    return "\t"

  def fits(delimiter: str) -> tuple[bool, bool]:
    sample = list(itertools.islice(_parsed(text, delimiter), _SAMPLE))
    if not sample:  # its cells are all empty
      return False, False
    found = _by_header(sample[0].cells) is not None or _is_headerless(sample[0].cells)
    return found, found and len({len(row.cells) for row in sample}) == 1

  present = [d for d in _DELIMITERS if d in first] or [","]
  return max(present, key=fits) if first else ","


def _table(file: pathlib.Path, rows: list[_Row]) -> tuple[_Table, list[str]]:
  """Finds the columns by the header; without one, the first two are path and label."""
  first = rows[0].cells
  if columns := _by_header(first):
    if not rows[1:]:
      raise errors.UserError(
        f"The CSV {file} has a header but no rows; it needs rows of path,label."
      )
    path, labels = columns
    _require_columns(file, first, rows[1:])
    if len(labels) > 1 and _plain(first[labels[0]]) not in LABEL_COLUMNS[0]:
      raise errors.UserError(
        f"The CSV {file} has several columns that may hold the labels "
        f"({', '.join(first[i] for i in labels)}): name the right one label."
      )
    table = _Table(file, first, rows[1:], path, labels[0])
    return table, _notes_on_columns(table, labels)
  if not _is_headerless(first):
    raise errors.UserError(
      f"The CSV {file} has no columns of paths and labels; its first row is {','.join(first)!r}. "
      f"Name one column path ({', '.join(PATH_COLUMNS[0][1:])} are fine too) and one label (or "
      f"class)."
    )
  width = max(len(row.cells) for row in rows)
  return _Table(file, [""] * width, rows, 0, 1), []


def _require_columns(file: pathlib.Path, header: list[str], rows: Sequence[_Row]) -> None:
  """Rejects values without a column, such as half of a label that holds the delimiter."""
  for row in rows:
    if any(row.cells[len(header) :]):
      raise errors.UserError(
        f"Line {row.line} of {file} has {len(row.cells)} values, but the header names "
        f"{len(header)} columns: quote values that hold the delimiter, or name all columns."
      )


def _notes_on_columns(table: _Table, labels: list[int]) -> list[str]:
  path, label = table.header[table.path], table.header[table.label]
  if len(labels) > 1:
    return [f"The column {label} holds the labels; {table.header[labels[1]]} is not used."]
  if _plain(path) in PATH_COLUMNS[0] and _plain(label) in LABEL_COLUMNS[0]:
    return []
  return [f"The column {path} holds the paths, {label} the labels."]


def _by_header(header: Sequence[str]) -> tuple[int, list[int]] | None:
  """Returns the column of paths and those of labels, the first of which counts, or None."""
  names = [_plain(cell) for cell in header]
  found: list[list[int]] = []
  for groups in (PATH_COLUMNS, LABEL_COLUMNS):
    columns = ([i for i, name in enumerate(names) if name in group] for group in groups)
    found.append(next(filter(None, columns), []))
  path, label = found
  return (path[0], label) if path and label else None


def _is_headerless(first: Sequence[str]) -> bool:
  return len(first) > 1 and os.path.splitext(first[0])[1].lower() in images.EXTENSIONS


def _plain(name: str) -> str:
  return re.sub(r"[\s_.-]+", "", name).lower()


class _Column(NamedTuple):
  """What a column has to do with parts.

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


def _split(table: _Table) -> _Split:
  """Finds what gives the parts."""
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
        f"its values name parts ({scan.some(table.values(column.number))}): it is not used. If it "
        f"is the split, write train, val and test there."
      )
  return _Split(lambda row: "", (), tuple(warnings))


def _column(table: _Table, number: int) -> _Column:
  values = table.values(number)
  parts = frozenset(filter(None, map(part_names.plain, values)))
  split = _plain(table.header[number]) == "split"
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
    or _plain(name) in _SPLIT_NAMES
    or _flagged(name) is not None
    or (len(words) > 1 and all(w in part_names.PARTS or w in ("or", "and", "is") for w in words))
  )


def _require_parts(table: _Table, column: int) -> None:
  for row in table.rows:
    value = row.cell(column)
    if value and not part_names.plain(value):
      named = "" if _plain(table.header[column]) in ("split", "") else f" ({table.named(column)})"
      raise errors.UserError(
        f"Line {row.line} of {table.file} names the split {value!r}{named}; it is one of "
        f"{', '.join(part_names.PARTS)}."
      )


def _of_columns(table: _Table, splits: list[_Column]) -> _Split:
  """Takes the column that is called split, or else one that sounds so, or else the only one."""
  preferred = (
    [c for c in splits if c.split and c.parts] or [c for c in splits if c.suspected] or splits
  )
  number = preferred[0].number
  meant = part_names.settled(table.values(number))

  def part(row: _Row) -> str:
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
  return _Split(part, notes, tuple(warnings))


def _flagged(name: str) -> str | None:
  """Returns the part that a column such as is_train, is_valid or IsTestImage asks for, or None."""
  return part_names.plain(re.sub(r"^(is|in|for)[\s_.-]*", "", name, flags=re.IGNORECASE))


def _is_flag(table: _Table, column: int) -> bool:
  name = table.header[column]
  if _flagged(name) is None or _plain(name) == "valid":  # rather says that a row can be used
    return False
  return all(row.cell(column).lower() in _TRUE | _FALSE for row in table.rows)


def _of_flag(table: _Table, column: int) -> _Split:
  yes = _flagged(table.header[column]) or ""
  no = "test" if yes == "train" else "train"
  return _Split(
    lambda row: yes if row.cell(column).lower() in _TRUE else no,
    warnings=(
      f"The column {table.named(column)} of {table.file.name} is read as the split: where it is "
      f"true, a row is {yes}, elsewhere {no}.",
    ),
  )


def _parts_in_paths(table: _Table) -> tuple[str, ...]:
  """Warns of a split that only the paths tell of: train/cat/1.jpg, test/cat/2.jpg."""
  named = set()
  for row in table.rows:
    folders = re.split(r"[/\\]", row.cell(table.path))[:-1]
    named.add(next(filter(None, map(part_names.plain, folders)), None))
  if None in named or not {"train"} < named:
    return ()
  return (
    f"The paths in {table.file.name} lie in folders of parts ({', '.join(sorted(map(str, named)))})"
    f", but no column gives the split, so these folders are mixed: add a column split to keep them "
    f"apart.",
  )


def _absent_labels(table: _Table) -> tuple[str, ...]:
  """Warns of labels that R, pandas or a database writes where a value is missing."""
  found = _ABSENT.intersection(table.values(table.label))
  return tuple(
    f"The label {label} in {table.file.name} is read as a class, but other programs write it for a "
    f"missing value: remove these rows if they have no label."
    for label in sorted(found)
  )


def _required(table: _Table, row: _Row) -> str:
  """Returns the path in a row that has both a path and a label."""
  path, label = row.cell(table.path), row.cell(table.label)
  if not path or not label:
    raise errors.UserError(f"Line {row.line} of {table.file} has no {'label' if path else 'path'}.")
  if re.match(r"[a-z][a-z\d+.-]+://", path, re.IGNORECASE):
    raise errors.UserError(
      f"Line {row.line} of {table.file} names a URL, {path}: download the images, and write the "
      f"paths of their files."
    )
  return path


def _relative(root: pathlib.Path, path: str) -> str:
  """Returns a path relative to the root where it lies below it, otherwise absolute; posix.

  A name without extension gets that of the file that is there; backslashes of Windows separate
  folders unless a file is called so.
  """
  full = os.path.abspath(root / paths.expanded(path))
  if "\\" in path and not os.path.isfile(full):
    full = os.path.abspath(root / paths.expanded(path.replace("\\", "/")))
  if os.path.splitext(full)[1].lower() not in images.EXTENSIONS and not os.path.isfile(full):
    there = [full + e for e in sorted(images.EXTENSIONS) if os.path.isfile(full + e)]
    full = there[0] if len(there) == 1 else full
  below = pathlib.Path(full).is_relative_to(root)
  return (pathlib.Path(full).relative_to(root) if below else pathlib.Path(full)).as_posix()


def _repeated(file: pathlib.Path, listed: list[str]) -> tuple[str, ...]:
  seen: set[str] = set()
  repeated = dict.fromkeys(p for p in listed if p in seen or seen.add(p))  # type: ignore[func-returns-value]
  if not repeated:
    return ()
  files = scan.counted(len(repeated), "file")
  return (f"The CSV {file} lists {files} more than once: {scan.some(list(repeated))}.",)
