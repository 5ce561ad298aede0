"""How long it takes to begin: imports, and a run's first step with a cold and a warm cache.

    python -m experiments.benchmarks.startup

A run is `python -m bit_jax.train` of its own process, on random images of its own making, with a
checkpoint of random weights and a fresh cache folder; it is ended after a few steps. The first
finds no compiled programs there, the others those of the first. The time counts from the start of
the process to the line that tells of the first step.
"""

import argparse
import dataclasses
import itertools
import os
import pathlib
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence

import numpy as np

from bit_jax import weights
from bit_jax.models import architectures
from bit_jax.runtime import paths
from experiments.benchmarks import inputs, results

COMMANDS = (
  *("bit_jax.models", "bit_jax.weights.__main__", "bit_jax.data.__main__", "bit_jax.train"),
  "bit_jax.training.loop",  # what `bit_jax.train` needs in the end
)
_LIBRARIES = "jax, flax.linen, optax"
_ROOT = pathlib.Path(__file__).parents[2]  # of the checkout
_SIZE, _BATCH, _STEPS = 128, 16, 4
_STEP_LINE = re.compile(rf"^step +(\d+)/{_STEPS} ")


@dataclasses.dataclass(frozen=True)
class Run:
  """When a run's steps were through.

  Attributes:
    first: Seconds from the start of the process to the first step's line.
    step: Seconds between the lines of later steps, the least.
  """

  first: float
  step: float


def main(argv: Sequence[str]) -> None:
  """Runs the benchmark."""
  parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
  parser.add_argument("--architecture", default="R50x1")
  parser.add_argument("--rounds", type=int, default=3, help="repetitions of each")
  parser.add_argument("--out", type=paths.argument, default=results.PATH, help="file to append to")
  options = parser.parse_args(argv)
  with (
    results.Table("startup", path=options.out) as table,
    tempfile.TemporaryDirectory() as folder,
  ):
    seconds = import_seconds((*COMMANDS, _LIBRARIES), options.rounds)
    for module in COMMANDS:
      table.add(
        results.Row(
          f"import {module}", "time", "s", seconds[module], _LIBRARIES, seconds[_LIBRARIES]
        )
      )
    imports = seconds["bit_jax.training.loop"]
    for row in compare(options.architecture, options.rounds, pathlib.Path(folder), imports):
      table.add(row)


def import_seconds(modules: Sequence[str], rounds: int) -> dict[str, float]:
  """Returns the median time of importing each, above that of starting Python.

  Args:
    modules: What to put behind `import`.
    rounds: Repetitions, of all modules in turn.
  """
  statements = {"": "pass", **{module: f"import {module}" for module in modules}}
  times: dict[str, list[float]] = {name: [] for name in statements}
  for _ in range(rounds + 1):  # the first reads files from the disk, and doesn't count
    for name, statement in statements.items():
      start = time.perf_counter()
      subprocess.run([sys.executable, "-c", statement], cwd=_ROOT, check=True, capture_output=True)
      times[name].append(time.perf_counter() - start)
  medians = {name: statistics.median(taken[1:]) for name, taken in times.items()}
  return {module: medians[module] - medians[""] for module in modules}


def compare(
  architecture: str, rounds: int, folder: pathlib.Path, imports: float
) -> Iterator[results.Row]:
  """Yields the rows of the first step with a warm cache against that with a cold one.

  Args:
    architecture: Name of the network.
    rounds: Runs with a warm cache.
    folder: For everything that they read and write.
    imports: Seconds that are not the run's own.
  """
  inputs.write_checkpoint(folder / "weights.npz", architectures.find(architecture))
  write_images(folder / "images.npz")
  loading = statistics.median(_load_seconds(folder / "weights.npz", architecture, rounds))
  cold = first_steps(architecture, folder, "cold")
  warm = [first_steps(architecture, folder, f"warm{i}") for i in range(rounds)]
  configuration = f"{architecture} {_SIZE} px batch {_BATCH}, warm cache"
  first = statistics.median(run.first for run in warm)
  step = statistics.median(run.step for run in warm)
  peer = "the same, cold cache"
  yield results.Row(configuration, "to the first step", "s", first, peer, cold.first)
  given = imports + loading
  more = {"imports s": imports, "checkpoint s": loading, "step s": step}
  yield results.Row(
    configuration,
    "beyond these",
    "s",
    first - given - step,
    peer,
    cold.first - given - cold.step,
    more=more,
  )


def write_images(path: pathlib.Path) -> None:
  """Writes a set of random images for `configs/npz.py`."""
  random = np.random.default_rng(0)
  counts = {"train": 4 * _BATCH, "test": _BATCH}
  images = {
    f"{part}_images": random.integers(0, 256, (n, _SIZE, _SIZE, 3), np.uint8)
    for part, n in counts.items()
  }
  labels = {f"{part}_labels": inputs.labels(n) for part, n in counts.items()}
  np.savez(path, allow_pickle=False, **images, **labels)


def first_steps(architecture: str, folder: pathlib.Path, name: str) -> Run:
  """Starts a run, waits for its steps, and ends it.

  Args:
    architecture: Name of the network.
    folder: Holds `weights.npz`, `images.npz` and the cache of all runs.
    name: Of the run's folder.

  Raises:
    RuntimeError: The run ended before.
  """
  config = f"configs/npz.py:model={architecture},weights={folder / 'weights.npz'}"
  fields: dict[str, object] = {
    "batch_size": _BATCH,
    "resize": _SIZE,
    "crop": _SIZE,
    "total_steps": _STEPS,
  }
  fields |= {"log_every": 1, "eval_every": 10**6, "warmup_steps": 0, "decay_steps": "()"}
  command = [sys.executable, "-m", "bit_jax.train", f"--workdir={folder / name}"]
  command += [f"--config={config},path={folder / 'images.npz'}"]
  command += [f"--config.{field}={value}" for field, value in fields.items()]
  environment = {k: v for k, v in os.environ.items() if "COMPILATION_CACHE" not in k}
  environment["BIT_JAX_CACHE"] = str(folder / "cache")
  start = time.perf_counter()
  lines, at = [], []
  with subprocess.Popen(
    command,
    cwd=_ROOT,
    env=environment,
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
  ) as process:
    assert process.stdout
    for line in process.stdout:
      lines.append(line)
      if _STEP_LINE.match(line):
        at.append(time.perf_counter() - start)
      if len(at) == _STEPS:
        break
    process.kill()
  if len(at) < _STEPS:
    raise RuntimeError(f"the run ended before its last step:\n{''.join(lines[-5:])}")
  print(f"the {name} run is through its first step after {at[0]:.0f} s", file=sys.stderr)
  return Run(at[0], min(b - a for a, b in itertools.pairwise(at)))


def _load_seconds(path: pathlib.Path, architecture: str, rounds: int) -> Iterator[float]:
  """Yields what loading the checkpoint takes."""
  for _ in range(rounds):
    start = time.perf_counter()
    weights.load(path, architectures.find(architecture), head="zero", num_classes=10)
    yield time.perf_counter() - start


if __name__ == "__main__":
  main(sys.argv[1:])
