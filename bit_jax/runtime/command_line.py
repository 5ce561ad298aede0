"""Command lines of the commands that take a network: `RUN_OR_CHECKPOINT` and their common flags."""

import argparse

INPUTS = "files, folders (images at any depth), patterns in quotes, - for a list of paths on stdin"


def network_parser(command: str, description: str, examples: str) -> argparse.ArgumentParser:
  """Returns a parser with the argument `network` and the flags `--size` and `--batch_size`.

  Args:
    command: The name of its module in this package.
    description: What the command does.
    examples: Command lines and remarks, shown at the end of `--help`.
  """
  parser = argparse.ArgumentParser(
    prog=f"python -m bit_jax.{command}",
    description=description,
    epilog=examples,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  add = parser.add_argument
  add("network", metavar="RUN_OR_CHECKPOINT", help="a run folder, or a checkpoint's file or name")
  add("--size", type=int, metavar="PX", help="side of the squares that the network gets")
  add("--batch_size", type=int, default=64, metavar="N", help="images at once (default: 64)")
  return parser
