"""A training step against PyTorch's and plain Flax's: images/s, FLOP utilisation, peak memory.

    python -m experiments.benchmarks.train_step [--full] [--torch_python PYTHON]

R152x4 is not among the CPU cases: weights, gradients and velocities take 11 GB in each
implementation, and all are in memory at once. `--cases R152x4@128x1 --peers flax` measures it on a
machine with enough memory.
"""

from experiments.benchmarks import comparison

CASES = {
  "cpu": ("R50x1@128x16",),
  "cpu, full": ("R50x1@128x16", "R50x1@480x2", "R101x3@128x2"),
  "gpu": ("R50x1@128x512", "R50x1@480x64", "R101x3@128x128", "R152x4@128x64"),
}

if __name__ == "__main__":
  comparison.run("train_step", __doc__, CASES)
