"""`python -m bit_jax.probe RUN_OR_CHECKPOINT DATA`: few-shot accuracy of frozen features."""

if __name__ == "__main__":
  from bit_jax.runtime import exits

  exits.listen()

import argparse
import contextlib
import pathlib
import sys
from collections.abc import Sequence

from bit_jax.inference import command
from bit_jax.runtime import checks, errors, exits, files, paths

_EXAMPLES = """examples:
  python -m bit_jax.probe BiT-M-R50x1 photos               a folder, CSV or .npz file of your own
  python -m bit_jax.probe BiT-M-R50x1 cifar10 --seeds=10   a data set's name
  python -m bit_jax.probe BiT-M-R50x1 photos --curve       how much would more photographs help?

Fits linear models (ridge regression) to the frozen features of a few images per class: minutes on
a CPU. It is another metric than fine-tuning: don't compare the two. Features are kept in the cache.
"""


def main(argv: Sequence[str] | None = None) -> int:
  """Prints few-shot accuracies, or a learning curve with its forecast; returns the exit status.

  Returns:
    0; 1 if images can't be read; 2 after a user error; 130 after Ctrl-C.
  """
  description = "Measures the few-shot accuracy of linear models on a network's frozen features."
  parser = command.parser("probe", description, _EXAMPLES)
  command.add_batch_size(parser)
  add = parser.add_argument
  add("data", metavar="DATA", help="a folder, CSV or .npz file of images, or a data set's name")
  add("--shots", metavar="N,...", help="images per class (default: 1,5,10,25; a curve's: to all)")
  add("--seeds", type=int, metavar="N", help="subsets of each size (default: 5, with --curve 20)")
  add("--curve", action="store_true", help="fit a learning curve; forecast twice the images")
  add("--figure", type=paths.argument, metavar="FILE.png", help="the curve's (default: curve.png)")
  form = parser.add_mutually_exclusive_group()
  form.add_argument("--json", action="store_true", help="print one JSON object")
  form.add_argument("--csv", action="store_true", help="print a row of CSV for each size")
  add("--big_vision_crop", action="store_true", help="resize to 256 pixels, crop the central 224")
  add("--data_dir", metavar="DIR", help="where tensorflow-datasets keeps prepared sets")
  args = parser.parse_args(argv)
  return exits.run(lambda _: _run(args), [], needs_reader=not args.curve)


def _run(args: argparse.Namespace) -> int:
  shots = None if args.shots is None else _shots(args.shots)
  checks.in_range("--seeds", 1 if args.seeds is None else args.seeds, 1, 1000)
  checks.at_least("--batch_size", args.batch_size, 1)
  if args.figure and not args.curve:
    raise errors.UserError("--figure draws the curve: add --curve.")
  if args.big_vision_crop and args.size is not None:
    raise errors.UserError("--big_vision_crop sets the size to 224 pixels: leave out --size.")
  figure = args.figure or pathlib.Path("curve.png")
  if args.curve:
    files.require_writable(figure, "--figure", ".png")
  # These import jax, for which --help doesn't wait.
  from bit_jax.probe import features, probing, report

  settings = probing.Settings(
    data=args.data,
    data_dir=args.data_dir,
    shots=shots,
    num_seeds=args.seeds,
    curve=args.curve,
    cropped=args.big_vision_crop,
    batch_size=args.batch_size,
  )
  network = command.load(args.network, size=features.CROP if settings.cropped else args.size)
  command.remark(network)
  probe = probing.run(network, settings)
  form = report.as_json if args.json else report.as_csv if args.csv else report.as_text
  print(form(probe), flush=True)
  if args.curve:
    report.draw(probe, figure)
    print(f"{figure} shows the curve.", file=sys.stderr)
  return 1 if probe.unreadable else 0


def _shots(text: str) -> tuple[int, ...]:
  with contextlib.suppress(ValueError):
    shots = tuple(sorted({int(part) for part in text.split(",")}))
    if shots[0] >= 1:
      return shots
  raise errors.UserError(f"--shots={text} is no list of whole numbers such as 1,5,10.")


if __name__ == "__main__":
  exits.leave(main())
