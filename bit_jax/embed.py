"""Computes features of images: `python -m bit_jax.embed RUN_OR_CHECKPOINT INPUT... --out=FILE`."""

import argparse
import dataclasses
import shutil
import sys
from collections.abc import Sequence

from bit_jax.runtime import checks, command_line, exits, files, paths

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
  parser = command_line.network_parser("embed", "Computes pre-logits of images.", _EXAMPLES)
  add = parser.add_argument
  add("inputs", nargs="*", metavar="INPUT", help=f"images without labels: {command_line.INPUTS}")
  where = parser.add_mutually_exclusive_group()
  where.add_argument("--path", metavar="PATH", help="labelled images: a folder, CSV or .npz")
  where.add_argument("--config", metavar="FILE", help="a data set's config, FILE[:key=value,...]")
  add("--split", metavar="PART", help="test, train or val; of tfds sets any split, as train[:10%%]")
  add("--out", required=True, type=paths.argument, metavar="FILE.npz", help="the file to write")
  add("--dtype", choices=("float32", "float16"), default="float32", help="of the features")
  args, fields = parser.parse_known_intermixed_args(argv)
  if unknown := [a for a in fields if not (args.config and a.startswith("--config."))]:
    parser.error(f"unrecognized arguments: {' '.join(unknown)}")
  if args.inputs and (args.path or args.config or args.split):
    parser.error("give either INPUT or --path, --config and --split, not both")
  return exits.run(lambda _: _run(args, fields), [], needs_reader=False)


def _run(args: argparse.Namespace, fields: Sequence[str]) -> int:
  checks.at_least("--batch_size", args.batch_size, 1)
  # These import jax, for which --help doesn't wait.
  from absl import flags

  from bit_jax.inference import embedded_images, embedding, evaluated_data, inputs, networks
  from bit_jax.runtime import compile_cache, config_flags

  files.require_writable(args.out, "--out")
  config = [f"--config={args.config}"] if args.config is not None else []
  request = config_flags.parse(flags.FlagValues(), ["embed", *config, *fields])
  found = inputs.find(args.inputs, inputs.standard_input) if args.inputs else None
  network = networks.load(args.network, size=args.size)
  if found is not None:
    images = embedded_images.of_files(found)
  else:
    chosen = evaluated_data.choose(
      network, split=args.split, path=args.path, request=request, size=args.size, matched=False
    )
    images = embedded_images.of_part(chosen.data, chosen.selection, chosen.part)
    network = dataclasses.replace(network, size=chosen.size)
  for text in (*network.remarks, *images.remarks, *filter(None, [compile_cache.keep()])):
    print(text, file=sys.stderr)
  place = args.out.with_name(f".{args.out.name}.partial")
  computed = embedding.with_progress(
    network, images, place, batch_size=args.batch_size, dtype=args.dtype
  )
  for reason in computed.unreadable.values():
    print(reason, file=sys.stderr)
  embedding.save(args.out, network, computed, images)
  shutil.rmtree(place)
  print(f"{args.out}: {embedding.describe(computed, images)}")
  return 1 if computed.unreadable or (found is not None and found.faults) else 0


if __name__ == "__main__":
  exits.leave(main())
