"""Oxford Flowers-102, the 2,040 images of train and validation or a few of each class.

    python -m bit_jax.train --config=configs/oxford_flowers102.py
    python -m bit_jax.train --config=configs/oxford_flowers102.py:model=BiT-M-R152x4,preset=paper

Published for BiT-M-R152x4 with preset=paper (paper, table 2): 99.30% on all images.
"""

import ml_collections

from bit_jax.configs import base


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
  return base.get_config(arg, dataset="oxford_flowers102")
