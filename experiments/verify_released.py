"""Evaluates released fine-tuned checkpoints, without training, beside their published accuracies.

    python -m experiments.verify_released [NAME_PATTERN ...]
    python -m experiments.verify_released --weights=FILE.npz --dataset=cifar100 [--size=48]

A pattern is a part of a name, or has wildcards ('BiT-M-*-ILSVRC2012'); without one, all that have
something to be compared with are evaluated: those on CIFAR-10 and ImageNet, the distilled ones,
the 285 of VTAB and the one that comes with the package. Each is scored on the whole test split, at
the size and in the way in which its published value was obtained. Nothing is downloaded unless
`--download` is given; what isn't there is listed, with what to do about it, and the others are
evaluated. The exit status is not 0 if nothing could be evaluated or a figure is off.
"""

import argparse
import dataclasses
import fnmatch
import sys
from collections.abc import Sequence

import jax.numpy as jnp

from bit_jax import hyperrule, weights
from bit_jax.models import architectures
from bit_jax.runtime import devices, errors, exits, numerics, paths
from bit_jax.weights import fetch
from experiments import evaluation, released, verification


def main(argv: Sequence[str]) -> None:
  """Evaluates what the command line names, and prints the table.

  Raises:
    UserError: Nothing could be evaluated, a figure is off, or the command line can't be used.
  """
  options = _parser().parse_args(argv[1:])
  hyperrule.at_least("--batch", options.batch, 1)
  if remark := numerics.ignored():
    print(remark, file=sys.stderr)
  if options.out:
    verification.require_suffix(options.out)
  found: list[verification.Row] = []
  todo = _checks(options)
  if not (options.weights or options.download):
    print(verification.missing(list(dict.fromkeys(check.name for check in todo))), end="")
  print(verification.header(), flush=True)
  for check in todo:
    new = _rows(check, options)
    found += new
    for text in verification.lines(new, found):
      print(text, flush=True)
    if options.out:
      verification.write(options.out, found)
  print()
  for text in (*verification.vtab_lines(found), *verification.notes(found)):
    print(text)
  sys.stdout.flush()
  verification.require(found)


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(
    prog="python -m experiments.verify_released",
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument("patterns", nargs="*", metavar="NAME_PATTERN")
  parser.add_argument("--weights", metavar="PATH", help="a file instead of names")
  parser.add_argument("--dataset", help="on what to evaluate that file, as in configs")
  parser.add_argument("--size", type=int, metavar="PIXELS", help="side of its test images")
  parser.add_argument("--data_dir", help="where tfds keeps prepared sets")
  parser.add_argument("--download", action="store_true", help="get checkpoints that aren't there")
  parser.add_argument("--dtype", default="float32", choices=hyperrule.DTYPES)
  parser.add_argument("--batch", type=int, default=256, help="images at once, or what fits")
  parser.add_argument(
    "--decoded_cache", action="store_true", help="keep resized images in files, for later"
  )
  parser.add_argument(
    "--out", type=paths.argument, metavar="FILE", help="a .json or .csv of the rows"
  )
  return parser


def _checks(options: argparse.Namespace) -> list[released.Check]:
  """Returns what the command line asks for.

  Raises:
    UserError: It names nothing, or contradicts itself.
  """
  if options.weights:
    if options.patterns:
      raise errors.UserError("Give names, or one file by --weights, not both.")
    return released.of_file(options.weights, options.dataset, options.size)
  if options.dataset or options.size is not None:
    raise errors.UserError(
      "--dataset and --size are for a file of your own (--weights=PATH); a released checkpoint is "
      "evaluated as its published value was obtained."
    )
  names = released.names()
  chosen = []
  for pattern in options.patterns or ["*"]:
    wanted = pattern if any(c in pattern for c in "*?[") else f"*{pattern}*"
    matching = [pattern] if pattern in names else fnmatch.filter(names, wanted)
    if not matching:
      known = [n for n in weights.CATALOGUE if fnmatch.fnmatchcase(n, wanted)]
      why = f"{known[0]} has no published accuracy" if known else "no checkpoint has such a name"
      raise errors.UserError(
        f"There is nothing to verify of {pattern!r}: {why}. Fine-tuned ones are "
        f"{', '.join(n for n in names if released.vtab_run(n) is None)}, and those of VTAB, such "
        f"as BiT-M-R50x1-run0-cifar100."
      )
    chosen += matching
  return [check for name in dict.fromkeys(chosen) for check in released.checks(name)]


def _rows(check: released.Check, options: argparse.Namespace) -> list[verification.Row]:
  """Evaluates a checkpoint; a mistake with it doesn't stop the others."""
  nothing = verification.Row(check.name, check.dataset, str(check.view))
  try:
    file = weights.resolve(check.weights) if options.download else weights.locate(check.weights)
    name, _ = weights.infer(file)
    if name is None:
      raise errors.UserError(f"{file} fits no known network (python -m bit_jax.weights inspect).")
    tests = evaluation.load(
      check.dataset, check.view, options.data_dir, decoded_cache=options.decoded_cache
    )
    architecture = architectures.find(name)
    loaded = weights.load(file, architecture, head="keep", num_classes=tests.spec.num_classes)
    dtype = devices.compute_dtype(options.dtype, devices.describe().platform)
    means = evaluation.evaluate(
      loaded.params, architecture, tests, batch_size=options.batch, dtype=dtype
    )
  except fetch.NotInCacheError as e:
    file_name = weights.find(check.weights).file
    return [dataclasses.replace(nothing, remark=str(e), missing_file=file_name)]
  except errors.UserError as e:
    return [dataclasses.replace(nothing, remark=str(e))]
  return verification.rows(check, means, len(tests.part), jnp.dtype(dtype).name, tests.warnings)


if __name__ == "__main__":
  exits.leave(exits.run(main, sys.argv, needs_reader=False))
