"""Fuzzes everything that reads foreign input: `make fuzz`.

    python -m experiments.reliability.fuzz --inputs 100000 --seed 0 [--only npz]

Each kind of input is read in a process of its own, within limits of memory and time: first the
corpus, then the kind's share of the inputs. The same seed gives the same inputs. A line for each
kind is added to experiments/reliability/fuzz.jsonl; inputs with a bad end are written to
--findings, and the exit status is 1. After a fix, such an input belongs into the corpus.
"""

import argparse
import pathlib
import sys
from collections.abc import Sequence

from bit_jax.runtime import exits
from experiments.reliability import records
from experiments.reliability.fuzz import kinds, workers

_RESULTS = pathlib.Path(__file__).parents[1] / "fuzz.jsonl"
_MEBIBYTE = 1 << 20


def main(argv: Sequence[str]) -> int:
  """Fuzzes the kinds of a command line; returns 1 if there are findings."""
  parser = argparse.ArgumentParser(
    prog="python -m experiments.reliability.fuzz",
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  add = parser.add_argument
  add("--inputs", type=int, default=100_000, help="of all kinds; default: %(default)s")
  add("--seed", type=int, default=0)
  add("--only", choices=kinds.NAMES, action="append", help="a kind; may be repeated")
  add("--findings", default="runs/fuzz", metavar="FOLDER", help="default: %(default)s")
  add("--note", default="", help="a text for the records, such as 'before fixes'")
  options = parser.parse_args(argv[1:])
  status = 0
  for kind in options.only or kinds.NAMES:
    tally = workers.fuzz(kind, options.seed, kinds.count(kind, options.inputs))
    record = {
      "kind": kind,
      "seed": options.seed,
      "inputs": tally.inputs,
      "accepted": tally.accepted,
      "refused": tally.refused,
      "findings": tally.findings,
      "distinct": sorted(tally.distinct),
      "seconds": round(tally.seconds, 1),
      "peak_mib": round(tally.memory / _MEBIBYTE),
      "mib_before": round(tally.before / _MEBIBYTE),
      **({"note": options.note} if options.note else {}),
    }
    records.append(_RESULTS, record)
    print(
      f"{kind}: {tally.inputs:,} inputs in {tally.seconds:.0f} s: {tally.accepted:,} accepted, "
      f"{tally.refused:,} refused, {tally.findings:,} findings at {len(tally.distinct)} places; "
      f"at most {record['peak_mib']:,} MiB, {record['mib_before']:,} before the first",
      flush=True,
    )
    for found in tally.distinct.values():
      status = 1
      folder = pathlib.Path(options.findings) / kind
      folder.mkdir(parents=True, exist_ok=True)
      (folder / found.name).write_bytes(found.data)
      (folder / f"{found.name}.txt").write_text(found.text, errors="backslashreplace")
      print(f"  {found.place}: {folder / found.name}", flush=True)
  return status


if __name__ == "__main__":
  sys.exit(exits.run(main, sys.argv))
