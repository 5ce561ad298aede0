"""What the embedded checkpoint brings: quickstart's digits, pre-trained against from scratch.

    python -m experiments.sweep --config=experiments/pretraining_gain.py --out=runs/pretraining_gain
    python -m experiments.report runs/pretraining_gain --out=experiments/pretraining_gain_results

`configs/quickstart.py` at its own 5 shots with five subsets, each from the embedded checkpoint and,
by the same recipe, from random initialisation: 10 runs of a minute or so on two CPU cores.
"""

from collections.abc import Iterator

from bit_jax.configs import quickstart
from experiments.sweeping import grid

SUBSETS = range(5)
STARTS = {"pre-trained on CIFAR-100": "R14x0.5-CIFAR100", "random initialisation": "none"}


def get_runs() -> Iterator[grid.Run]:
  """Yields the runs, a start's together."""
  for start, weights in STARTS.items():
    for seed in SUBSETS:
      config = quickstart.get_config(f"weights={weights},seed={seed}")
      yield grid.Run(grid.scored_at_the_end(config), start)
