"""A user's images as a CSV lists them: which column holds the paths, which the labels.

The delimiter and the columns are found by the header and the values, the column of parts by
`csv_split`.
"""

import csv
import io
import itertools
import os
import pathlib
import re
from collections.abc import Iterable, Sequence

from bit_jax.data import images
from bit_jax.data.sources import csv_split, csv_table, part_names, scan
from bit_jax.runtime import errors, paths, phrases

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
_ABSENT = frozenset({"NA", "N/A", "#N/A", "<NA>", "NaN", "nan", "NULL", "null"})  # missing values
_DELIMITERS = ",;\t|"
_SAMPLE = 100  # rows by which a delimiter is judged


def read(file: pathlib.Path) -> scan.Scan:
  """Returns what a CSV lists.

  Raises:
    UserError: It can't be read or understood.
  """
  rows = _rows(file)
  if not rows:
    raise errors.UserError(f"The CSV {file} is empty; it needs rows of path,label.")
  table, notes = _table(file, rows)
  split = csv_split.find(table)
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
    csv=file,
    lines={
      e.path: row.line
      for row, e in reversed(list(zip(table.rows, entries, strict=True)))
      if e.path in missing
    },
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


def _rows(file: pathlib.Path) -> list[csv_table.Row]:
  try:
    with file.open(encoding="utf-8-sig", newline="") as opened:
      text = opened.read()
    lines = 0
    delimiter = ""
    if named := re.match(r"sep=(.)\r?\n", text):  # Excel's
      text, lines, delimiter = text[named.end() :], 1, named[1]
    return list(_parsed(text, delimiter or _delimiter(file, text), lines))
  except UnicodeDecodeError:
    raise errors.UserError(f"The CSV {file} is not text in UTF-8: save it as UTF-8.") from None
  except csv.Error as e:
    raise errors.UserError(f"The CSV {file} can't be read: {e}.") from None
  except OSError as e:
    raise errors.UserError(f"The CSV {file} can't be read: {e.strerror}.") from None


def _parsed(text: str, delimiter: str, lines: int = 0) -> Iterable[csv_table.Row]:
  """Yields the rows that aren't blank, after so many lines that aren't in `text`."""
  reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True)
  for row in reader:
    cells = [cell.strip() for cell in row]
    if any(cells):
      yield csv_table.Row(lines + reader.line_num, cells)


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


def _table(file: pathlib.Path, rows: list[csv_table.Row]) -> tuple[csv_table.Table, list[str]]:
  """Finds the columns by the header; without one, the first two are path and label."""
  first = rows[0].cells
  if columns := _by_header(first):
    if not rows[1:]:
      raise errors.UserError(
        f"The CSV {file} has a header but no rows; it needs rows of path,label."
      )
    path, labels = columns
    _require_columns(file, first, rows[1:])
    if len(labels) > 1 and csv_table.plain(first[labels[0]]) not in LABEL_COLUMNS[0]:
      raise errors.UserError(
        f"The CSV {file} has several columns that may hold the labels "
        f"({', '.join(first[i] for i in labels)}): name the right one label."
      )
    table = csv_table.Table(file, first, rows[1:], path, labels[0])
    return table, _notes_on_columns(table, labels)
  if not _is_headerless(first):
    raise errors.UserError(
      f"The CSV {file} has no columns of paths and labels; its first row is {','.join(first)!r}. "
      f"Name one column path ({', '.join(PATH_COLUMNS[0][1:])} are fine too) and one label (or "
      f"class)."
    )
  width = max(len(row.cells) for row in rows)
  note = "The CSV has no header: the first column holds the paths, the second the labels."
  return csv_table.Table(file, [""] * width, rows, 0, 1), [note]


def _require_columns(file: pathlib.Path, header: list[str], rows: Sequence[csv_table.Row]) -> None:
  """Rejects values without a column, such as half of a label that holds the delimiter."""
  for row in rows:
    if any(row.cells[len(header) :]):
      raise errors.UserError(
        f"Line {row.line} of {file} has {len(row.cells)} values, but the header names "
        f"{len(header)} columns: quote values that hold the delimiter, or name all columns."
      )


def _notes_on_columns(table: csv_table.Table, labels: list[int]) -> list[str]:
  path, label = table.header[table.path], table.header[table.label]
  if len(labels) > 1:
    return [f"The column {label} holds the labels; {table.header[labels[1]]} is not used."]
  if (path, label) == ("path", "label"):  # as documented
    return []
  return [f"The column {path} holds the paths, {label} the labels."]


def _by_header(header: Sequence[str]) -> tuple[int, list[int]] | None:
  """Returns the column of paths and those of labels, the first of which counts, or None."""
  names = [csv_table.plain(cell) for cell in header]
  found: list[list[int]] = []
  for groups in (PATH_COLUMNS, LABEL_COLUMNS):
    columns = ([i for i, name in enumerate(names) if name in group] for group in groups)
    found.append(next(filter(None, columns), []))
  path, label = found
  return (path[0], label) if path and label else None


def _is_headerless(first: Sequence[str]) -> bool:
  return len(first) > 1 and os.path.splitext(first[0])[1].lower() in images.EXTENSIONS


def _parts_in_paths(table: csv_table.Table) -> tuple[str, ...]:
  """Warns of a split that only the paths show: train/cat/1.jpg, test/cat/2.jpg."""
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


def _absent_labels(table: csv_table.Table) -> tuple[str, ...]:
  """Warns of labels that R, pandas or a database writes where a value is missing."""
  found = _ABSENT.intersection(table.values(table.label))
  return tuple(
    f"The label {label} in {table.file.name} is read as a class, but other programs write it for a "
    f"missing value: remove these rows if they have no label."
    for label in sorted(found)
  )


def _required(table: csv_table.Table, row: csv_table.Row) -> str:
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
  files = phrases.counted(len(repeated), "file")
  return (f"The CSV {file} lists {files} more than once: {phrases.some(list(repeated))}.",)
