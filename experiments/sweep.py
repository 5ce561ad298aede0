"""Makes all runs of a sweep: `python -m experiments.sweep --config=experiments/fewshot.py`."""

import argparse
import contextlib
import pathlib
import shlex
import sys
from collections.abc import Iterator, Sequence

from bit_jax.runtime import arguments, errors, exits, files, paths, phrases
from experiments.sweeping import (
  grid,
  local,
  placement,
  queueing,
  slurm,
  slurm_cluster,
  table,
)

_DESCRIPTION = """\
Makes all runs of a sweep file, one on each device of this machine at a time, or on a cluster, each
as a Slurm job. Finished runs are never made again. A run that fails leaves its error in error.json
of its folder, and the others go on; the same command goes on where it was stopped, and tries failed
runs again, last."""


def main(argv: Sequence[str]) -> None:
  """Parses the command line, and makes the runs.

  Raises:
    UserError: The sweep file or the folder can't be used, or runs failed.
    interruption.Interrupted: It was asked to stop; runs under way are saved.
  """
  args = _parser().parse_args(argv[1:])
  name = pathlib.Path(args.config).stem
  folder = paths.named(args.out or f"runs/{name}").absolute()
  if folder.is_file():
    raise errors.UserError(f"--out={args.out} is a file: give a folder, which needn't exist.")
  most = _most(args.jobs)
  planned = grid.load(args.config, args.only)
  cluster = _cluster(args, folder / "slurm")
  if args.dry_run:
    print(table.describe(planned, folder))
    return
  with _locked(folder) as lock, exits.StopRequest() as stop:
    if cluster is None:  # whoever held the lock may have submitted some
      slurm_cluster.require_no_jobs(folder / "slurm")
    queue = queueing.Queue(planned, folder)
    print(f"{_counted(queue)} in {folder}, {len(queue.done)} finished.", flush=True)
    for one, message in queue.failed.items():
      print(f"{one} can't be made: {message}", flush=True)
    if queue.left and cluster is not None:
      slurm.Watch(queue, folder, name, cluster, most).run(stop)
    elif queue.left:
      places = placement.places(*placement.local(), most)
      local.Pool(queue, folder, name, places, lock).run(stop)
  _report(queue, folder)


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(prog="python -m experiments.sweep", description=_DESCRIPTION)
  add = parser.add_argument
  add("--config", metavar="FILE", required=True, help="such as experiments/fewshot.py")
  add("--out", metavar="DIR", help="folder of the run folders; default: runs/<name of the file>")
  add("--dry_run", action="store_true", help="print the runs with what they take, and stop")
  add("--only", metavar="PATTERN", help="runs whose name matches, such as '*-5shot-*'")
  add(
    "--jobs",
    metavar="N",
    help="at once, if not as many as there are devices (Slurm: runs)",
  )
  add("--executor", choices=("local", "slurm"), default="local", help="default: local")
  add("--slurm", metavar="KEY=VALUE,...", help="such as partition=gpu,gpus_per_node=1,mem_gb=32")
  return parser


def _most(text: str | None) -> int | None:
  try:
    return None if text is None else arguments.integer(None, 1).parse(text)
  except ValueError as e:
    raise errors.UserError(f"--jobs takes a whole number of at least 1, not {text!r}.") from e


def _cluster(args: argparse.Namespace, folder: pathlib.Path) -> slurm_cluster.Cluster | None:
  """Returns the Slurm cluster, None if runs are to be made here, or none are to be made."""
  if args.executor == "slurm" and args.dry_run:
    slurm_cluster.options(args.slurm)  # a mistake in them is told, wherever the table is made
    return None
  if args.executor == "slurm":
    return slurm_cluster.connect(args.slurm, folder)
  if args.slurm is not None:
    raise errors.UserError("--slurm goes with --executor=slurm.")
  return None


def _report(queue: queueing.Queue, folder: pathlib.Path) -> None:
  if queue.failed:
    lines = [f"  {name}: {message}" for name, message in queue.failed.items()]
    raise errors.UserError(
      f"{len(queue.failed)} of {len(queue)} runs failed, {len(queue.done)} finished:\n"
      + "\n".join(lines)
      + f"\nWhat they printed is in log.txt, and the error in error.json, of their folders in "
      f"{folder}. The same command tries them again."
    )
  report = f"python -m experiments.report {shlex.quote(str(folder))}"
  print(f"{_counted(queue)} finished, none failed. Next: {report}")


def _counted(queue: queueing.Queue) -> str:
  return phrases.counted(len(queue), "run")


@contextlib.contextmanager
def _locked(folder: pathlib.Path) -> Iterator[int]:
  """Keeps other sweeps out of the folder; yields the lock, which runs under way hold as well."""

  def tell() -> None:
    print(f"Another sweep is at work in {folder}, or saves its runs: waiting for it.", flush=True)

  with files.exclusive(folder / ".lock", tell, "choose another --out") as file:
    yield file.fileno()


if __name__ == "__main__":
  exits.leave(exits.run(main, sys.argv, needs_reader=False))
