"""Runs a sweep: `python -m experiments.sweep --config=experiments/fewshot.py`."""

import argparse
import functools
import pathlib
import shlex
import sys
from collections.abc import Sequence

from bit_jax.runtime import errors, exits, files, paths, phrases, stopping
from experiments.sweeping import grid, local, queueing, slurm
from experiments.sweeping import table as run_table

_DESCRIPTION = """\
Executes all runs of a sweep file: one at a time on each device of this machine, or each as a Slurm
job. Finished runs are skipped. A run that fails leaves its error in error.json of its folder, and
the others continue. Run the same command again to resume; failed runs are tried again, last."""


def main(argv: Sequence[str]) -> None:
  """Parses the command line, and executes the runs.

  Raises:
    UserError: The sweep file or the folder can't be used, or runs failed.
    exits.Interrupted: A stop was requested; runs under way are saved.
  """
  args = _parser().parse_args(argv[1:])
  name = pathlib.Path(args.config).stem
  folder = paths.named(args.out or f"runs/{name}").absolute()
  if folder.is_file():
    raise errors.UserError(f"--out={args.out} is a file: pass a folder, which need not exist.")
  if args.jobs is not None and not (args.jobs.isdecimal() and int(args.jobs) > 0):
    raise errors.UserError(f"--jobs must be a whole number of at least 1, not {args.jobs}.")
  jobs = None if args.jobs is None else int(args.jobs)
  planned = grid.load(args.config, args.only)
  if args.slurm is not None and args.executor == "local":
    raise errors.UserError("--slurm needs --executor=slurm.")
  options = slurm.options(args.slurm)
  if args.dry_run:
    print(run_table.describe(planned, folder))
    return
  slurm_files = folder / "slurm"
  cluster = None if args.executor == "local" else slurm.connect(options, slurm_files)
  waiting = f"Another sweep is running in {folder}, or saving its runs: waiting for it."
  busy = functools.partial(print, waiting, flush=True)
  with (
    files.exclusive(folder / ".lock", busy, "choose another --out") as lock,
    stopping.StopRequest() as stop,
  ):
    if cluster is None:  # the sweep that held the lock may have submitted some
      slurm.require_no_jobs(slurm_files)
    queue = queueing.Queue(planned, folder, name)
    counted = phrases.counted(len(queue), "run")
    print(f"{counted} in {folder}, {len(queue.done)} finished.", flush=True)
    for one, message in queue.failed.items():
      print(f"{one} can't be run: {message}", flush=True)
    if queue.left:
      if cluster is not None:
        slurm.Slurm(queue, stop, jobs, cluster).run()
      else:
        places = local.places(*local.find_devices(), jobs)
        local.Local(queue, stop, places, lock.fileno()).run()
  _report(queue, folder)


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(prog="python -m experiments.sweep", description=_DESCRIPTION)
  add = parser.add_argument
  add("--config", metavar="FILE", required=True, help="such as experiments/fewshot.py")
  add("--out", metavar="DIR", help="folder of the run folders; default: runs/<name of the file>")
  add("--dry_run", action="store_true", help="print the runs with their cost, and stop")
  add("--only", metavar="PATTERN", help="runs whose name matches, such as '*-5shot-*'")
  add("--jobs", metavar="N", help="most runs at a time; default: one on each device; Slurm: all")
  add("--executor", choices=("local", "slurm"), default="local", help="default: local")
  add("--slurm", metavar="KEY=VALUE,...", help="such as partition=gpu,gpus_per_node=1,mem_gb=32")
  return parser


def _report(queue: queueing.Queue, folder: pathlib.Path) -> None:
  if queue.failed:
    lines = "\n".join(f"  {name}: {message}" for name, message in queue.failed.items())
    raise errors.UserError(
      f"{len(queue.failed)} of {len(queue)} runs failed, {len(queue.done)} finished:\n{lines}\n"
      f"Their folders in {folder} hold their output (log.txt) and error (error.json). Run the same "
      f"command again to retry them."
    )
  report = f"python -m experiments.report {shlex.quote(str(folder))}"
  print(f"{phrases.counted(len(queue), 'run')} finished, none failed. Next: {report}")


if __name__ == "__main__":
  exits.leave(exits.run(main, sys.argv, needs_reader=False))
