"""Makes tables, figures and a report of run folders: `python -m experiments.report DIR`."""

import argparse
import pathlib
import shlex
import sys
from collections.abc import Sequence

from bit_jax.runtime import errors, exits, paths, phrases
from experiments.results import collect, fields, pages, sections, table


def main(argv: Sequence[str]) -> None:
  """Writes the report.

  Raises:
    UserError: The folder isn't there or holds no run, or the output can't be written.
  """
  options, unknown = _parser().parse_known_args(argv[1:])
  if unknown:
    raise errors.UserError(f"Unknown command line flag {unknown[0]!r}: there is only --out=FOLDER.")
  if len(options.folders) != 1:
    raise errors.UserError("Give one folder of runs: python -m experiments.report DIR.")
  (given,) = options.folders
  root = paths.named(given)
  out = paths.named(options.out) if options.out else root / "report"
  write(root, out, shlex.quote(given))


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(
    prog="python -m experiments.report",
    usage="%(prog)s DIR [--out=FOLDER]",
    description="Makes a table, figures and a report of all runs in a folder, whoever made them.",
    allow_abbrev=False,
  )
  parser.add_argument(
    "folders",
    nargs="*",
    metavar="DIR",
    help="searched for run folders of bit_jax.train, also below other folders",
  )
  parser.add_argument(
    "--out",
    metavar="FOLDER",
    help="where report.md, report.html, results.csv and the figures go; default: DIR/report",
  )
  return parser


def write(root: pathlib.Path, out: pathlib.Path, given: str) -> collect.Collection:
  """Writes `results.csv`, `report.md`, `report.html` and figures of the runs below `root` to `out`.

  Args:
    root: The folder of the runs.
    out: Where the report goes.
    given: `root` as the report is to name it in its command.

  Returns:
    What was found.

  Raises:
    UserError: `root` isn't there or holds no run, or `out` can't be written.
  """
  found = collect.collect(root)
  if not (found.runs or found.failed or found.unfinished):
    hint = f" ({found.left_out[0][0]}: {found.left_out[0][1]})" if found.left_out else ""
    raise errors.UserError(f"{root} holds no run of bit_jax.train{hint}: give another folder.")
  try:
    out.mkdir(parents=True, exist_ok=True)
    table.write(out / "results.csv", found.runs)
    blocks = sections.report(found, fields.plain(given), out)
    (out / "report.md").write_text(pages.markdown(blocks), "utf-8", "backslashreplace")
    (out / "report.html").write_text(pages.html_page(blocks, out), "utf-8", "backslashreplace")
  except OSError as e:
    raise errors.UserError(f"The report can't be written to {out} ({e.strerror}).") from e
  others = len(found.failed) + len(found.unfinished)
  print(
    f"{phrases.counted(len(found.runs), 'finished run')}, {others} failed or unfinished, "
    f"{phrases.counted(len(found.duplicates), 'duplicate')}, "
    f"{phrases.counted(len(found.left_out), 'folder')} left out: {fields.plain(out / 'report.md')}"
  )
  return found


if __name__ == "__main__":
  sys.exit(exits.run(main, sys.argv, needs_reader=False))
