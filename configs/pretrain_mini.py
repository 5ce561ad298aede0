"""Pre-training of the checkpoint in the package: R14x0.5 on CIFAR-100, randomly initialised.

    python -m bit_jax.train --config=configs/pretrain_mini.py --workdir=runs/pretrain_mini

The rule doesn't cover pre-training, so every field is set: 12 epochs,
momentum SGD with a tenth of the rate after about 1/3, 2/3 and 8/9 of the steps (the paper's
upstream schedule in 3.3, at another length), images of 48 pixels. Its accuracy is in the model card
(`bit_jax/weights/assets/R14x0.5-CIFAR100.md`).
"""

import ml_collections

from bit_jax.configs import base


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
  config = base.get_config(arg, dataset="cifar100", model="R14x0.5")
  config.name = "pretrain_mini"
  config.weights = "none"
  config.resize, config.crop = 56, 48
  config.batch_size = 128
  config.total_steps = 4680
  config.base_lr = 0.1
  config.warmup_steps = 234
  config.decay_steps = (1560, 3120, 4160)
  config.mixup_alpha = 0.0
  config.reason = "this is pre-training, which the rule is not about"
  config.eval_every = 1560
  config.checkpoint_every = 390
  config.log_every = 78
  return config
