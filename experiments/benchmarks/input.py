"""How fast images reach the network, and how long training steps wait for them.

    python -m experiments.benchmarks.input [--tfds_dir DIR] [--photographs DIR]

Reads tfds' CIFAR-10 and a small set of large photographs, both decoded once and kept on the
devices, and streams photographs, decoding them in the first epoch and reading a cache of decoded
images in later ones. Each is compared with a plain tf.data pipeline on the same cores
(`run_worker`); training on the first two is compared with training on one batch that is on the
devices. Nothing else is kept between repetitions. Predictions for the photographs are compared with
their evaluation, both from the files.
"""

import os
import pathlib
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from bit_jax.runtime import exits, paths
from experiments.benchmarks import inputs, machine, results, workers

_PACKAGES = ("tensorflow-cpu", "tensorflow", "opencv-python-headless", "pillow")
_PEERS = {
  "plain": "tf.data, all every time",
  "training on one batch": "batch on the device",
  "evaluating": "evaluate",
}


class Comparison(NamedTuple):
  """Ways to read a set, each measured against the same peer.

  Attributes:
    configuration: Its name in tables.
    spec: Spec of the workers, without 'task'.
    tasks: {task of `run_worker`: quantity}.
    peer: The peer's task.
  """

  configuration: str
  spec: Mapping[str, Any]
  tasks: Mapping[str, str]
  peer: str = "plain"


_READ_ONCE = {"gathering": "first epoch's reading", "resident": "later epochs"}
_STREAMED = {"streamed": "first epoch", "cached": "later, from the cache"}


def main(argv: Sequence[str]) -> None:
  """Runs the benchmark."""
  parser = results.parser(__doc__)
  parser.add_argument("--tfds_dir", default=os.environ.get("TFDS_DATA_DIR"), help="has cifar10")
  parser.add_argument(
    "--photographs",
    type=paths.argument,
    default=inputs.photographs(),
    help="folder with JPEG files (default: below $BIT_JAX_TEST_DATA, else generated images)",
  )
  parser.add_argument("--images", type=int, default=1_000, help="number of photographs")
  parser.add_argument("--only", default="", help="run only the comparisons with this in their name")
  options = parser.parse_args(argv[1:])

  def rows() -> Iterator[results.Row]:
    with tempfile.TemporaryDirectory() as folder:
      what = inputs.write_photographs(
        pathlib.Path(folder, "set"), options.images, options.photographs
      )
      for comparison in comparisons(folder, what, options.images, options.tfds_dir):
        if options.only in comparison.configuration:
          yield from compare(comparison, options.rounds)

  results.record("input", rows(), options.out, machine.versions(_PACKAGES))


def comparisons(folder: str, what: str, images: int, tfds_dir: str | None) -> Iterator[Comparison]:
  """Yields what is compared.

  Args:
    folder: Has the photographs in 'set'; caches are written to it.
    what: 'photographs' or 'generated photographs'.
    images: Number of photographs.
    tfds_dir: Where tfds keeps prepared sets; None for its default.
  """
  cifar: dict[str, Any] = {"set": "cifar10", "path": None, "data_dir": tfds_dir}
  files: dict[str, Any] = {**cifar, "set": "folder", "path": f"{folder}/set", "images": images}
  files["cache"] = folder
  named = f"{images:,} {what}"
  rule, large = {"resize": 160, "crop": 128}, {"resize": 512, "crop": 480}
  small = {"resize": 48, "crop": 48, "batch": 128, "architecture": "R14x0.5"}
  training = ({"training": "training"}, "training on one batch")
  once = {"resident": "every epoch"}
  yield Comparison("CIFAR-10 160>128", {**cifar, **rule, "images": 2_048, "batch": 256}, once)
  yield Comparison("CIFAR-10 48", {**cifar, **small, "images": 640}, *training)
  for name, sizes in (("160>128", rule), ("512>480", large)):
    spec = {**files, **sizes, "batch": 32}
    yield Comparison(f"{named} {name}, resident", spec, _READ_ONCE)
    yield Comparison(f"{named} {name}, streamed", spec, _STREAMED)
  yield Comparison(f"{named} 56>48", {**files, **small, "resize": 56}, *training)
  for side in (48, 128):
    spec = {**files, **small, "resize": side, "crop": side, "batch": 64}
    yield Comparison(f"{named} {side}", spec, {"predicting": "predict"}, "evaluating")


def compare(comparison: Comparison, rounds: int) -> Iterator[results.Row]:
  """Measures all ways of a comparison in turns; yields a row for each."""
  configuration, spec, tasks, peer = comparison
  try:
    figures = workers.measure({t: {**spec, "task": t} for t in (*tasks, peer)}, rounds)
  except workers.WorkerError as e:
    for quantity in tasks.values():
      yield results.Row(configuration, quantity, "images/s", None, note=f"not measured: {e}")
    return
  for task, quantity in tasks.items():
    yield results.rates(configuration, quantity, figures[task], _PEERS[peer], figures[peer])


if __name__ == "__main__":
  sys.exit(exits.run(main, sys.argv, needs_reader=False))
