"""For a GPU: R50x1 pre-trained on CIFAR-100, then CIFAR-10 at the full HyperRule.

    python -m experiments.sweep --config=experiments/upstream_cifar100.py --dry_run
    python -m experiments.sweep --config=experiments/upstream_cifar100.py --out=runs/upstream
    python -m experiments.report runs/upstream

It was never run, because no GPU was available. It would show whether pre-training helps at the size
and length of the full rule (`offline.py` uses a reduced rule), and how fast a card trains: the
report and each run's `result.json` hold the images per second.

R50x1 is trained on CIFAR-100 from random initialisation, and then on CIFAR-10 from these weights
and from random ones: ten images of each class with five subsets, and all images once. The rule is
unchanged: 160 -> 128 pixels, batches of 512, 500 and 10,000 steps. On a GPU the dtype is bfloat16
(`dtype=auto`). The 13 runs take 17 million images: by `--dry_run` 139 PFLOP and 6.1 GB of disk.
`cost.md` has the hours (R50x1 at 128 pixels); two CPU cores would take more than three weeks.

The pre-training follows the paper's for ILSVRC-2012 (section 3.3) in epochs: 90, a tenth of the
rate after 30, 60 and 80, a rate of 0.03 per 256 images of a batch, a linear warm-up of 5,000 of its
28,000 steps (16 epochs), momentum 0.9, no MixUp. It differs in the batch (512 instead of 4,096), in
the images (the rule's 160 -> 128 pixels, crops and flips instead of inception crops of 224) and in
the missing weight decay (1e-4), which the trainer doesn't support. So its accuracy can't be
compared with a published one.
"""

from collections.abc import Iterator
from typing import Any

from bit_jax.configs import cifar10, cifar100
from experiments.sweeping import grid

MODEL = "R50x1"
EPOCHS, WARMUP, DECAYS = 90, 16, (30, 60, 80)
BATCH_SIZE = 512
LEARNING_RATE = 0.03 * BATCH_SIZE / 256
NUM_TRAIN = 50_000
SHOTS, SUBSETS = 10, range(5)


def get_runs() -> Iterator[grid.Run]:
  """Yields the runs, the pre-training first."""
  upstream = grid.Run(_pretraining(), "random initialisation")
  yield upstream
  starts = (("pre-trained on CIFAR-100", upstream), ("random initialisation", None))
  for start, run in starts:
    for arguments in (*(f",shots={SHOTS},seed={seed}" for seed in SUBSETS), ""):
      config = cifar10.get_config(f"model={MODEL},weights=none{arguments}")
      yield grid.Run(grid.scored_at_the_end(config), start, run)


def _pretraining() -> Any:
  config = cifar100.get_config(f"model={MODEL},weights=none")
  config.name = "upstream_cifar100"
  config.batch_size = BATCH_SIZE
  config.total_steps = _steps(EPOCHS)
  config.base_lr = LEARNING_RATE
  config.warmup_steps = _steps(WARMUP)
  config.decay_steps = tuple(_steps(epoch) for epoch in DECAYS)
  config.checkpoint_every = grid.checkpoint_every(config.total_steps)
  config.mixup_alpha = 0.0
  config.reason = "this is pre-training, which the rule is not about"
  return config


def _steps(epochs: int) -> int:
  return epochs * NUM_TRAIN // BATCH_SIZE
