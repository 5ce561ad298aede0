"""Counts lines of code, room by room: without docstrings, comments and blank lines.

python tests/code_lines.py                 # bit_jax, configs, experiments and tests
python tests/code_lines.py --markdown      # the page docs/development/code_lines.md
python tests/code_lines.py bit_jax/data    # of these folders, file by file
"""

import ast
import pathlib
import sys
import tokenize

ROOT = pathlib.Path(__file__).parent.parent
FOLDERS = ("bit_jax", "configs", "experiments", "tests")
_NOT_CODE = frozenset(
  (
    *(tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT),
    *(tokenize.ENCODING, tokenize.ENDMARKER),
  )
)


def count(path):
  """Returns the lines of a Python file that hold code."""
  docstrings = set()
  for node in ast.walk(ast.parse(path.read_bytes())):
    if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
      first = node.body[0] if node.body else None
      if isinstance(first, ast.Expr) and ast.get_docstring(node, clean=False) is not None:
        docstrings.update(range(first.lineno, first.end_lineno + 1))
  lines = set()
  with path.open("rb") as file:
    for token in tokenize.tokenize(file.readline):
      if token.type not in _NOT_CODE:
        lines.update(range(token.start[0], token.end[0] + 1))
  return len(lines - docstrings)


def python_files(folder):
  """Returns the Python files below a folder, without those of a link (`bit_jax/configs`)."""
  found = sorted(pathlib.Path(folder).rglob("*.py"))
  return [path for path in found if path.resolve().is_relative_to(pathlib.Path(folder).resolve())]


def by_room():
  """Returns {(folder, room): (lines, modules)}; modules beside the rooms count as a room."""
  counts = {}
  for folder in FOLDERS:
    for path in python_files(ROOT / folder):
      inside = path.relative_to(ROOT / folder).parts
      room = inside[0] if len(inside) > 1 else "(beside the rooms)"
      lines, modules = counts.get((folder, room), (0, 0))
      counts[folder, room] = (lines + count(path), modules + 1)
  return counts


def table():
  """Returns the lines of a table in Markdown, with a total for each folder."""
  counts = by_room()
  rows = ["| folder | room | modules | lines of code |", "|---|---|---:|---:|"]
  for folder in FOLDERS:
    rooms = {room: numbers for (f, room), numbers in counts.items() if f == folder}
    if len(rooms) > 1:
      rows += [f"| {folder} | {room} | {m} | {lines:,} |" for room, (lines, m) in rooms.items()]
    lines, modules = (sum(numbers) for numbers in zip(*rooms.values(), strict=True))
    rows.append(f"| **{folder}** | | **{modules}** | **{lines:,}** |")
  return rows


def main(arguments):
  """Prints the table, or the counts of single files."""
  if arguments and arguments != ["--markdown"]:
    for folder in arguments:
      counts = {path: count(path) for path in python_files(folder)}
      print(*(f"{lines:6,} {path}" for path, lines in counts.items()), sep="\n")
      print(f"{sum(counts.values()):6,} in all of {folder}")
    return
  if arguments:
    print("# Lines of code\n\nBy `make lines`: without docstrings, comments and blank lines.\n")
  print(*table(), sep="\n")


if __name__ == "__main__":
  main(sys.argv[1:])
