"""The reduced rule: BiT-HyperRule scaled down for a grid of runs on two CPU cores.

It uses images of 56 pixels cropped to 48, the size at which the embedded network was pre-trained
(the rule: 160 and 128), batches of 64 (512), and a fifth of the steps: 100 and 2,000 (500 and
10,000), with warm-up and decays at the same fractions. The learning rate, the decays, MixUp and the
augmentation are the rule's. The steps of a run take 6,400 or 128,000 images instead of 256,000 or
5,120,000.
"""

from typing import Any

from bit_jax import hyperrule, run_config
from experiments.sweeping import grid

RESIZE, CROP, BATCH_SIZE = 56, 48, 64
SHORTER = 5  # times
_SIZES = f"reduced rule: {RESIZE} -> {CROP} pixels, batch {BATCH_SIZE}"
REASON = f"{_SIZES}, a fifth of the steps"
OTHER_LENGTH = f"{_SIZES}; steps varied"  # for runs that vary the length


def reduce(config: Any) -> Any:
  """Returns the config with the reduced rule's sizes, batch and steps instead of its preset's.

  Args:
    config: A request with the fields of `run_config.RunConfig`, with a data set; changed in place.
  """
  spec = run_config.prepare(config)[1].spec
  rule = hyperrule.schedule(config.preset, run_config.num_examples(config, spec), BATCH_SIZE)
  config.resize, config.crop = RESIZE, CROP
  config.batch_size = BATCH_SIZE
  config.total_steps = rule.total_steps // SHORTER
  config.reason = REASON
  return grid.scored_at_the_end(config)
