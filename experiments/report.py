"""Makes tables, figures and a report of run folders: `python -m experiments.report DIR`."""

import os
import pathlib
import sys
from collections.abc import Sequence

from absl import flags

from bit_jax import commands, errors
from experiments.results import collect, fields, pages, sections, table, wording

_HELP = """Makes a table, figures and a report of all runs in a folder, whoever made them.

  python -m experiments.report DIR [--out=FOLDER]

  DIR            searched for run folders of bit_jax.train, also below other folders
  --out=FOLDER   where report.md, report.html, results.csv and the figures go; default: DIR/report
"""


def main(argv: Sequence[str]) -> None:
  """Writes the report.

  Raises:
    UserError: The folder isn't there or holds no run, or the output can't be written.
  """
  if any(a.lstrip("-") in ("help", "h", "helpfull") for a in argv[1:]):
    print(_HELP)
    return
  values = flags.FlagValues()
  out = flags.DEFINE_string("out", None, "folder of the report", flag_values=values)
  try:
    folders = values(argv)[1:]
  except flags.Error as e:
    raise errors.UserError(f"{e}.") from e
  if len(folders) != 1:
    raise errors.UserError("Give one folder of runs: python -m experiments.report DIR.")
  root = pathlib.Path(os.path.expanduser(folders[0]))
  write(root, pathlib.Path(os.path.expanduser(out.value)) if out.value else root / "report")


def write(root: pathlib.Path, out: pathlib.Path) -> collect.Collection:
  """Writes `results.csv`, `report.md`, `report.html` and figures of the runs below `root` to `out`.

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
    blocks = sections.report(found, fields.plain(root.resolve().name), out)
    (out / "report.md").write_text(pages.markdown(blocks), encoding="utf-8")
    (out / "report.html").write_text(pages.html_page(blocks, out), encoding="utf-8")
  except OSError as e:
    raise errors.UserError(f"The report can't be written to {out} ({e.strerror}).") from e
  others = len(found.failed) + len(found.unfinished)
  print(
    f"{wording.number(len(found.runs), 'finished run')}, {others} failed or unfinished, "
    f"{wording.number(len(found.duplicates), 'duplicate')}, "
    f"{wording.number(len(found.left_out), 'folder')} left out: {fields.plain(out / 'report.md')}"
  )
  return found


if __name__ == "__main__":
  sys.exit(commands.run(main, sys.argv))
