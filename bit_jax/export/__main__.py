"""`python -m bit_jax.export RUN_OR_CHECKPOINT --to=FORMAT`: a network in another format."""

if __name__ == "__main__":
  from bit_jax.runtime import exits

  exits.listen()

import argparse
import pathlib
import shlex
import sys
from collections.abc import Sequence

from bit_jax.inference import command
from bit_jax.runtime import exits, paths

_FORMATS = ("npz", "safetensors", "onnx", "savedmodel", "stablehlo")
_DESCRIPTION = """Writes a network with its class names and a model card to a new folder.

formats:
  npz          bit_jax and the official code: the commands take the folder like a run folder
  safetensors  PyTorch: a folder for timm and one for transformers
  onnx         ONNX, with preprocessing: onnxruntime, TensorRT, OpenVINO and others
  savedmodel   TensorFlow, with preprocessing
  stablehlo    programs of jax.export, with preprocessing, for CPU, CUDA and TPU
"""
_EXAMPLES = """examples:
  python -m bit_jax.export runs/flowers --to=onnx
  python -m bit_jax.export runs/flowers --to=safetensors --out=flowers-torch
  python -m bit_jax.export BiT-M-R50x1-ILSVRC2012 --to=savedmodel --size=224

Exports are float32. If the library that loads the format is installed, the written files are
loaded with it and compared with the network.
"""


def main(argv: Sequence[str] | None = None) -> int:
  """Writes one export; returns the exit status: 0, 2 after a user error, 130 after Ctrl-C."""
  parser = command.parser("export", _DESCRIPTION, _EXAMPLES)
  add = parser.add_argument
  add("--to", required=True, choices=_FORMATS, metavar="FORMAT", help=", ".join(_FORMATS))
  add("--out", type=paths.argument, metavar="FOLDER", help="default: exports/<name>-<format>")
  args = parser.parse_args(argv)
  words = sys.argv[1:] if argv is None else argv
  line = shlex.join(["python", "-m", "bit_jax.export", *words])
  return exits.run(lambda _: _run(args, line), [], needs_reader=False)


def _run(args: argparse.Namespace, line: str) -> int:
  # These import jax, for which --help doesn't wait.
  from bit_jax.export import cards, formats, writing
  from bit_jax.runtime import numerics

  name = cards.short_name(args.network)
  folder = args.out or pathlib.Path("exports", f"{name}-{args.to}")
  writing.require_new(folder)
  network = command.load(args.network, size=args.size, dtype="float32")
  command.remark(network)
  print(f"Writing {name} to {folder}.", file=sys.stderr)
  with numerics.fixed():
    written = writing.write(network, formats.FORMATS[args.to], folder, line)
  for one in written:
    print(writing.report(one))
  return 0


if __name__ == "__main__":
  exits.leave(main())
