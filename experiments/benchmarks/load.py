"""Loading a checkpoint, checks included, against `numpy.load` of all its arrays.

    python -m experiments.benchmarks.load [--models R50x1,R152x4] [--folder DISK]

The first load of a file computes its SHA-256, which later loads find in the cache; both are
measured. The files have random weights and, like BiT-M, a head of 21,843 classes. They are written
to a temporary folder and read from the page cache. Peak memory is that above the imports.
"""

import pathlib
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence

from bit_jax.models import architectures
from bit_jax.runtime import exits
from experiments.benchmarks import inputs, results, workers

_PEER = "numpy.load"
_NUM_CLASSES = architectures.PRETRAINED_CLASSES["BiT-M"]
_FLOAT32 = 4  # bytes


def main(argv: Sequence[str]) -> None:
  """Runs the benchmark."""
  parser = results.parser(__doc__)
  parser.add_argument("--models", default="R50x1,R152x4", help="names of networks")
  parser.add_argument("--folder", help="where to write the files (default: temporary folder)")
  options = parser.parse_args(argv[1:])

  def rows() -> Iterator[results.Row]:
    for name in options.models.split(","):
      with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        yield from compare(architectures.find(name), options.rounds, pathlib.Path(folder))

  results.record("load", rows(), options.out)


def compare(
  architecture: architectures.Architecture, rounds: int, folder: pathlib.Path
) -> Iterator[results.Row]:
  """Measures one network's checkpoint, and yields its rows: time and peak memory.

  Args:
    architecture: Which network.
    rounds: Repetitions of each.
    folder: For the file and the cache of hashes.
  """
  size = _FLOAT32 * architectures.num_parameters(architecture, _NUM_CLASSES)
  configuration = f"{architecture.name}, {size / 1e9:.2f} GB"
  path = folder / "checkpoint.npz"
  inputs.write_checkpoint(path, architecture, _NUM_CLASSES)
  spec = {
    "checkpoint": str(path),
    "architecture": architecture.name,
    "num_classes": _NUM_CLASSES,
    "environment": {"BIT_JAX_CACHE": str(folder)},
  }
  tasks = ("load", "first load", _PEER)
  ours, first, theirs = workers.measure({t: {**spec, "task": t} for t in tasks}, rounds).values()
  for quantity, figures in (("time", ours), ("time, hashing", first)):
    seconds, paired = 1 / figures.rate, 1 / statistics.median(figures.relative_to(theirs))
    yield results.Row(configuration, quantity, "s", seconds, _PEER, 1 / theirs.rate, paired=paired)
  more = {"of its size": ours.peak_memory / size, "peer's of its size": theirs.peak_memory / size}
  yield results.Row(
    configuration, "peak memory", "GB", ours.gigabytes, _PEER, theirs.gigabytes, "", more
  )


if __name__ == "__main__":
  sys.exit(exits.run(main, sys.argv, needs_reader=False))
