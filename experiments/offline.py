"""Experiments for two CPU cores: R14x0.5 on CIFAR-10 and CIFAR-100.

    python -m experiments.sweep --config=experiments/offline.py --out=runs/offline
    python -m experiments.report runs/offline --out=experiments/offline_results

The sweep takes about two hours and can be stopped and resumed (`--jobs=2` gives each run a core).
All runs follow the reduced rule (`experiments/reduced.py`), except for the pre-training and the
setting that a comparison varies, so none can be compared with a published number. They test four
claims of the paper on a small scale: pre-training helps, most with few examples; more upstream data
helps more; MixUp helps larger sets; the rule is close to the best of a grid. The results
(`experiments/README.md`) confirm the first two. MixUp made no difference, and the reduced rule was
far from the best of the grid.
"""

import types
from collections.abc import Iterator
from typing import Any, NamedTuple

from bit_jax import hyperrule
from bit_jax.configs import cifar10, pretrain_mini, vtab
from experiments import reduced
from experiments.sweeping import grid

MODEL = "R14x0.5"
SHOTS = (1, 5, 10, 25, 100)
SUBSETS = range(5)
SEEDS = range(3)
FEW_SEEDS = range(2)  # for runs of minutes, or of a grid
LEARNING_RATES = (0.001, 0.003, 0.01, 0.03)
STEPS = (50, 100, 200)


class Start(NamedTuple):
  """The initialisation of a network: a label, a checkpoint's name, and an earlier run."""

  label: str
  weights: str
  run: grid.Run | None = None


PRE_TRAINED = Start("pre-trained on CIFAR-100", "R14x0.5-CIFAR100")
SCRATCH = Start("random initialisation", "none")


def get_runs() -> Iterator[grid.Run]:
  """Yields the runs, each after the one that it starts from."""
  half = grid.Run(_half_of_the_pretraining(), SCRATCH.label)
  yield half
  starts = (PRE_TRAINED, Start("pre-trained on half of CIFAR-100", "none", half), SCRATCH)
  for shots in SHOTS:
    for start in starts:
      for seed in SUBSETS:
        yield _run(start, shots=shots, seed=seed)
  whole = [_run(start) for start in starts]
  yield from whole
  yield from _vtab(whole[-1])
  yield from _augmentation_and_presets()
  yield from _grid()
  yield from _mixup_of_all()


def _half_of_the_pretraining() -> Any:
  """Returns the embedded checkpoint's training on half of its images, for as many epochs.

  The paper also compares its two public upstream sets at 90 epochs each (section 3.3).
  """
  config = pretrain_mini.get_config("shots=250")
  config.total_steps //= 2
  config.warmup_steps //= 2
  config.decay_steps = tuple(step // 2 for step in config.decay_steps)
  return config


def _run(
  start: Start = PRE_TRAINED, *, configs: types.ModuleType = cifar10, **arguments: Any
) -> grid.Run:
  """Returns a run by the reduced rule, from the arguments of its config file."""
  arguments = {"model": MODEL, "weights": start.weights, **arguments}
  config = configs.get_config(",".join(f"{k}={v}" for k, v in arguments.items()))
  return grid.Run(reduced.reduce(config), start.label, start.run)


def _vtab(on_cifar10: grid.Run) -> Iterator[grid.Run]:
  """Yields CIFAR-100 as a VTAB-1k task; the embedded checkpoint was trained on its images."""
  starts = (
    Start("pre-trained on CIFAR-10 (the run on all of it)", "none", on_cifar10),
    SCRATCH,
    PRE_TRAINED._replace(label="pre-trained on CIFAR-100 itself"),
  )
  for start in starts:
    for seed in SEEDS:
      yield _run(start, configs=vtab, task="cifar100", preset="paper", seed=seed)


def _augmentation_and_presets() -> Iterator[grid.Run]:
  """Yields variants of the rule for 1,000 images: MixUp, crops, flips, other presets."""
  for seed in SEEDS:
    mixed = _run(shots=100, seed=seed)
    mixed.config.mixup_alpha = hyperrule.MIXUP_ALPHA
    yield mixed
    yield _run(shots=100, seed=seed, crop=False)
    yield _run(shots=100, seed=seed, flip=False)
    yield _run(shots=100, seed=seed, crop=False, flip=False)
    yield _run(shots=100, seed=seed, preset="paper")
  for seed in FEW_SEEDS:  # as many images as with batches of 512: eight times the steps
    yield _run(shots=100, seed=seed, preset="scaled")


def _grid() -> Iterator[grid.Run]:
  """Yields learning rates and lengths around the reduced rule's, on held-out training images."""
  for rate in LEARNING_RATES:
    for steps in STEPS:
      for seed in FEW_SEEDS:
        run = _run(shots=100, seed=seed, protocol="select")
        if steps != run.config.total_steps:
          run.config.reason = reduced.OTHER_LENGTH
        run.config.base_lr, run.config.total_steps = rate, steps
        grid.scored_at_the_end(run.config)
        yield run


def _mixup_of_all() -> Iterator[grid.Run]:
  """Yields runs on all 50,000 images with MixUp (the rule) and without."""
  for seed in FEW_SEEDS:
    yield _run(seed=seed)
    plain = _run(seed=seed)
    plain.config.mixup_alpha = 0.0
    yield plain
