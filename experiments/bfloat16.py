"""The effect of training in bfloat16: the quickstart's digits in both number formats.

    python -m experiments.sweep --config=experiments/bfloat16.py --out=runs/bfloat16
    python -m experiments.report runs/bfloat16

`configs/quickstart.py` with three subsets, in float32 and in bfloat16: 6 runs of about a minute on
two CPU cores. `bfloat16.md` has the accuracies measured so, and the difference of the logits.
"""

from collections.abc import Iterator

from bit_jax.configs import quickstart
from experiments.sweeping import grid

SUBSETS = range(3)


def get_runs() -> Iterator[grid.Run]:
  """Yields the runs, grouped by number format."""
  for dtype in ("float32", "bfloat16"):
    for seed in SUBSETS:
      config = quickstart.get_config(f"seed={seed}")
      config.dtype = dtype
      yield grid.Run(grid.scored_at_the_end(config), dtype)
