"""Model sizes: all six released architectures on the same data, as in the paper's figure 5.

    python -m experiments.sweep --config=experiments/sizes.py --out=runs/sizes
    python -m experiments.report runs/sizes

CIFAR-10 and CIFAR-100, all images and five of each class with five subsets, from BiT-M (pre-trained
on ImageNet-21k) with the preset of the official README, which publishes 86.4% for R50x1, 91.2%
for R101x3 and 91.2% for R152x2 on all of CIFAR-100 (JAX).
"""

from collections.abc import Iterator

from bit_jax.configs import cifar10, cifar100
from experiments.sweeping import grid

ARCHITECTURES = ("R50x1", "R101x1", "R50x3", "R101x3", "R152x2", "R152x4")
SUBSETS = range(5)


def get_runs() -> Iterator[grid.Run]:
  """Yields the runs, from the smallest network to the largest."""
  for architecture in ARCHITECTURES:
    for module in (cifar10, cifar100):
      for subset in (*(f",shots=5,seed={s}" for s in SUBSETS), ""):
        config = module.get_config(f"model=BiT-M-{architecture},preset=readme_128{subset}")
        yield grid.Run(grid.scored_at_the_end(config))
