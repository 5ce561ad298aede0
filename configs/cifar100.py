"""CIFAR-100, all 50,000 training images or a few of each class.

    python -m bit_jax.train --config=configs/cifar100.py
    python -m bit_jax.train --config=configs/cifar100.py:model=BiT-M-R101x3,shots=5,seed=1

Published for BiT-M-R50x1 with preset=readme_128 (official README, JAX):
86.4% on all images, 64.8% at 5 shots and 35.2% at 1 shot (medians of at least 5 runs).
"""

import ml_collections

from bit_jax.configs import base


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
  return base.get_config(arg, dataset="cifar100")
