"""Few-shot transfer, as in the paper's figures 1 and 2 and the official README's CIFAR table.

    python -m experiments.sweep --config=experiments/fewshot.py --out=runs/fewshot
    python -m experiments.report runs/fewshot

CIFAR-10, CIFAR-100 and ILSVRC-2012 with 1, 5, 10, 25 and 100 images of each class, Pets with up to
25 and Flowers with up to 10, each with five random subsets; then all images, once. Two networks, by
the paper's rule, and on the CIFAR sets also with the preset of the official README, which publishes
these medians (JAX): BiT-M-R50x1 on CIFAR-10 54.1% (1 shot), 82.4% (5 shots), 97.3% (all), on
CIFAR-100 35.2, 64.8 and 86.4%.
"""

from collections.abc import Iterator

from bit_jax.configs import cifar10, cifar100, imagenet2012, oxford_flowers102, oxford_iiit_pet
from experiments.sweeping import grid

MODELS = ("BiT-M-R50x1", "BiT-M-R101x3")
SUBSETS = range(5)
CIFAR = ((cifar10, (1, 5, 10, 25, 100)), (cifar100, (1, 5, 10, 25, 100)))
OTHERS = (
  (imagenet2012, (1, 5, 10, 25, 100)),
  (oxford_iiit_pet, (1, 5, 10, 25)),
  (oxford_flowers102, (1, 5, 10)),
)


def get_runs() -> Iterator[grid.Run]:
  """Yields the runs, grouped by data set and preset."""
  for preset, sets in (("readme_128", CIFAR), ("paper", CIFAR + OTHERS)):
    for module, shots in sets:
      for model in MODELS:
        setting = f"model={model},preset={preset}"
        few = [f"{setting},shots={k},seed={s}" for k in shots for s in SUBSETS]
        for arguments in [*few, setting]:
          config = module.get_config(arguments)
          yield grid.Run(grid.scored_at_the_end(config))
