"""Oxford-IIIT Pet: 37 breeds, all 3,680 training images or a few of each breed.

    python -m bit_jax.train --config=configs/oxford_iiit_pet.py
    python -m bit_jax.train --config=configs/oxford_iiit_pet.py:model=BiT-M-R152x4,preset=paper

Published for BiT-M-R152x4 with preset=paper (paper, table 2): 94.46% on all images.
"""

import ml_collections

from bit_jax.configs import base


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
  return base.get_config(arg, dataset="oxford_iiit_pet")
