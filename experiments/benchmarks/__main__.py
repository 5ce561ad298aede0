"""Runs the benchmarks one after the other, as `make bench` does.

python -m experiments.benchmarks [--torch_python PYTHON] [--only train_step,load]
"""

import argparse
import subprocess
import sys
from collections.abc import Sequence

from bit_jax.runtime import exits
from experiments.benchmarks import comparison

_WITH_TORCH = ("train_step", "inference")
ALL = (*_WITH_TORCH, "load", "input", "startup", "scaling")


def main(argv: Sequence[str]) -> int:
  """Runs them; returns 1 if any of them failed."""
  parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
  parser.add_argument("--torch_python", default=comparison.TORCH_PYTHON)
  parser.add_argument("--only", default=",".join(ALL), help="names, separated by commas")
  options = parser.parse_args(argv[1:])
  torch, failed = [f"--torch_python={options.torch_python}"], []
  for name in options.only.split(","):
    program = [sys.executable, "-m", f"experiments.benchmarks.{name}"]
    if subprocess.run(program + torch * (name in _WITH_TORCH), check=False).returncode:
      failed.append(name)
  if failed:
    print(f"error: These benchmarks failed: {', '.join(failed)}.", file=sys.stderr)
  return 1 if failed else 0


if __name__ == "__main__":
  sys.exit(exits.run(main, sys.argv, needs_reader=False))
