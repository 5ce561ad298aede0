"""Your own images, from a folder or a CSV; needs no TensorFlow.

    python -m bit_jax.data check ~/photos
    python -m bit_jax.train --config=configs/folder.py:path=~/photos
    python -m bit_jax.train --config=configs/folder.py:shots=10,seed=1,path=~/photos/labels.csv

The folder holds `<split>/<class>/*` (splits: train, test, val, also as in training_set or seg_test)
or `<class>/*`; without test and val a fifth of each class, the same for every run, is held out for
evaluation. With all three, val is trained on as well, unless keep_best or patience choose on it.
A CSV has the columns path (relative to the CSV, or absolute), label and, optionally,
split; any column whose values all name splits is accepted. JPEG, PNG, BMP, GIF, WebP.
Unreadable images stop the run with a list, or are left out with on_bad_image=skip.

Random crops and flips must not change the label. Turn them off where they do:
  counting (how many?): crop=False, since a crop cuts objects off;
  positions and distances (where? how far?): crop=False and flip=False;
  left and right (text, digits, road signs, hands, one side of a body): flip=False.
As in --config=configs/folder.py:crop=False,flip=False,path=~/photos.
"""

import os
import re

import ml_collections

from bit_jax import run_config
from bit_jax.configs import base
from bit_jax.runtime import arguments, paths


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
  on_bad_image = arguments.choice("stop", run_config.choices("on_bad_image"))
  config = base.get_config(arg, dataset="folder", path=True, on_bad_image=on_bad_image)
  if config.data_path is not None:
    last = os.path.basename(os.path.abspath(paths.named(config.data_path)))
    words = re.findall(r"[\w.-]+", re.sub(r"\.[ct]sv$", "", last), re.ASCII)
    config.name = "-".join(["folder", *words])
  return config
