"""How fast images come to the network, and how much a training step waits for them.

    python -m experiments.benchmarks.input [--tfds_dir DIR] [--photographs DIR]

Three regimes, each against a plain tf.data pipeline on the same cores (`input_worker`), and two of
them against training on a batch that lies on the devices: tfds' CIFAR-10 and a small set of large
photographs, both decoded once to lie on the devices, and photographs that are streamed, the first
epoch decoding them, later ones from the cache of decoded images. Neither side keeps anything from
one repetition to the next but what is said.
"""

import argparse
import contextlib
import dataclasses
import os
import pathlib
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from bit_jax.runtime import paths
from experiments.benchmarks import machine, photographs, results, workers

_COMMAND = (sys.executable, "-m", "experiments.benchmarks.input_worker")
_PLAIN = "tf.data, all every time"
_AT_HAND = "batch on the device"
_PACKAGES = ("tensorflow-cpu", "tensorflow", "opencv-python-headless", "pillow")


@dataclasses.dataclass(frozen=True)
class Comparison:
  """Ways to read a set, each against the same peer.

  Attributes:
    configuration: What the table calls it.
    spec: Of the workers, without 'task'.
    tasks: {task: quantity} of `input_worker`.
    peer: The peer's task.
  """

  configuration: str
  spec: Mapping[str, Any]
  tasks: Mapping[str, str]
  peer: str = "plain"


_READ_ONCE = {"gathering": "first epoch's reading", "resident": "later epochs"}
_STREAMED = {
  "streamed": "first epoch",
  "caching": "first, into the cache",
  "cached": "later, from the cache",
}
_TRAINING = {"training": "training"}


def main(argv: Sequence[str]) -> None:
  """Runs the benchmark."""
  parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
  parser.add_argument("--tfds_dir", default=os.environ.get("TFDS_DATA_DIR"), help="has cifar10")
  parser.add_argument(
    "--photographs",
    type=paths.argument,
    default=photographs.default_originals(),
    help="folder with JPEG files; default: below $BIT_JAX_TEST_DATA, or generated",
  )
  parser.add_argument("--images", type=int, default=1_000, help="photographs")
  parser.add_argument("--rounds", type=int, default=5, help="repetitions of each")
  parser.add_argument("--only", default="", help="comparisons whose name holds this")
  parser.add_argument("--out", type=paths.argument, default=results.PATH, help="file to append to")
  options = parser.parse_args(argv)
  with (
    tempfile.TemporaryDirectory() as folder,
    results.Table("input", versions=machine.versions(_PACKAGES), path=options.out) as table,
  ):
    what = photographs.prepare(pathlib.Path(folder, "set"), options.images, options.photographs)
    for comparison in comparisons(folder, what, options.images, options.tfds_dir):
      if options.only in comparison.configuration:
        for row in compare(comparison, options.rounds):
          table.add(row)


def comparisons(folder: str, what: str, images: int, tfds_dir: str | None) -> Iterator[Comparison]:
  """Yields what is compared.

  Args:
    folder: Has the photographs in 'set'; for caches, too.
    what: They are, in words.
    images: Number of photographs.
    tfds_dir: Where tfds keeps prepared sets; None for its default.
  """
  cifar: dict[str, Any] = {"set": "cifar10", "path": None, "data_dir": tfds_dir}
  files: dict[str, Any] = {
    "set": "folder",
    "path": f"{folder}/set",
    "data_dir": None,
    "cache": folder,
  }
  files["images"] = images
  rule = {"resize": 160, "crop": 128}
  large = {"resize": 512, "crop": 480}
  small = {"resize": 48, "crop": 48, "batch": 128, "architecture": "R14x0.5"}
  once = {"resident": "every epoch"}
  yield Comparison("CIFAR-10 160>128", {**cifar, **rule, "images": 2_048, "batch": 256}, once)
  yield Comparison("CIFAR-10 48", {**cifar, **small, "images": 640}, _TRAINING, "training at hand")
  for name, sizes in (("160>128", rule), ("512>480", large)):
    spec = {**files, **sizes, "batch": 32}
    yield Comparison(f"{images:,} {what} {name}, resident", spec, _READ_ONCE)
    yield Comparison(f"{images:,} {what} {name}, streamed", spec, _STREAMED)
  spec = {**files, **small, "resize": 56}
  yield Comparison(f"{images:,} {what} 56>48", spec, _TRAINING, "training at hand")


def compare(comparison: Comparison, rounds: int) -> Iterator[results.Row]:
  """Measures all ways of a comparison in turns; yields a row for each."""
  tasks = (*comparison.tasks, comparison.peer)
  try:
    with contextlib.ExitStack() as stack:
      started = [
        stack.enter_context(workers.Worker(t, _COMMAND, {**comparison.spec, "task": t}))
        for t in tasks
      ]
      figures = workers.alternate(started, rounds)
  except workers.WorkerError as e:
    for quantity in comparison.tasks.values():
      yield results.Row(comparison.configuration, quantity, "images/s", None, note=str(e))
    return
  theirs = figures[comparison.peer]
  peer = _PLAIN if comparison.peer == "plain" else _AT_HAND
  for task, quantity in comparison.tasks.items():
    ours = figures[task]
    yield results.Row(
      comparison.configuration,
      quantity,
      "images/s",
      ours.rate,
      peer,
      theirs.rate,
      more=workers.spread(ours, theirs),
      paired=workers.speed(ours, theirs),
    )


if __name__ == "__main__":
  main(sys.argv[1:])
