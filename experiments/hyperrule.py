"""The rule against a small grid of learning rates and lengths, on held-out data.

    python -m experiments.sweep --config=experiments/hyperrule.py --out=runs/hyperrule
    python -m experiments.report runs/hyperrule

BiT-M-R50x1 on VTAB-1k tasks, trained on 800 images and evaluated on the other 200 (val200): the
rule, and around it three more learning rates and two more lengths. The tasks are one of each group
(natural, specialized, structured) and the two sets of small images. The paper's random search over
40 settings per task reached 78.72% with BiT-L, the rule 76.29% (mean of the 19 tasks; section 3.4
and appendix A).
"""

from collections.abc import Iterator

from bit_jax.configs import vtab
from experiments.sweeping import grid

MODEL = "BiT-M-R50x1"
TASKS = ("cifar100", "svhn", "oxford_iiit_pet", "resisc45", "clevr-count")
LEARNING_RATES = (0.001, 0.003, 0.01, 0.03)
STEPS = (250, 500, 1000)
SEEDS = range(3)


def get_runs() -> Iterator[grid.Run]:
  """Yields the runs, grouped by task."""
  for task in TASKS:
    for rate in LEARNING_RATES:
      for steps in STEPS:
        for seed in SEEDS:
          arguments = f"task={task},model={MODEL},preset=paper,protocol=select,seed={seed}"
          config = vtab.get_config(arguments)
          config.base_lr, config.total_steps = rate, steps
          yield grid.Run(grid.scored_at_the_end(config))
