"""The gain from the embedded checkpoint: the quickstart's digits, pre-trained and from scratch.

    python -m experiments.sweep --config=experiments/pretraining_gain.py --out=runs/pretraining_gain
    python -m experiments.report runs/pretraining_gain --out=experiments/pretraining_gain_results

`configs/quickstart.py` with its 5 shots and five subsets, each from the embedded checkpoint and,
with the same recipe, from random initialisation: 10 runs of about a minute on two CPU cores.
"""

from collections.abc import Iterator

from bit_jax.configs import quickstart
from experiments.sweeping import grid

SUBSETS = range(5)
STARTS = {"pre-trained on CIFAR-100": "R14x0.5-CIFAR100", "random initialisation": "none"}


def get_runs() -> Iterator[grid.Run]:
  """Yields the runs, grouped by initialisation."""
  for start, weights in STARTS.items():
    for seed in SUBSETS:
      config = quickstart.get_config(f"weights={weights},seed={seed}")
      yield grid.Run(grid.scored_at_the_end(config), start)
