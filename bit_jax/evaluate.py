"""Evaluates a network: `python -m bit_jax.evaluate RUN_OR_CHECKPOINT`."""

import argparse
import json
import sys
from collections.abc import Sequence

from bit_jax.runtime import exits, paths

_EXAMPLES = """examples:
  python -m bit_jax.evaluate runs/flowers                        the run's own test part
  python -m bit_jax.evaluate runs/flowers --split=train          its training images, unaugmented
  python -m bit_jax.evaluate runs/flowers --path=more_photos     other images, a folder per class
  python -m bit_jax.evaluate BiT-M-R50x1-CIFAR10 --config=configs/cifar10.py --json

Tables and pictures go to RUN/evaluation-SPLIT, those of a checkpoint to ./evaluation. The exit
status is 1 if images could not be read.
"""


def main(argv: Sequence[str] | None = None) -> int:
  """Prints accuracy, calibration and a table of classes, and writes tables and pictures.

  Returns:
    The exit status: 0; 1 if images could not be read; 2 after a user error; 130 after Ctrl-C.
  """
  parser = argparse.ArgumentParser(
    prog="python -m bit_jax.evaluate",
    description="Evaluates a network on labelled images: accuracy, calibration, mistakes.",
    epilog=_EXAMPLES,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  add = parser.add_argument
  add("network", metavar="RUN_OR_CHECKPOINT", help="a run folder, or a checkpoint's file or name")
  add("--split", metavar="PART", help="test, train or val; of tfds sets any split, as train[:10%%]")
  where = parser.add_mutually_exclusive_group()
  path = "labelled images (a folder, CSV or .npz), or where the run's own images are now"
  where.add_argument("--path", metavar="PATH", help=path)
  where.add_argument(
    "--config", metavar="FILE", help="a config of a data set, FILE[:key=value,...]"
  )
  add("--out", type=paths.argument, metavar="DIR", help="folder for tables and pictures")
  add("--json", action="store_true", help="print one JSON object")
  add("--size", type=int, metavar="PX", help="side of the squares that the network gets")
  args, fields = parser.parse_known_args(argv)
  if unknown := [a for a in fields if not (args.config and a.startswith("--config."))]:
    parser.error(f"unrecognized arguments: {' '.join(unknown)}")
  for name in ("split", "path", "config"):
    if getattr(args, name) == "":
      parser.error(f"argument --{name}: expected a value")
  return exits.run(lambda _: _run(args, fields), [], needs_reader=False)


def _run(args: argparse.Namespace, fields: Sequence[str]) -> int:
  # These import jax, for which --help doesn't wait.
  from absl import flags

  from bit_jax.data import stream
  from bit_jax.inference import evaluated_data, evaluation, evaluation_results, networks
  from bit_jax.runtime import compile_cache, config_flags, devices, numerics

  line = ["evaluate", *([f"--config={args.config}"] if args.config is not None else []), *fields]
  request = config_flags.parse(flags.FlagValues(), line)
  devices.require()
  network = networks.load(args.network, size=args.size)
  chosen = evaluated_data.choose(
    network, split=args.split, path=args.path, request=request, size=args.size
  )
  folder = args.out or evaluated_data.default_folder(network, chosen)
  evaluated_data.open_folder(folder, chosen.images)
  loaded, unreadable = chosen.load()
  warnings = [
    *loaded.warnings,
    *filter(None, [evaluated_data.overlap(network, chosen)]),
    *unreadable,
  ]
  remarks = [numerics.ignored(), devices.remark(), compile_cache.keep(), chosen.data.origin]
  remarks += network.remarks if chosen.size == network.size else ()
  for text in (*filter(None, remarks), *(f"warning: {text}" for text in warnings)):
    print(text, file=sys.stderr)
  with stream.progress("Evaluating", len(loaded.part)) as bar:
    found = evaluation.evaluate_part(
      network.model, network.params, chosen.size, loaded, chosen.batch_size, bar.update
    )
  results = evaluation_results.Results(network, chosen.size, chosen.title, loaded, found)
  if args.json:
    more = {"unreadable": unreadable, "warnings": warnings, "folder": str(folder)}
    print(json.dumps({**results.as_json(), **more}, indent=2))
  else:
    print("\n".join(results.table()))
  sys.stdout.flush()
  results.write(folder, lambda text: print(text, file=sys.stderr))
  print("\n".join(results.listing(folder)), file=sys.stderr)
  return 1 if unreadable else 0


if __name__ == "__main__":
  exits.leave(main())
