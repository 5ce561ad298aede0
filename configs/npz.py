"""Your own arrays, from one `.npz` file; needs no TensorFlow.

    python -m bit_jax.train --config=configs/npz.py:shots=10,path=images.npz

The file holds `train_images` and `test_images` ([N, H, W, 3] or grey [N, H, W], uint8),
`train_labels` and `test_labels` ([N] or [N, 1], 0 to classes - 1) and, optionally, `class_names`.
Images of `val_images` with `val_labels` are never trained on: protocol=select evaluates them, and
keep_best and patience choose on them.
Set `--config.random_flip=False` where a mirrored image is another class,
`--config.random_crop=False` where a crop can change the label (counting, positions).
"""

import ml_collections

from bit_jax.configs import base


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
  return base.get_config(arg, dataset="npz", path=True)
