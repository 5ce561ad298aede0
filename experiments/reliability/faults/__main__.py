"""Damages checkpoints and fills disks; then checks that runs end as if undisturbed, or say why not.

    python -m experiments.reliability.faults --flips=40 --seed=0

Four parts, each by kind of fault:

- checkpoints: the newest checkpoint of a run of the smallest network is damaged (flipped bits,
  truncated and deleted files, checkpoints of other runs) and restored. It must give its own state,
  the one before with one line, or one sentence, and never another state.
- runs: a run goes on from such a folder. Its weights and metrics must be those of the undisturbed.
- limits, disks: a run with a limit on the size of files, or on a file system that is too small,
  must end with one sentence and exit status 2; the same command then ends like the undisturbed run.
  Mounting file systems needs root.

Counts go to `faults.jsonl`.
"""

import argparse
import pathlib
import sys
import tempfile
from collections.abc import Sequence

import numpy as np

from bit_jax.runs import run_folder
from bit_jax.runtime import compile_cache
from experiments.reliability.faults import checkpoints, runs, tally
from experiments.reliability.faults.bench import Bench

RECORDS = pathlib.Path(__file__).parents[1] / "faults.jsonl"


def main(argv: Sequence[str]) -> int:
  """Injects faults, and appends their counts; returns 1 if any run was lost."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--flips", type=int, default=40, help="flipped bits in each file")
  parser.add_argument("--sizes", type=int, default=12, help="sizes of disks")
  parser.add_argument("--seed", type=int, default=0)
  parser.add_argument("--parts", default="checkpoints,runs,limits,disks")
  parser.add_argument("--records", type=pathlib.Path, default=RECORDS)
  arguments = parser.parse_args(argv[1:])
  compile_cache.keep()
  counts, random = tally.Tally(), np.random.default_rng(arguments.seed)
  with tempfile.TemporaryDirectory() as folder:
    bench = Bench(pathlib.Path(folder))
    parts = arguments.parts.split(",")
    if "checkpoints" in parts:
      folder_of_two = bench.copy("damaged") / run_folder.CHECKPOINTS
      target = checkpoints.Target(folder_of_two, bench.state())
      checkpoints.damage_checkpoints(target, counts, random, arguments.flips)
    if "runs" in parts:
      runs.damage_runs(bench, counts, random)
    if "limits" in parts:
      runs.limit_files(bench, counts)
    if "disks" in parts:
      runs.fill_disks(bench, counts, arguments.sizes)
  print(tally.table(counts))
  tally.write(arguments.records, counts, arguments.seed)
  return int(any(kind.lost for kind in counts.kinds.values()))


if __name__ == "__main__":
  sys.exit(main(sys.argv))
