"""A training step against PyTorch's and plain Flax's: images/s, FLOP utilisation, peak memory.

    python -m experiments.benchmarks.train_step [--full] [--torch_python PYTHON]

R152x4 is not among the CPU's cases: weights, gradients and velocities take 11 GB in each
implementation, and each lies in memory. `--cases R152x4@128x1 --peers flax` runs it where there is
room.
"""

import sys
from collections.abc import Sequence

from experiments.benchmarks import comparison

CASES = {
  "cpu": ("R50x1@128x16",),
  "cpu, full": ("R50x1@128x16", "R50x1@480x2", "R101x3@128x2"),
  "gpu": ("R50x1@128x512", "R50x1@480x64", "R101x3@128x128", "R152x4@128x64"),
}


def main(argv: Sequence[str]) -> None:
  """Runs the benchmark."""
  options = comparison.parser(__doc__, CASES).parse_args(argv)
  comparison.run("train_step", "training", options, CASES)


if __name__ == "__main__":
  main(sys.argv[1:])
