"""Classification against PyTorch's and plain Flax's, one image at a time and many: images/s.

    python -m experiments.benchmarks.inference [--full] [--torch_python PYTHON]

Ours standardises its kernels once, ahead; the others do it for each batch, as their authors wrote
them.
"""

import sys
from collections.abc import Sequence

from experiments.benchmarks import comparison

CASES = {
  "cpu": ("R50x1@128x1", "R50x1@128x32"),
  "cpu, full": ("R50x1@128x1", "R50x1@128x32", "R50x1@480x4", "R101x3@128x4"),
  "gpu": ("R50x1@128x1", "R50x1@128x1024", "R50x1@480x128", "R152x4@128x256"),
}


def main(argv: Sequence[str]) -> None:
  """Runs the benchmark."""
  options = comparison.parser(__doc__, CASES).parse_args(argv)
  comparison.run("inference", "inference", options, CASES)


if __name__ == "__main__":
  main(sys.argv[1:])
