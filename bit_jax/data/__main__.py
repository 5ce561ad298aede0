"""`python -m bit_jax.data doctor|check`: the state of data sets, problems of your images."""

if __name__ == "__main__":
  from bit_jax.runtime import exits

  exits.listen()

import argparse
import sys
from collections.abc import Sequence

from bit_jax.data import datasets, vtab
from bit_jax.runtime import errors, exits, imports, phrases

_DOCTOR = """\
Lists data sets: whether they are prepared, versions, split sizes, a hash of the 1000 chosen
examples, disk space, and the next command or manual steps. Only --download uses the network."""


def main(argv: Sequence[str] | None = None) -> int:
  """Runs one command; returns the exit status.

  Returns:
    0; 1 if `check` found an error that would stop a run; 2 after a user error, or if a set could
    not be prepared; 130 after Ctrl-C.
  """
  args = _parser().parse_args(argv)
  needs_reader = args.command == "check" or not args.download
  return exits.run(lambda _: _run(args), [], needs_reader=needs_reader)


def select(names: Sequence[str]) -> tuple[str, ...]:
  """Returns the sets that the command line names, each once and with its name in `datasets.NAMES`.

  Args:
    names: Data sets; 'vtab' stands for its 19 tasks, 'vtab/' may be left out before a task, and no
      names stand for all sets of tensorflow-datasets.

  Raises:
    UserError: A set is unknown, or not one of tensorflow-datasets.
  """
  own = [n for n in datasets.NAMES if n not in ("digits", *datasets.OWN)]
  known = {task: (f"vtab/{task}",) for task in vtab.TASKS} | {name: (name,) for name in own}
  groups = {"vtab": tuple(f"vtab/{task}" for task in vtab.TASKS), **known}
  for name in names:
    if name not in groups:
      raise errors.UserError(_unknown(name, own))
  return tuple(dict.fromkeys(n for name in names or own for n in groups[name]))


def _unknown(name: str, own: Sequence[str]) -> str:
  if name == "digits":
    return "The digits are part of scikit-learn: there is nothing to prepare."
  if name in datasets.OWN:
    return (
      f"{name} stands for your own files, which need no preparation. `python -m bit_jax.data check "
      f"PATH` checks a folder or a CSV file."
    )
  hint = phrases.did_you_mean(name, ["vtab", *own, *vtab.TASKS])
  return f"Unknown data set {name!r}{hint}. Choose vtab (all 19 tasks), {', '.join(own)}."


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(
    prog="python -m bit_jax.data", description="Data sets and your own images."
  )
  subparsers = parser.add_subparsers(dest="command", required=True)
  doctor = subparsers.add_parser(
    "doctor", help="list which sets are prepared, and what the others need", description=_DOCTOR
  )
  doctor.add_argument("names", nargs="*", metavar="NAME", help="e.g. cifar10, vtab or vtab/svhn")
  doctor.add_argument(
    "--data_dir",
    metavar="DIR",
    help="folder of prepared sets; default $TFDS_DATA_DIR or ~/tensorflow_datasets",
  )
  doctor.add_argument(
    "--download", action="store_true", help="download and prepare the missing sets"
  )
  doctor.add_argument("--protocol", choices=datasets.PROTOCOLS, default="final")
  check = subparsers.add_parser("check", help="check your own images")
  check.add_argument("path", metavar="PATH", help="a folder or a CSV file, as in configs/folder.py")
  check.add_argument(
    "--out", metavar="DIR", help="folder for the list of problems and the contact sheet"
  )
  return parser


def _run(args: argparse.Namespace) -> int:
  try:
    return _doctor(args) if args.command == "doctor" else _check(args)
  except KeyboardInterrupt:
    raise exits.Interrupted("interrupted") from None


def _doctor(args: argparse.Namespace) -> int:
  names = select(args.names)
  print("Importing TensorFlow (about 8 s) ...", file=sys.stderr, flush=True)
  with imports.tfds_for("doctor needs", "other versions of them"):
    from bit_jax.data.doctor import readiness

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
  from bit_jax.runtime import devices  # imports jax

  devices.use_cpu()
  return report.main(args.path, args.out)


if __name__ == "__main__":
  exits.leave(main())
