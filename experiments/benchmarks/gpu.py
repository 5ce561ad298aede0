"""All GPU measurements in one call of ten minutes.

    python -m experiments.benchmarks.gpu --out FOLDER [--minutes 10] [--torch_python PYTHON]

Needs jax, flax and optax; PyTorch and timm in the same environment or in that of --torch_python.
The most important comparisons come first; those that no longer fit into the time are named and
skipped. FOLDER gets `tables.txt` and `results.jsonl`.
"""

import argparse
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence

from bit_jax.runtime import exits, paths
from experiments.benchmarks import comparison, machine, roofline

PLAN = (
  ("train_step", "R50x1@128x512"),
  ("inference", "R50x1@128x1024"),
  ("train_step", "R50x1@480x64"),
  ("inference", "R50x1@480x128"),
  ("inference", "R50x1@128x1"),
  ("train_step", "R101x3@128x128"),
  ("train_step", "R152x4@128x64"),
  ("inference", "R152x4@128x256"),
)
_LEAST = 45  # seconds that a comparison needs at least


def main(argv: Sequence[str]) -> None:
  """Runs the comparisons that fit into the time."""
  parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
  parser.add_argument("--out", type=paths.argument, required=True, help="folder for the results")
  parser.add_argument("--minutes", type=float, default=10, help="time limit")
  parser.add_argument("--torch_python", default=comparison.TORCH_PYTHON)
  options = parser.parse_args(argv[1:])
  deadline = time.monotonic() + 60 * options.minutes - 5
  options.out.mkdir(parents=True, exist_ok=True)
  with (options.out / "tables.txt").open("a") as tables:
    for text in texts(options, deadline):
      print(text, flush=True)
      print(text, file=tables, flush=True)


def texts(options: argparse.Namespace, deadline: float) -> Iterator[str]:
  """Yields the bounds of this machine's GPU, if its data sheet is known, and the measurements."""
  if card := roofline.find(machine.accelerators()):
    yield f"Roofline ({card.source}):\n\n{roofline.table(card)}\n"
  else:
    yield "No data sheet for this GPU; see --help of experiments.benchmarks.roofline.\n"
  for benchmark, case in PLAN:
    command = [sys.executable, "-m", f"experiments.benchmarks.{benchmark}", "--device=gpu"]
    command += [f"--cases={case}", f"--out={options.out / 'results.jsonl'}"]
    command += [f"--torch_python={options.torch_python}"]
    yield run(command, deadline - time.monotonic())


def run(command: Sequence[str], seconds: float) -> str:
  """Returns what a command prints within its time, and whether it was skipped or stopped."""
  name = " ".join(command[2:5])
  if seconds < _LEAST:
    return f"{name}: skipped, {max(0, seconds):.0f} s are left\n"
  out, err = subprocess.PIPE, subprocess.STDOUT
  try:
    done = subprocess.run(command, stdout=out, stderr=err, timeout=seconds, check=False)
  except subprocess.TimeoutExpired as e:
    return f"{(e.stdout or b'').decode()}\n{name}: stopped at the time limit\n"
  return done.stdout.decode()


if __name__ == "__main__":
  sys.exit(exits.run(main, sys.argv, needs_reader=False))
