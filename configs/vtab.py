"""VTAB-1k: any of its 19 tasks, from 1000 labelled images, evaluated on the whole test set.

    python -m bit_jax.train --config=configs/vtab.py:task=svhn
    python -m bit_jax.train --config=configs/vtab.py:task=clevr-count,model=BiT-M-R101x3
    python -m bit_jax.train --config=configs/vtab.py:task=dtd,protocol=select   # 800 and 200 images

Published is the mean of the 19 tasks' accuracies, none for a task alone:
BiT-M-R101x3 72.65% and BiT-M-R152x4 73.51% (official README; it does not say at which preset and
resolution), BiT-M-R152x4 70.64% with preset=paper (paper, table 2).

The resolution is the paper's unless resolution=code is given. Random crops and flips are off where
the paper leaves them out, since they change the label:
  no crop: clevr-count, clevr-distance, dmlab, dsprites-xpos, kitti-distance
    (an object may be cut off, a distance or a position changes);
  no flip: dsprites-xpos, dsprites-orientation, smallnorb-azimuth
    (a mirrored image shows another position or angle).
`crop=` and `flip=` set them otherwise.
"""

import ml_collections

from bit_jax.configs import base
from bit_jax.data import vtab
from bit_jax.runtime import arguments, errors


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
  task = arguments.Argument(None, lambda name: f"vtab/{vtab.find(name).name}")
  config = base.get_config(arg, task=task)
  if config.dataset is None:
    raise errors.UserError(
      "configs/vtab.py needs a task, as in --config=configs/vtab.py:task=svhn; the tasks are "
      f"{', '.join(vtab.TASKS)}."
    )
  config.name = config.dataset.replace("/", "-")
  return config
