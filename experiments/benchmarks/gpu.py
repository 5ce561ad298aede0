"""All GPU measurements in one call of ten minutes.

    python -m experiments.benchmarks.gpu --out FOLDER [--minutes 10] [--torch_python PYTHON]

Needs jax, flax and optax; PyTorch and timm in the same environment or in that of --torch_python.
The most important comparisons come first; those that no longer fit into the time are named and
skipped. FOLDER gets `results.jsonl` and, at the end, `tables.txt`.
"""

import argparse
import subprocess
import sys
import time
from collections.abc import Sequence

from bit_jax.runtime import errors, exits, paths
from experiments.benchmarks import comparison, inference, machine, results, roofline, train_step

PLAN = tuple(
  (benchmark, case)
  for cases in zip(train_step.CASES["gpu"], inference.CASES["gpu"], strict=True)
  for benchmark, case in zip(("train_step", "inference"), cases, strict=True)
)
_LEAST = 45  # seconds that a comparison needs at least


def main(argv: Sequence[str]) -> None:
  """Runs the comparisons that fit into the time.

  Raises:
    UserError: There is no GPU.
  """
  parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
  parser.add_argument("--out", type=paths.argument, required=True, help="folder for the results")
  parser.add_argument("--minutes", type=float, default=10, help="time limit")
  parser.add_argument("--torch_python", default=comparison.TORCH_PYTHON)
  options = parser.parse_args(argv[1:])
  if not machine.accelerators():
    raise errors.UserError("nvidia-smi lists no GPU: run this on a machine with one.")
  print(bounds := roofline_here(), flush=True)
  deadline = time.monotonic() + 60 * options.minutes - 5
  options.out.mkdir(parents=True, exist_ok=True)
  file = options.out / "results.jsonl"
  for benchmark, case in PLAN:
    command = [sys.executable, "-m", f"experiments.benchmarks.{benchmark}", "--device=gpu"]
    command += [f"--cases={case}", f"--out={file}", f"--torch_python={options.torch_python}"]
    run(command, deadline - time.monotonic())
  tables = results.render(results.newest(file.read_text().splitlines())) if file.exists() else ""
  (options.out / "tables.txt").write_text(f"{bounds}\n{tables}")


def run(command: Sequence[str], seconds: float) -> None:
  """Runs a command within its time, and prints whether it was skipped or stopped."""
  name = " ".join(command[2:5])
  if seconds < _LEAST:
    print(f"{name}: skipped, {max(0, seconds):.0f} s are left", flush=True)
    return
  try:
    subprocess.run(command, timeout=seconds, check=False)
  except subprocess.TimeoutExpired:
    print(f"{name}: stopped at the time limit", flush=True)


def roofline_here() -> str:
  """Returns the bounds of this machine's GPU, if its data sheet is known."""
  if card := roofline.find(machine.accelerators()):
    return f"Roofline ({card.source}):\n\n{roofline.table(card)}\n"
  return "No data sheet for this GPU; see --help of experiments.benchmarks.roofline.\n"


if __name__ == "__main__":
  sys.exit(exits.run(main, sys.argv, needs_reader=False))
