"""tf_flowers with the recipe of Keras' example "Image Classification using BigTransfer (BiT)".

    python -m bit_jax.train --config=configs/tf_flowers.py

Images of 384 pixels, cropped to 224 in training and not cropped in the test; batch 64; boundaries
at 200, 300 and 400 although the run may last 4,000 steps; no warm-up. The run is evaluated every 10
steps, ends after two evaluations without a better one, and keeps the best weights. As in the
example, these evaluations use the test images; with protocol=select they use a held-out part of the
training images instead.

One thing differs: pixels are scaled to [-1, 1], as the official npz checkpoints expect them, where
TF-Hub's modules take [0, 1]. Published: a curve, no number.
"""

import ml_collections

from bit_jax.configs import base


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
  config = base.get_config(arg, dataset="tf_flowers")
  config.resize, config.crop, config.test_size = 384, 224, 384
  config.batch_size = 64
  config.base_lr = 0.003 * 64 / 512
  config.total_steps = 500 * 512 // 64
  config.warmup_steps = 0
  config.decay_steps = (200, 300, 400)
  config.mixup_alpha = 0.0
  config.reason = "this is the Keras example's recipe"
  config.eval_every = 10
  config.patience = 2
  config.keep_best = True
  config.checkpoint_every = 200  # writing the weights takes longer than 10 steps
  return config
