"""Tables, figures and a report of run folders: `python -m experiments.report DIR`."""

import argparse
import pathlib
import shlex
import sys
from collections.abc import Sequence

from bit_jax.report import values
from bit_jax.runtime import errors, exits, imports, paths, phrases


def main(argv: Sequence[str]) -> None:
  """Writes the report.

  Raises:
    UserError: The folder doesn't exist or holds no run, or the output can't be written.
  """
  parser = argparse.ArgumentParser(
    prog="python -m experiments.report",
    usage="%(prog)s DIR [--out=FOLDER]",
    description="Writes a table, figures and a report of all runs in a folder.",
    allow_abbrev=False,
  )
  parser.add_argument("folders", nargs="*", metavar="DIR", help="searched with its subfolders")
  parser.add_argument("--out", metavar="FOLDER", help="for the report; default: DIR/report")
  options, unknown = parser.parse_known_args(argv[1:])
  if unknown:
    raise errors.UserError(f"Unknown command line flag {unknown[0]!r}: the only flag is --out.")
  if len(options.folders) != 1:
    raise errors.UserError("Give one folder of runs: python -m experiments.report DIR.")
  root = paths.named(options.folders[0])
  out = paths.named(options.out) if options.out else root / "report"
  write(root, out, shlex.quote(options.folders[0]))


def write(root: pathlib.Path, out: pathlib.Path, given: str) -> None:
  """Writes `results.csv`, `report.md`, `report.html` and figures of the runs below `root` to `out`.

  Args:
    root: The folder of the runs.
    out: Folder of the report.
    given: `root` as written in the report's command.

  Raises:
    UserError: `root` doesn't exist or holds no run, `out` can't be written, or pandas is not
      installed.
  """
  with imports.extra("experiments"):
    from experiments.results import collect, sections
  found = collect.collect(root)
  if not (found.runs or found.failed or found.unfinished):
    hint = f" ({found.left_out[0][0]}: {found.left_out[0][1]})" if found.left_out else ""
    raise errors.UserError(f"{root} holds no run of bit_jax.train{hint}: give another folder.")
  try:
    out.mkdir(parents=True, exist_ok=True)
    collect.table(found.runs).to_csv(out / "results.csv", index=False, lineterminator="\r\n")
    for name, text in sections.pages(found, values.plain(given), out).items():
      (out / name).write_text(text, "utf-8", "backslashreplace")
  except OSError as e:
    raise errors.UserError(f"The report can't be written to {out} ({e.strerror}).") from e
  others = len(found.failed) + len(found.unfinished)
  print(
    f"{phrases.counted(len(found.runs), 'finished run')}, {others} failed or unfinished, "
    f"{phrases.counted(len(found.duplicates), 'duplicate')}, "
    f"{phrases.counted(len(found.left_out), 'folder')} left out: {values.plain(out / 'report.md')}"
  )


if __name__ == "__main__":
  sys.exit(exits.run(main, sys.argv, needs_reader=False))
