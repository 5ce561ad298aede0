"""`python -m bit_jax.data doctor|check`: which data sets are ready, and what a folder holds."""

import argparse
import difflib
import sys
from collections.abc import Sequence

from bit_jax.data import datasets, vtab
from bit_jax.runtime import devices, errors, exits, imports

_DOCTOR = """\
Lists data sets: prepared or not, versions, sizes of splits, a hash of the 1000 chosen examples,
disk space, and the next command or the steps to take by hand. Only --download uses the network."""


def main(argv: Sequence[str] | None = None) -> int:
  """Runs one command; returns the exit status.

  Returns:
    0; 1 if `check` found what would stop a run; 2 after a user's mistake, or if a set could not be
    downloaded; 130 after Ctrl-C.
  """
  args = _parser().parse_args(argv)
  needs_reader = args.command == "check" or not args.download
  return exits.run(lambda _: _run(args), [], needs_reader=needs_reader)


def select(names: Sequence[str]) -> tuple[str, ...]:
  """Returns the sets that the command line names, as in `datasets.NAMES` and each once.

  Args:
    names: Data sets; 'vtab' stands for its 19 tasks, a task may do without its 'vtab/', and no
      names at all for every set of tensorflow-datasets.

  Raises:
    UserError: There is no such set, or it isn't one of tensorflow-datasets.
  """
  own = [n for n in datasets.NAMES if n not in ("digits", "npz", "folder")]
  selected: list[str] = []
  for name in names or own:
    if name == "vtab":
      selected += [f"vtab/{task}" for task in vtab.TASKS]
    elif name in own:
      selected.append(name)
    elif name in vtab.TASKS:
      selected.append(f"vtab/{name}")
    else:
      raise errors.UserError(_unknown(name, own))
  return tuple(dict.fromkeys(selected))


def _unknown(name: str, own: Sequence[str]) -> str:
  if name == "digits":
    return "The digits come with scikit-learn: there is nothing to prepare."
  if name in ("npz", "folder"):
    return (
      f"{name} stands for files of your own, which nothing has to be prepared for; "
      f"`python -m bit_jax.data check PATH` looks through a folder or a CSV file."
    )
  close = difflib.get_close_matches(name, ["vtab", *own, *vtab.TASKS], n=1)
  hint = f" (did you mean {close[0]}?)" if close else ""
  return f"There is no data set {name!r}{hint}; there are vtab (all 19 tasks), {', '.join(own)}."


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(prog="python -m bit_jax.data", description="Data sets.")
  subparsers = parser.add_subparsers(dest="command", required=True)
  doctor = subparsers.add_parser(
    "doctor", help="which sets are ready, and what others need", description=_DOCTOR
  )
  doctor.add_argument("names", nargs="*", metavar="NAME", help="e.g. cifar10, vtab or vtab/svhn")
  doctor.add_argument(
    "--data_dir",
    metavar="DIR",
    help="where prepared sets lie; $TFDS_DATA_DIR or ~/tensorflow_datasets",
  )
  doctor.add_argument("--download", action="store_true", help="download and prepare what isn't yet")
  doctor.add_argument("--protocol", choices=datasets.PROTOCOLS, default="final")
  check = subparsers.add_parser("check", help="look through images of your own")
  check.add_argument("path", metavar="PATH", help="a folder or a CSV file, as configs/folder.py")
  check.add_argument("--out", metavar="DIR", help="where the list and the contact sheet go")
  return parser


def _run(args: argparse.Namespace) -> int:
  try:
    return _doctor(args) if args.command == "doctor" else _check(args)
  except KeyboardInterrupt:
    raise exits.Interrupted("interrupted") from None


def _doctor(args: argparse.Namespace) -> int:
  names = select(args.names)
  print("Importing TensorFlow (some 8 s) ...", file=sys.stderr, flush=True)
  try:
    with imports.explained():
      from bit_jax.data.doctor import readiness
  except ImportError as e:
    raise errors.UserError(
      f"doctor needs tensorflow and tensorflow-datasets, which can't be imported ({e}): install "
      f"them, or change their versions."
    ) from e

  failed = {}
  if args.download:
    failed = readiness.download(names, args.protocol, args.data_dir)
    print()
  readiness.report(names, args.protocol, args.data_dir)
  if args.download:
    print(f"\n{len(names) - len(failed)} of {len(names)} sets are prepared.")
  for name, reason in failed.items():
    print(f"failed: {name}: {reason}")
  return exits.USER_ERROR if failed else 0


def _check(args: argparse.Namespace) -> int:
  from bit_jax.data.check import report

  devices.use_cpu()
  return report.main(args.path, args.out)


if __name__ == "__main__":
  exits.leave(main())
