"""Evidence that two CPU cores can give, from data at hand: real CIFAR-10 and CIFAR-100, R14x0.5.

    python -m experiments.sweep --config=experiments/offline.py --out=runs/offline
    python -m experiments.report runs/offline --out=experiments/offline_results

Some two hours, in as many sittings as it takes (`--jobs=2` gives each run a core). All runs follow
the reduced rule (`experiments/reduced.py`), but for the pre-training and for what is varied on
purpose, so none can be compared with a published number. What they ask is whether the paper's
points hold in the small. Does pre-training help, most of all where there are few examples, and on
more upstream data more? Is MixUp for larger sets? Are the rule's choices near the best of a grid?
`experiments/README.md` has the answers, which are not all yes.
"""

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
FEW_SEEDS = range(2)  # where a run takes minutes, or is one of a grid
LEARNING_RATES = (0.001, 0.003, 0.01, 0.03)
STEPS = (50, 100, 200)


class Start(NamedTuple):
  """How a network is initialised: in words, by a checkpoint's name, and by an earlier run."""

  label: str
  weights: str
  run: grid.Run | None = None


PRE_TRAINED = Start("pre-trained on CIFAR-100", "R14x0.5-CIFAR100")
SCRATCH = Start("random initialisation", "none")


def get_runs() -> Iterator[grid.Run]:
  """Yields the runs, what others start from first."""
  half = grid.Run(_half_of_the_pretraining(), SCRATCH.label)
  yield half
  starts = (PRE_TRAINED, Start("pre-trained on half of CIFAR-100", "none", half), SCRATCH)
  for shots in SHOTS:
    for start in starts:
      for seed in SUBSETS:
        yield _made(_cifar10(start, shots=shots, seed=seed), start)
  whole = [_made(_cifar10(start), start) for start in starts]
  yield from whole
  yield from _vtab(whole[-1])
  yield from _augmentation_and_presets()
  yield from _grid()
  yield from _mixup_of_all()


def _half_of_the_pretraining() -> Any:
  """The embedded checkpoint's own training, on half of its images: as many epochs, half the steps.

  So the paper compares its two public upstream sets, too: 90 epochs of either (3.3).
  """
  config = pretrain_mini.get_config("shots=250")
  config.total_steps //= 2
  config.warmup_steps //= 2
  config.decay_steps = tuple(step // 2 for step in config.decay_steps)
  return config


def _made(config: Any, start: Start) -> grid.Run:
  return grid.Run(config, start.label, start.run)


def _cifar10(start: Start = PRE_TRAINED, **arguments: Any) -> Any:
  return reduced.reduce(cifar10.get_config(_text(start, arguments)))


def _text(start: Start, arguments: dict[str, Any]) -> str:
  """Returns the argument of a config file."""
  return ",".join(
    f"{k}={v}" for k, v in {"model": MODEL, "weights": start.weights, **arguments}.items()
  )


def _vtab(on_cifar10: grid.Run) -> Iterator[grid.Run]:
  """CIFAR-100 as a task of VTAB-1k; the embedded checkpoint has seen its images and labels."""
  starts = (
    Start("pre-trained on CIFAR-10 (the run on all of it)", "none", on_cifar10),
    SCRATCH,
    PRE_TRAINED._replace(label="pre-trained on CIFAR-100 itself"),
  )
  for start in starts:
    for seed in SEEDS:
      arguments = {"task": "cifar100", "preset": "paper", "seed": seed}
      yield _made(reduced.reduce(vtab.get_config(_text(start, arguments))), start)


def _augmentation_and_presets() -> Iterator[grid.Run]:
  """What the rule says of 1,000 images, and otherwise: MixUp, crops, flips, other presets."""
  changes: list[dict[str, Any]] = [{"crop": False}, {"flip": False}, {"crop": False, "flip": False}]
  for seed in SEEDS:
    config = _cifar10(shots=100, seed=seed)
    config.mixup_alpha = hyperrule.MIXUP_ALPHA
    yield _made(config, PRE_TRAINED)
    for change in [*changes, {"preset": "paper"}]:
      yield _made(_cifar10(shots=100, seed=seed, **change), PRE_TRAINED)
  for seed in FEW_SEEDS:  # as many images as batches of 512 have, so eight times the steps
    yield _made(_cifar10(shots=100, seed=seed, preset="scaled"), PRE_TRAINED)


def _grid() -> Iterator[grid.Run]:
  """Learning rates and lengths around the reduced rule's, scored on held-out training images."""
  for rate in LEARNING_RATES:
    for steps in STEPS:
      for seed in FEW_SEEDS:
        config = _cifar10(shots=100, seed=seed, protocol="select")
        if steps != config.total_steps:
          config.reason = reduced.OTHER_LENGTH
        config.base_lr, config.total_steps = rate, steps
        yield _made(grid.scored_at_the_end(config), PRE_TRAINED)


def _mixup_of_all() -> Iterator[grid.Run]:
  """MixUp on (the rule) and off with all 50,000 images."""
  for seed in FEW_SEEDS:
    yield _made(_cifar10(seed=seed), PRE_TRAINED)
    config = _cifar10(seed=seed)
    config.mixup_alpha = 0.0
    yield _made(config, PRE_TRAINED)
