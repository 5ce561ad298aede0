"""Evaluates a network: `python -m bit_jax.evaluate RUN_OR_CHECKPOINT`."""

if __name__ == "__main__":
  from bit_jax.runtime import exits

  exits.listen()

import argparse
import json
import sys
from collections.abc import Sequence

from bit_jax.inference import command
from bit_jax.runtime import checks, exits, paths

_EXAMPLES = """examples:
  python -m bit_jax.evaluate runs/flowers                        the run's own test part
  python -m bit_jax.evaluate runs/flowers --split=train          its training images, unaugmented
  python -m bit_jax.evaluate runs/flowers --path=more_photos     other images, a folder per class
  python -m bit_jax.evaluate BiT-M-R50x1-CIFAR10 --config=configs/cifar10.py --json

Tables and pictures go to RUN/evaluation-IMAGES, those of a checkpoint to
./evaluation/CHECKPOINT/IMAGES. The exit status is 1 if images could not be read.
"""


def main(argv: Sequence[str] | None = None) -> int:
  """Prints accuracy, calibration and a table of classes, and writes tables and pictures.

  Returns:
    The exit status: 0; 1 if images could not be read; 2 after a user error; 130 after Ctrl-C.
  """
  description = "Evaluates a network on labelled images: accuracy, calibration, mistakes."
  parser = command.parser("evaluate", description, _EXAMPLES)
  command.add_batch_size(parser, default=None)
  command.add_labelled(parser)
  add = parser.add_argument
  add("--out", type=paths.argument, metavar="DIR", help="folder for tables and pictures")
  add("--json", action="store_true", help="print one JSON object")
  args, config = command.parse_labelled(parser, argv)
  return exits.run(lambda _: _run(args, config), [], needs_reader=False)


def _run(args: argparse.Namespace, config: Sequence[str]) -> int:
  if args.batch_size is not None:
    checks.at_least("--batch_size", args.batch_size, 1)
  # These import jax, for which --help doesn't wait.
  from bit_jax.data import stream
  from bit_jax.inference import evaluated_data, evaluation, evaluation_results

  request = command.request(config)
  network = command.load(args.network, size=args.size)
  chosen = evaluated_data.choose(
    network, split=args.split, path=args.path, request=request, size=args.size
  )
  folder = args.out or evaluated_data.default_folder(network, chosen)
  evaluated_data.require_folder(folder, chosen.images)
  network = chosen.sized(network)
  command.remark(network, chosen.data.origin)
  loaded, unreadable = chosen.load()
  warnings = [
    *loaded.warnings,
    *filter(None, [evaluated_data.trained_on(network, chosen)]),
    *unreadable,
  ]
  for text in warnings:
    print(f"warning: {text}", file=sys.stderr)
  with stream.progress("Evaluating", len(loaded.part)) as bar:
    batch_size = args.batch_size or chosen.batch_size
    found = evaluation.evaluate_part(
      network.model, network.params, network.size, loaded, batch_size, bar.update
    )
  results = evaluation_results.Results(network, network.size, chosen.title, loaded, found)
  if args.json:
    more = {"unreadable": unreadable, "warnings": warnings, "folder": str(folder)}
    print(json.dumps({**results.as_json(), **more}, indent=2))
  else:
    print("\n".join(results.table()))
  sys.stdout.flush()
  evaluated_data.open_folder(folder)
  results.write(folder, lambda text: print(text, file=sys.stderr))
  print("\n".join(results.listing(folder)), file=sys.stderr)
  return 1 if unreadable else 0


if __name__ == "__main__":
  exits.leave(main())
