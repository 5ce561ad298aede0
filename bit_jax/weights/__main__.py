"""`python -m bit_jax.weights list|download|verify|inspect`: checkpoints from a shell."""

if __name__ == "__main__":
  from bit_jax.runtime import exits

  exits.listen()

import argparse
import fnmatch
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from bit_jax.models import architectures
from bit_jax.runtime import errors, exits
from bit_jax.weights import catalogue, checkpoints, fetch, hub


def main(argv: Sequence[str] | None = None) -> int:
  """Runs one command; returns the exit status: 0, 2 after a user error, 130 after Ctrl-C."""
  parser = argparse.ArgumentParser(prog="python -m bit_jax.weights", description="BiT checkpoints.")
  subparsers = parser.add_subparsers(dest="command", required=True)
  listing = subparsers.add_parser("list", help="list the released checkpoints")
  listing.add_argument("names", nargs="*", default=[""], metavar="PATTERN", help="e.g. 'BiT-M-*'")
  getting = subparsers.add_parser("download", help="download to $BIT_JAX_CACHE or ~/.cache/bit_jax")
  getting.add_argument("names", nargs="+", metavar="NAME")
  getting.add_argument("--mirror", action="append", default=[], metavar="URL", help="base URL")
  for command, text in (("verify", "check a file's whole content"), ("inspect", "list its arrays")):
    sub = subparsers.add_parser(command, help=text)
    sub.add_argument("names", nargs="+", metavar="NAME_OR_PATH")
  args = parser.parse_args(argv)
  return exits.run(lambda _: _run(args), [], needs_reader=args.command != "download")


def _run(args: argparse.Namespace) -> int:
  """Runs the command for one name after another; an error in one doesn't stop the others."""
  commands: dict[str, Callable[[str], Iterable[str]]] = {
    "list": _catalogue,
    "download": lambda name: [str(fetch.resolve(name, mirrors=args.mirror))],
    "verify": _verified,
    "inspect": _content,
  }
  status = 0
  for name in args.names:
    try:
      for line in commands[args.command](name):
        print(line)
    except errors.UserError as e:
      print(f"error: {e}", file=sys.stderr)
      status = exits.USER_ERROR
    except KeyboardInterrupt:
      raise exits.Interrupted("interrupted") from None
  return status


def _catalogue(pattern: str) -> Iterator[str]:
  """Yields a table of the checkpoints whose name or file matches.

  Args:
    pattern: A shell pattern such as 'BiT-M-*', or a part of a name; '' for all.
  """
  wanted = pattern if any(c in pattern for c in "*?[") else f"*{pattern}*"
  entries = catalogue.CATALOGUE.values()
  found = [c for c in entries if any(fnmatch.fnmatch(s, wanted) for s in (c.name, c.file))]
  row = "{:55} {:8} {:>7} {:>13} {:>10} {:9} {}".format
  yield row("name", "network", "classes", "parameters", "size", "available", "trained on")
  for c in found:
    available = "yes" if c.embedded or fetch.cached(c) else "no"
    size = f"{(2 if c.embedded else 4) * c.num_parameters / 1e6:,.1f} MB"
    count = f"{c.num_parameters:,}"
    note = f"the weights of {c.copy_of}" if c.copy_of else c.note
    yield row(c.name, c.architecture, c.num_classes, count, size, available, note)
  yield f"{len(found)} of {len(entries)} checkpoints"


def _verified(name: str) -> Iterator[str]:
  """Checks a checkpoint and yields a line that describes it.

  Raises:
    UserError: The file is damaged, or isn't the checkpoint that its name says.
  """
  path = fetch.locate(name)
  known = catalogue.named(name)
  inferred = (known.architecture, known.num_classes) if known else checkpoints.infer(path)
  architecture, num_classes = inferred
  if architecture is None:
    raise errors.UserError(f"{path} fits no known architecture; use inspect to list its arrays.")
  digest = checkpoints.verify(path, architecture, num_classes)
  hub.require_intact(path, digest)
  count = architectures.num_parameters(architectures.find(architecture), num_classes or None)
  yield f"{path}: ok, {architecture}, {num_classes} classes, {count:,} parameters, sha256 {digest}"


def _content(name: str) -> Iterator[str]:
  """Yields the architecture and head of a file, and statistics of each array.

  NaNs and foreign arrays are shown, not errors.

  Raises:
    UserError: The file is damaged or of another format.
  """
  path = fetch.locate(name)
  architecture, num_classes = checkpoints.infer(path)
  head = f"head of {num_classes} classes" if num_classes else "no head"
  yield f"{path}: {architecture or 'no known architecture'}, {head}"
  row = "{:60} {:18} {:8} {:>11} {:>11}".format
  yield row("name", "shape", "dtype", "mean", "std")
  with checkpoints.opened(path) as file:
    for header in file.headers:
      mean, std = "-", "-"
      if header.is_number and header.size:
        array = file.read(header.key, check_finite=False)
        with np.errstate(all="ignore"):  # a NaN is shown without a warning
          mean, std = f"{array.mean():.5g}", f"{array.std():.5g}"
      yield row(header.key, str(header.shape), header.dtype, mean, std)
    dtypes = ", ".join(sorted({h.dtype for h in file.headers}))
    size = sum(h.size for h in file.headers)
    yield f"{len(file.headers)} arrays, {size:,} parameters, {dtypes}"


if __name__ == "__main__":
  exits.leave(main())
