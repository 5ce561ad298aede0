"""All that is measured on a GPU, in one call of ten minutes.

    python -m experiments.benchmarks.gpu --out FOLDER [--minutes 10] [--torch_python PYTHON]

Needs jax, flax and optax; PyTorch and timm in the same environment or in that of --torch_python.
The comparisons come in the order of their weight; what no longer fits into the time is named and
left out. FOLDER gets `tables.txt` and `results.jsonl`. It was written without a GPU at hand: what
ran is its arithmetic, and the same scripts on CPU.
"""

import argparse
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import TextIO

from bit_jax.runtime import paths
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
_LEAST = 45  # seconds in which a comparison may be done


def main(argv: Sequence[str]) -> None:
  """Runs what fits into the time."""
  parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
  parser.add_argument("--out", type=paths.argument, required=True, help="folder for the results")
  parser.add_argument("--minutes", type=float, default=10)
  parser.add_argument("--torch_python", default=comparison.default_torch_python())
  options = parser.parse_args(argv)
  deadline = time.monotonic() + 60 * options.minutes - 5
  options.out.mkdir(parents=True, exist_ok=True)
  with (options.out / "tables.txt").open("a") as tables:
    _tell(_roofline_here(), tables)
    for benchmark, case in PLAN:
      command = [sys.executable, "-m", f"experiments.benchmarks.{benchmark}", "--device=gpu"]
      command += [f"--cases={case}", f"--out={options.out / 'results.jsonl'}"]
      command += [f"--torch_python={options.torch_python}"]
      _tell(_run(command, deadline - time.monotonic()), tables)


def _run(command: Sequence[str], seconds: float) -> str:
  """Returns what a command prints within its time, or why it prints nothing more."""
  name = " ".join(command[2:5])
  if seconds < _LEAST:
    return f"{name}: left out, {max(0, seconds):.0f} s are left\n"
  try:
    done = subprocess.run(
      command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=seconds
    )
  except subprocess.TimeoutExpired as e:
    printed = e.stdout or ""
    text = printed.decode() if isinstance(printed, bytes) else printed
    return f"{text}\n{name}: stopped, the time is over\n"
  return done.stdout


def _roofline_here() -> str:
  """Returns the bounds of the card that is here, as far as its data sheet is known."""
  for name in machine.describe().accelerators:
    accelerator = roofline.find(name)
    if accelerator:
      return f"Roofline of {name} ({accelerator.source}):\n\n{roofline.table(accelerator)}\n"
  return "No data sheet for what is here: see --help of experiments.benchmarks.roofline.\n"


def _tell(text: str, file: TextIO) -> None:
  print(text, flush=True)
  print(text, file=file, flush=True)


if __name__ == "__main__":
  main(sys.argv[1:])
