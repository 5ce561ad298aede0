"""What the embedded checkpoint brings: quickstart's digits, pre-trained against from scratch.

    python -m experiments.pretraining_gain [OUT_FOLDER]

Runs `configs/quickstart.py` at its own 5 shots with 5 seeds (5 subsets), each from the embedded
checkpoint and, by the same recipe, from random initialisation: 10 runs. A finished run is not run
again. Prints the table, and writes it to `pretraining_gain.md` beside this file.
"""

import pathlib
import sys
from collections.abc import Sequence

import numpy as np

from bit_jax import commands, trainer
from configs import quickstart

SHOTS, SEEDS = (5,), range(5)
STARTS = {"pre-trained": "R14x0.5-CIFAR100", "from scratch": "none"}


def main(argv: Sequence[str]) -> None:
  """Runs what is missing and writes the table."""
  out = pathlib.Path(argv[1] if len(argv) > 1 else "runs/pretraining_gain")
  top1 = {
    (start, shots): [_run(out, weights, shots, seed) for seed in SEEDS]
    for shots in SHOTS
    for start, weights in STARTS.items()
  }
  table = format_table(top1)
  (pathlib.Path(__file__).parent / "pretraining_gain.md").write_text(table)
  print(table)


def format_table(top1: dict[tuple[str, int], list[float]]) -> str:
  """Returns a Markdown table: mean and range over the seeds, and the difference of the means.

  Args:
    top1: Accuracies in [0, 1] of each seed, by start and shots.
  """
  first = next(iter(top1.values()))
  lines = [
    f"Top-1 accuracy on digits in %, mean of {len(first)} seeds (lowest to highest):",
    "",
    "| images of each class | pre-trained | from scratch | difference of the means |",
    "|---|---|---|---|",
  ]
  for shots in sorted({s for _, s in top1}):
    values = [100 * np.array(top1[start, shots]) for start in STARTS]
    cells = [f"{v.mean():.1f} ({v.min():.1f} to {v.max():.1f})" for v in values]
    gain = values[0].mean() - values[1].mean()
    lines.append(f"| {shots} | {cells[0]} | {cells[1]} | {gain:+.1f} |")
  return "\n".join(lines) + "\n"


def _run(out: pathlib.Path, weights: str, shots: int, seed: int) -> float:
  config = quickstart.get_config(f"weights={weights},shots={shots},seed={seed}")
  config.eval_every = config.total_steps
  folder = out / f"{weights}-{shots}shot-s{seed}"
  return trainer.train_and_evaluate(config, str(folder))["top1"]


if __name__ == "__main__":
  sys.exit(commands.run(main, sys.argv))
