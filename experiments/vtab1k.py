"""VTAB-1k: 19 tasks of 1,000 images, three runs each, as in the paper's section 4.1 and table 1.

    python -m experiments.sweep --config=experiments/vtab1k.py --out=runs/vtab1k
    python -m experiments.report runs/vtab1k

Only the mean accuracy of the 19 tasks is published: 72.65% for BiT-M-R101x3 and 73.51% for
BiT-M-R152x4 (official README, which names neither preset nor resolution), 70.64% for BiT-M-R152x4
(paper, table 2). The runs use the paper's rule and resolution.
"""

from collections.abc import Iterator

from bit_jax.configs import vtab as config_file
from bit_jax.data import vtab
from experiments.sweeping import grid

MODELS = ("BiT-M-R50x1", "BiT-M-R101x3", "BiT-M-R152x4")
SEEDS = range(3)


def get_runs() -> Iterator[grid.Run]:
  """Yields the runs, grouped by network."""
  for model in MODELS:
    for task in vtab.TASKS:
      for seed in SEEDS:
        arguments = f"task={task},model={model},preset=paper,seed={seed}"
        config = config_file.get_config(arguments)
        yield grid.Run(grid.scored_at_the_end(config))
