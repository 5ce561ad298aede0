"""`python -m bit_jax.weights list|download|verify|inspect`: checkpoints from a shell."""

import argparse
import sys
from collections.abc import Sequence

from bit_jax.models import architectures
from bit_jax.runtime import errors, exits
from bit_jax.weights import catalogue, checkpoints, fetch, tables


def main(argv: Sequence[str] | None = None) -> int:
  """Runs one command; returns the exit status: 0, 2 after a user's mistake, 130 after Ctrl-C."""
  args = _parser().parse_args(argv)
  return exits.run(lambda _: _run(args), [], needs_reader=args.command != "download")


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(prog="python -m bit_jax.weights", description="BiT checkpoints.")
  subparsers = parser.add_subparsers(dest="command", required=True)
  listing = subparsers.add_parser("list", help="the catalogue of released checkpoints")
  listing.add_argument("names", nargs="*", default=[""], metavar="PATTERN", help="e.g. 'BiT-M-*'")
  getting = subparsers.add_parser("download", help="into $BIT_JAX_CACHE or ~/.cache/bit_jax")
  getting.add_argument("names", nargs="+", metavar="NAME")
  getting.add_argument("--mirror", action="append", default=[], metavar="URL", help="base URL")
  for command, text in (("verify", "check all contents"), ("inspect", "show what is in a file")):
    sub = subparsers.add_parser(command, help=text)
    sub.add_argument("names", nargs="+", metavar="NAME_OR_PATH")
  return parser


def _run(args: argparse.Namespace) -> int:
  """Runs the command on one name after another; a mistake in one doesn't stop the others."""
  status = 0
  for name in args.names:
    try:
      _run_one(args, name)
    except errors.UserError as e:
      print(f"error: {e}", file=sys.stderr)
      status = exits.USER_ERROR
    except KeyboardInterrupt:
      raise exits.Interrupted("interrupted") from None
  return status


def _run_one(args: argparse.Namespace, name: str) -> None:
  match args.command:
    case "list":
      print(*tables.catalogue_lines(name), sep="\n")
    case "download":
      print(fetch.resolve(name, mirrors=args.mirror))
    case "verify":
      _verify(name)
    case "inspect":
      for line in tables.content_lines(fetch.locate(name)):
        print(line)


def _verify(name: str) -> None:
  path = fetch.locate(name)
  known = catalogue.CATALOGUE.get(path.stem)
  if known:
    architecture, num_classes = known.architecture, known.num_classes
  else:
    inferred, num_classes = checkpoints.infer(path)
    if inferred is None:
      raise errors.UserError(f"{path} fits no known architecture; inspect shows what it holds.")
    architecture = inferred
  digest = checkpoints.verify(path, architecture, num_classes)
  count = architectures.num_parameters(
    architectures.ARCHITECTURES[architecture], num_classes or None
  )
  print(f"{path}: ok, {architecture}, {num_classes} classes, {count:,} parameters, sha256 {digest}")


if __name__ == "__main__":
  exits.leave(main())
