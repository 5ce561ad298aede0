"""Prints the recorded figures as Markdown tables: the newest of each comparison and machine.

python -m experiments.benchmarks.report [RESULTS.jsonl]
"""

import sys

from bit_jax.runtime import exits
from experiments.benchmarks import results

if __name__ == "__main__":
  sys.exit(exits.run(results.report, sys.argv))
