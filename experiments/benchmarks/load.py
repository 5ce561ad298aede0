"""Loading a checkpoint, checks included, against `numpy.load` of all its arrays.

    python -m experiments.benchmarks.load [--models R50x1,R152x4] [--folder DISK]

The first load of a file works out its SHA-256, which later ones remember; both are measured. The
files have the head of 21,843 classes, as BiT-M has it, and random weights; they are written into a
temporary folder, and read from the page cache. Peak memory is that above the imports.
"""

import argparse
import contextlib
import pathlib
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence

from bit_jax.models import architectures
from bit_jax.runtime import paths
from experiments.benchmarks import inputs, results, workers

_OURS, _FIRST, _PEER = "bit_jax.weights", "bit_jax.weights, first load", "numpy.load"
_KINDS = {_OURS: "ours", _FIRST: "ours, first", _PEER: "numpy"}
_NUM_CLASSES = architectures.PRETRAINED_CLASSES["BiT-M"]
_FLOAT32 = 4  # bytes
_GIGABYTE = 1e9


def main(argv: Sequence[str]) -> None:
  """Runs the benchmark."""
  parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
  parser.add_argument("--models", default="R50x1,R152x4", help="names of networks")
  parser.add_argument("--rounds", type=int, default=5, help="repetitions of each")
  parser.add_argument("--folder", help="where to write the files; the system's temporary one")
  parser.add_argument("--out", type=paths.argument, default=results.PATH, help="file to append to")
  options = parser.parse_args(argv)
  with results.Table("load", path=options.out) as table:
    for name in options.models.split(","):
      with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        for row in compare(architectures.find(name), options.rounds, pathlib.Path(folder)):
          table.add(row)


def compare(
  architecture: architectures.Architecture, rounds: int, folder: pathlib.Path
) -> Iterator[results.Row]:
  """Measures one network's checkpoint, and yields its rows: time and peak memory.

  Args:
    architecture: Which network.
    rounds: Repetitions of each.
    folder: For the file.
  """
  size = _FLOAT32 * architectures.num_parameters(architecture, _NUM_CLASSES)
  configuration = f"{architecture.name}, {size / _GIGABYTE:.2f} GB"
  free = shutil.disk_usage(folder).free
  if free < 1.1 * size:
    note = f"not measured: {folder.parent} has {free / _GIGABYTE:.1f} GB free; give --folder"
    yield results.Row(configuration, "time", "s", None, _PEER, None, note)
    return
  path = folder / "checkpoint.npz"
  inputs.write_checkpoint(path, architecture, _NUM_CLASSES)
  spec = {
    "checkpoint": str(path),
    "architecture": architecture.name,
    "num_classes": _NUM_CLASSES,
  }
  command = [sys.executable, "-m", "experiments.benchmarks.load_worker"]
  environment = {"BIT_JAX_CACHE": str(folder)}  # where hashes are remembered
  with contextlib.ExitStack() as stack:
    started = [
      stack.enter_context(
        workers.Worker(name, command, {**spec, "implementation": kind}, environment=environment)
      )
      for name, kind in _KINDS.items()
    ]
    for worker in started:
      worker.repeat()  # the file comes into the page cache
    figures = workers.alternate(started, rounds)
  ours, theirs = figures[_OURS], figures[_PEER]
  for quantity, figure in (("time", ours), ("time, hashing", figures[_FIRST])):
    paired = 1 / workers.speed(figure, theirs)
    yield results.Row(
      configuration, quantity, "s", figure.seconds, _PEER, theirs.seconds, paired=paired
    )
  peaks = [f.peak_memory / _GIGABYTE for f in (ours, theirs)]
  more = {"of its size": ours.peak_memory / size, "peer's of its size": theirs.peak_memory / size}
  yield results.Row(configuration, "peak memory", "GB", peaks[0], _PEER, peaks[1], "", more)


if __name__ == "__main__":
  main(sys.argv[1:])
