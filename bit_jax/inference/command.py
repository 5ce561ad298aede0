"""What the commands that take a network share: their common arguments, and how they start."""

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from bit_jax import hyperrule
from bit_jax.runtime import checks

if TYPE_CHECKING:  # these import jax, for which --help doesn't wait
  from bit_jax import run_config
  from bit_jax.inference import networks

INPUTS = "files, folders (images at any depth), patterns in quotes, - for a list of paths on stdin"
_LABELLED = ("split", "path", "config")


def parser(command: str, description: str, examples: str) -> argparse.ArgumentParser:
  """Returns a parser with the argument `network` and the flag `--size`.

  Args:
    command: The name of its module in this package.
    description: What the command does.
    examples: Command lines and remarks, shown at the end of `--help`.
  """
  made = argparse.ArgumentParser(
    prog=f"python -m bit_jax.{command}",
    description=description,
    epilog=examples,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  add = made.add_argument
  add("network", metavar="RUN_OR_CHECKPOINT", help="a run folder, or a checkpoint's file or name")
  add("--size", type=int, metavar="PX", help="side of the squares that the network gets")
  return made


def add_batch_size(to: argparse.ArgumentParser, default: int | None = 64) -> None:
  """Adds the flag `--batch_size`; without a default, it is the run's."""
  text = f"images at once (default: {default or 'as the run, or 256'})"
  to.add_argument("--batch_size", type=int, default=default, metavar="N", help=text)


def add_labelled(to: argparse.ArgumentParser) -> None:
  """Adds the flags that choose labelled images: `--path`, `--config` and `--split`."""
  where = to.add_mutually_exclusive_group()
  path = "labelled images (a folder, CSV or .npz), or where the run's own images are now"
  where.add_argument("--path", metavar="PATH", help=path)
  where.add_argument("--config", metavar="FILE", help="a data set's config, FILE[:key=value,...]")
  split = "test, train or val; of tfds sets any split, as train[:10%%]"
  to.add_argument("--split", metavar="PART", help=split)


def parse_labelled(
  by: argparse.ArgumentParser, argv: Sequence[str] | None
) -> tuple[argparse.Namespace, list[str]]:
  """Parses a command line with the flags of `add_labelled`.

  Returns:
    The arguments, and the words of the config, which `request` takes.
  """
  args, fields = by.parse_known_intermixed_args(argv)
  if unknown := [a for a in fields if not (args.config and a.startswith("--config."))]:
    by.error(f"unrecognized arguments: {' '.join(unknown)}")
  for name in _LABELLED:
    if getattr(args, name) == "":
      by.error(f"argument --{name}: expected a value")
  return args, [f"--config={args.config}", *fields] if args.config else []


def request(words: Sequence[str]) -> "run_config.Request | None":
  """Returns the config of a data set that a user asked for, None without words.

  Raises:
    UserError: It can't be used.
  """
  from absl import flags

  from bit_jax.runtime import config_flags

  return config_flags.parse(flags.FlagValues(), ["command", *words])


def load(reference: str, *, size: int | None = None, dtype: str = "auto") -> "networks.Network":
  """Loads a network as `networks.load` does, on devices that are there.

  Raises:
    UserError: As there, of `size` as the flag `--size`; or JAX finds no device.
  """
  if size is not None:
    checks.in_range("--size", size, 1, hyperrule.MAX_SIDE)
  from bit_jax.inference import networks
  from bit_jax.runtime import devices, machine

  machine.keep_freed_memory()
  devices.require()  # first: JAX reports a second platform that is absent only once
  return networks.load(reference, size=size, dtype=dtype)


def remark(network: "networks.Network", *on_images: str | None) -> None:
  """Prints what the user should know before the first computation, on standard error.

  That is what was assumed of the network, on the devices, on the cache of compiled programs, which
  is set up here, on settings that are ignored, and on the images; each where there is something.
  """
  from bit_jax.runtime import compile_cache, devices, numerics

  on_machine = devices.remark(), compile_cache.keep(), numerics.ignored()
  for sentence in filter(None, (*network.remarks, *on_machine, *on_images)):
    print(sentence, file=sys.stderr)
