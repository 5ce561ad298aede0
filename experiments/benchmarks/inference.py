"""Classification against PyTorch's and plain Flax's, in batches of one and of many: images/s.

    python -m experiments.benchmarks.inference [--full] [--torch_python PYTHON]

Ours standardises its kernels once; the others do it for each batch, as their authors wrote them.
"""

from experiments.benchmarks import comparison

CASES = {
  "cpu": ("R50x1@128x1", "R50x1@128x32"),
  "cpu, full": ("R50x1@128x1", "R50x1@128x32", "R50x1@480x4", "R101x3@128x4"),
  "gpu": ("R50x1@128x1024", "R50x1@480x128", "R50x1@128x1", "R152x4@128x256"),
}

if __name__ == "__main__":
  comparison.run("inference", __doc__, CASES)
