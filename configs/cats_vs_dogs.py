"""Cats vs Dogs with the recipe of the Qiita article "BigTransfer (BiT) Fine Tuning".

    python -m bit_jax.train --config=configs/cats_vs_dogs.py

Batch 64 with as many images seen as in the rule (preset=scaled: steps and boundaries times 512/64,
learning rate times 64/512), no warm-up; resolution and MixUp are the rule's. The last tenth of the
23,262 images is the test set; the article names no split, and this one leaves the more than 20,000
training images above which the rule uses MixUp. Published: no number.

Images of unusual size are left out: with a side below 32 pixels, or more than four times as long
as wide, an image resized to a square of 512 pixels is not recognisable. `--config.min_side=0
--config.max_aspect=0` keeps them.
"""

import ml_collections

from bit_jax import hyperrule
from bit_jax.configs import base
from bit_jax.runtime import arguments


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
  preset = arguments.choice("scaled", hyperrule.PRESETS)
  config = base.get_config(arg, dataset="cats_vs_dogs", preset=preset)
  config.batch_size = 64
  config.warmup_steps = 0
  config.reason = "this is the Qiita article's recipe"
  config.min_side = 32
  config.max_aspect = 4.0
  return config
