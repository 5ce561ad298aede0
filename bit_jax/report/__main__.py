"""`python -m bit_jax.report RUN`: writes the report of a run folder."""

import argparse
import functools
import sys
from collections.abc import Sequence

from bit_jax.runtime import errors, exits, paths

_DESCRIPTION = """\
Writes the report of a run folder as one HTML page that needs no network: config and rule, curves,
training images before and after augmentation, mistakes, confusion matrix, accuracy of each class,
timing and environment. Every run writes it at its end; this command writes it again, also for a run
that is still running or that an earlier version wrote. It prints the path of the page."""
_EXAMPLES = """\
examples:
  python -m bit_jax.report runs/quickstart-R14x0.5-5shot-s0-1467eef1
  python -m bit_jax.report /data/run1 --out=run1.html"""


def main(argv: Sequence[str]) -> None:
  """Writes the report.

  Raises:
    UserError: The folder isn't that of a run, or the page can't be written.
  """
  parser = argparse.ArgumentParser(
    prog="python -m bit_jax.report",
    usage="%(prog)s RUN [--out=FILE]",
    description=_DESCRIPTION,
    epilog=_EXAMPLES,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  parser.add_argument("run", metavar="RUN", help="the run folder")
  parser.add_argument("--out", metavar="FILE", help="the page to write; default: RUN/report.html")
  args = parser.parse_args(argv[1:])
  if args.out == "":
    raise errors.UserError("--out needs a file to write, such as --out=report.html.")
  from bit_jax.report import run_page  # imports jax
  from bit_jax.runs import run_folder

  out = None if args.out is None else paths.named(args.out)
  folder = paths.named(args.run)
  try:
    print(run_page.write(folder, out, functools.partial(print, file=sys.stderr)))
  except OSError as e:
    where = out or folder / run_folder.REPORT
    reason = e.strerror or str(e)
    raise errors.UserError(
      f"The report can't be written to {where} ({reason}): give another file with --out=FILE."
    ) from e


if __name__ == "__main__":
  exits.leave(exits.run(main, sys.argv))
