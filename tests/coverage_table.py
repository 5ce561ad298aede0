"""Prints the coverage that `make coverage` measured, room by room: statements and branches.

python tests/coverage_table.py                     # of .coverage, in the current folder
python tests/coverage_table.py FILE --markdown     # the page docs/development/coverage.md
"""

import json
import pathlib
import sys
import tempfile

import coverage

ROOT = pathlib.Path(__file__).parent.parent
_KINDS = ("num_statements", "covered_lines", "num_branches", "covered_branches")


def room_of(path):
  """Returns the room of a file; packages of experiments are one, single modules another."""
  *folders, _ = pathlib.PurePath(path).parts
  return "/".join(folders[:2])


def by_room(files):
  """Sums what coverage says of files, {path: summary}, to {room: {kind: number}}."""
  rooms = {}
  for path, summary in files.items():
    room = rooms.setdefault(room_of(path), dict.fromkeys(_KINDS, 0))
    for kind in _KINDS:
      room[kind] += summary[kind]
  return dict(sorted(rooms.items()))


def table(files):
  """Returns the lines of a table in Markdown."""
  rooms = by_room(files)
  rooms["**in all**"] = {kind: sum(room[kind] for room in rooms.values()) for kind in _KINDS}
  rows = ["| room | statements | covered | branches | covered |", "|---|---:|---:|---:|---:|"]
  for name, room in rooms.items():
    statements, lines, branches, taken = (room[kind] for kind in _KINDS)
    cells = f"{statements:,} | {_share(lines, statements)} | {branches:,}", _share(taken, branches)
    rows.append(f"| {name} | {' | '.join(cells)} |")
  return rows


def _share(part, whole):
  return f"{part / whole:.1%}" if whole else "-"


def main(arguments):
  """Reads a data file of coverage and prints the table."""
  names = [text for text in arguments if text != "--markdown"]
  measured = coverage.Coverage(data_file=names[0] if names else ".coverage")
  measured.load()
  with tempfile.TemporaryDirectory() as folder:
    report = pathlib.Path(folder) / "coverage.json"
    measured.json_report(outfile=str(report))
    files = {name: of["summary"] for name, of in json.loads(report.read_text())["files"].items()}
  if "--markdown" in arguments:
    print("# Coverage\n\nBy `make coverage`: statements and branches that the tests execute.\n")
  print(*table(files), sep="\n")


if __name__ == "__main__":
  main(sys.argv[1:])
