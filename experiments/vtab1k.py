"""VTAB-1k: 19 tasks of 1,000 images, three runs each, as in the paper's 4.1 and table 1.

    python -m experiments.sweep --config=experiments/vtab1k.py --out=runs/vtab1k
    python -m experiments.report runs/vtab1k

The mean accuracy of the 19 tasks is published, none of a task: BiT-M-R101x3 72.65 % and
BiT-M-R152x4 73.51 % (official README, at a preset and resolution it doesn't name), BiT-M-R152x4
70.64 % (paper, table 2). By the paper's rule, at its resolution.
"""

from collections.abc import Iterator

from bit_jax.configs import vtab as config_file
from bit_jax.data import vtab
from experiments.sweeping import grid

MODELS = ("BiT-M-R50x1", "BiT-M-R101x3", "BiT-M-R152x4")
SEEDS = range(3)


def get_runs() -> Iterator[grid.Run]:
  """Yields the runs, a network's together."""
  for model in MODELS:
    for task in vtab.TASKS:
      for seed in SEEDS:
        arguments = f"task={task},model={model},preset=paper,seed={seed}"
        config = config_file.get_config(arguments)
        yield grid.Run(grid.scored_at_the_end(config))
