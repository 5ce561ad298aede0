"""Computes features of images: `python -m bit_jax.embed RUN_OR_CHECKPOINT INPUTS --out=FILE`."""

if __name__ == "__main__":
  from bit_jax.runtime import exits

  exits.listen()

import argparse
from collections.abc import Sequence

from bit_jax.inference import command
from bit_jax.runtime import checks, exits, files, paths

_EXAMPLES = """examples:
  python -m bit_jax.embed runs/flowers photos/ cat.jpg --out=photos.npz
  python -m bit_jax.embed runs/flowers --path=flowers/ --out=flowers.npz    with labels
  python -m bit_jax.embed runs/flowers --split=train --out=train.npz        the run's own images
  python -m bit_jax.embed BiT-M-R50x1 --config=configs/cifar10.py --split=train --out=train.npz

Interrupted work continues with the same command. An image that can't be read is named on standard
error and left out; the exit status is then 1.
"""


def main(argv: Sequence[str] | None = None) -> int:
  """Writes the pre-logits of images to an .npz file; returns the exit status.

  Returns:
    0; 1 if an input has no image or one can't be read; 2 after a user error; 130 after Ctrl-C.
  """
  parser = command.parser("embed", "Computes pre-logits of images.", _EXAMPLES)
  command.add_batch_size(parser)
  command.add_labelled(parser)
  add = parser.add_argument
  add("inputs", nargs="*", metavar="INPUT", help=f"images without labels: {command.INPUTS}")
  add("--out", required=True, type=paths.argument, metavar="FILE.npz", help="the file to write")
  add("--dtype", choices=("float32", "float16"), default="float32", help="of the features")
  args, config = command.parse_labelled(parser, argv)
  if args.inputs and (args.path or args.config or args.split):
    parser.error("give either INPUT or --path, --config and --split, not both")
  return exits.run(lambda _: _run(args, config), [], needs_reader=False)


def _run(args: argparse.Namespace, config: Sequence[str]) -> int:
  checks.at_least("--batch_size", args.batch_size, 1)
  # These import jax, for which --help doesn't wait.
  from bit_jax.inference import embedded_images, embedding, evaluated_data, inputs

  files.require_writable(args.out, "--out", ".npz")
  request = command.request(config)
  found = inputs.find(args.inputs, inputs.standard_input) if args.inputs else None
  network = command.load(args.network, size=args.size)
  if found is not None:
    images, origin = embedded_images.of_files(found, network.size), None
  else:
    chosen = evaluated_data.choose(
      network, split=args.split, path=args.path, request=request, size=args.size, matched=False
    )
    images = embedded_images.of_part(chosen.data, chosen.selection, chosen.part)
    network, origin = chosen.sized(network), chosen.data.origin
  command.remark(network, origin, *images.remarks)
  computed = embedding.write(
    args.out, network, images, batch_size=args.batch_size, dtype=args.dtype
  )
  print(f"{args.out}: {embedding.describe(computed, images)}")
  return 1 if computed.unreadable or (found is not None and found.faults) else 0


if __name__ == "__main__":
  exits.leave(main())
