"""Predicts the classes of images: `python -m bit_jax.predict RUN_OR_CHECKPOINT INPUTS`."""

if __name__ == "__main__":
  from bit_jax.runtime import exits

  exits.listen()

import argparse
import functools
import sys
from collections.abc import Callable, Sequence

import tqdm

from bit_jax.inference import command
from bit_jax.runtime import checks, clock, exits, files, imports, paths

_EXAMPLES = """examples:
  python -m bit_jax.predict runs/flowers photos/ cat.jpg
  python -m bit_jax.predict runs/flowers 'photos/**/*.jpg' --top=1 --sheet=sheet.png
  find photos -name '*.png' | python -m bit_jax.predict runs/flowers - --csv > predictions.csv

An image that can't be read is named on standard error; the exit status is then 1.
"""


def main(argv: Sequence[str] | None = None) -> int:
  """Prints the most probable classes of images; returns the exit status.

  Returns:
    0; 1 if an input has no image or one can't be read; 2 after a user error; 130 after Ctrl-C.
  """
  parser = command.parser("predict", "Prints the most probable classes of images.", _EXAMPLES)
  command.add_batch_size(parser)
  add = parser.add_argument
  add("inputs", nargs="+", metavar="INPUT", help=command.INPUTS)
  add("--top", type=int, default=5, metavar="K", help="classes of each image (default: 5)")
  form = parser.add_mutually_exclusive_group()
  form.add_argument("--json", action="store_true", help="print a line of JSON for each image")
  form.add_argument("--csv", action="store_true", help="print a row of CSV for each class")
  add("--sheet", type=paths.argument, metavar="FILE.png", help="draw images with their classes")
  args = parser.parse_intermixed_args(argv)
  return exits.run(lambda _: _run(args), [], needs_reader=args.sheet is None)


def _run(args: argparse.Namespace) -> int:
  checks.at_least("--top", args.top, 1)
  checks.at_least("--batch_size", args.batch_size, 1)
  # These import jax, for which --help doesn't wait.
  from bit_jax.data import stream
  from bit_jax.inference import inputs, outputs, predictions

  found = inputs.find(args.inputs, inputs.standard_input)
  images, failed = found.files, len(found.faults)
  if args.sheet is not None:
    imports.matplotlib()
    files.require_writable(args.sheet, "--sheet", ".png")
  network = command.load(args.network, size=args.size)
  command.remark(network, *found.remarks())
  on_terminal = sys.stdout.isatty()
  if args.csv:
    print(predictions.CSV_HEADER, end="")
  render: Callable[[predictions.Prediction, Sequence[str]], str] = functools.partial(
    predictions.as_text, width=predictions.width(images), bold=on_terminal
  )
  if args.json or args.csv:
    render = predictions.as_json if args.json else predictions.as_csv
  pace, shown, on_sheet = clock.Pace(), [], predictions.for_sheet(len(images))
  forward = outputs.Forward(network, args.batch_size)
  # On a terminal the predictions themselves show the progress.
  with stream.progress("Predicting", len(images), hidden=on_terminal) as bar:
    for i, made in enumerate(predictions.predict(forward, images, args.top, pace.add)):
      print(render(made, network.class_names), end="", flush=True)
      bar.update()
      if made.error is not None:
        tqdm.tqdm.write(made.error, file=sys.stderr)
        failed += 1
      elif i in on_sheet:
        shown.append(made)
  print(pace, file=sys.stderr)
  if args.sheet is not None and not shown:
    print(f"{args.sheet} is not written: no image can be read.", file=sys.stderr)
  elif args.sheet is not None:
    of = "" if len(shown) == len(images) else f"{len(shown)} of "
    title = f"{args.network}: {of}{len(images):,} images"
    predictions.draw(shown, network.class_names, args.sheet, title)
    print(f"{args.sheet} shows {of}{len(images):,} images.", file=sys.stderr)
  return 1 if failed else 0


if __name__ == "__main__":
  exits.leave(main())
