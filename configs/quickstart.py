"""A fine-tuning run of minutes on two CPU cores, offline, with a checkpoint from the package.

    python -m bit_jax.train --config=configs/quickstart.py
    python -m bit_jax.train --config=configs/quickstart.py:weights=none   # the same from scratch

The small network, pre-trained on CIFAR-100, learns scikit-learn's handwritten digits from five
images of each. Three things differ from the rule, so that it takes minutes on a laptop:
the resolution (the rule: 160 -> 128; the network was pre-trained at 48), the batch (512) and the
number of steps (500; warm-up and decays keep their place in it). The rest is the rule's.
"""

import ml_collections

from bit_jax.configs import base


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
  config = base.get_config(arg, dataset="digits", model="R14x0.5", shots=5)
  config.name = "quickstart"
  config.resize, config.crop = 56, 48
  config.batch_size = 64
  config.total_steps = 100
  config.reason = "it takes minutes on two CPU cores, at the size of the pre-training"
  return config
