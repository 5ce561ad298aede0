"""`python -m bit_jax.train`, which sends itself a signal in a step.

    python -m experiments.reliability.signalled STEP SIGNAL --config=...

STEP counts from 1; 0 sends none.
"""

import os
import sys

from bit_jax import train
from bit_jax.data import order
from bit_jax.runtime import exits


def main(asked_in: int, number: int) -> int:
  """Runs the command with the arguments that are left, and returns its exit status."""
  original = order.mixup_lambda

  def mixup_lambda(seed: int, step: int, alpha: float) -> float:
    if step + 1 == asked_in:
      os.kill(os.getpid(), number)
    return original(seed, step, alpha)

  order.mixup_lambda = mixup_lambda
  return exits.run(train.main, ["train", *sys.argv[3:]], needs_reader=False)


if __name__ == "__main__":
  exits.leave(main(int(sys.argv[1]), int(sys.argv[2])))
