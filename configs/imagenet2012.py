"""ImageNet (ILSVRC-2012), all 1,281,167 training images or a few of each class.

    python -m bit_jax.train --config=configs/imagenet2012.py
    python -m bit_jax.train --config=configs/imagenet2012.py:shots=5,seed=1

Scored on the 50,000 images of its validation set. Published, top-1:
BiT-M-R50x1 with preset=code (official README, PyTorch; a single run for each number of shots):
80.68% on all images, 50.64% at 5 shots and 18.36% at 1 shot;
BiT-M-R152x4 with preset=paper (paper, table 2): 85.39% on all images.
"""

import ml_collections

from bit_jax.configs import base


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
  return base.get_config(arg, dataset="imagenet2012")
