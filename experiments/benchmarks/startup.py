"""Start-up times: imports, and a run's first step with a cold and a warm cache.

    python -m experiments.benchmarks.startup

A run is a process of `python -m bit_jax.train` on random images, with a checkpoint of random
weights and a new cache folder; it is ended after a few steps. The first run finds no compiled
programs there, later ones those of the first. Times count from the start of the process to the line
that reports the first step.
"""

import functools
import itertools
import os
import pathlib
import re
import statistics
import subprocess
import sys
import tempfile
import time
import timeit
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from bit_jax import weights
from bit_jax.models import architectures
from bit_jax.runtime import errors, exits
from experiments.benchmarks import inputs, results

COMMANDS = (
  *("bit_jax.models.resnet_v2", "bit_jax.weights.__main__", "bit_jax.data.__main__"),
  *("bit_jax.train", "bit_jax.training.fine_tuning"),  # the former imports the latter when needed
)
_LIBRARIES = "jax, flax.linen, optax"
_ROOT = pathlib.Path(__file__).parents[2]  # the checkout
_SIZE, _BATCH, _STEPS = 128, 16, 4
_CONFIG = (
  f"batch_size={_BATCH} resize={_SIZE} crop={_SIZE} total_steps={_STEPS} "
  "log_every=1 eval_every=1000000 warmup_steps=0 decay_steps=()"
)
STEP_LINE = re.compile(rf"^step +(\d+)/{_STEPS} ")


def main(argv: Sequence[str]) -> None:
  """Runs the benchmark."""
  parser = results.parser(__doc__, rounds=3)
  parser.add_argument("--architecture", default="R50x1")
  options = parser.parse_args(argv[1:])
  results.record("startup", _rows(options.architecture, options.rounds), options.out)


def _rows(architecture: str, rounds: int) -> Iterator[results.Row]:
  """Yields the times of imports, then of the first step with a warm cache against a cold one."""
  seconds = import_seconds((*COMMANDS, _LIBRARIES), rounds)
  for name in COMMANDS:
    times = (seconds[name], _LIBRARIES, seconds[_LIBRARIES])
    yield results.Row(f"import {name}", "time", "s", *times)
  with tempfile.TemporaryDirectory() as name:
    folder, network = pathlib.Path(name), architectures.find(architecture)
    checkpoint = folder / "weights.npz"
    inputs.write_checkpoint(checkpoint, network)
    write_images(folder / "images.npz")
    load = functools.partial(weights.load, checkpoint, network, head="zero", num_classes=10)
    loading = statistics.median(timeit.repeat(load, number=1, repeat=rounds))
    cold_first, cold_step = first_steps(architecture, folder, "cold")
    warm = [first_steps(architecture, folder, f"warm{i}") for i in range(rounds)]
  first, step = (statistics.median(times) for times in zip(*warm, strict=True))
  compared, peer = f"{architecture} {_SIZE} px batch {_BATCH}, warm cache", "the same, cold cache"
  yield results.Row(compared, "to the first step", "s", first, peer, cold_first)
  imports = seconds["bit_jax.training.fine_tuning"]
  more = {"imports s": imports, "checkpoint s": loading, "step s": step}
  ours, theirs = (f - imports - loading - s for f, s in ((first, step), (cold_first, cold_step)))
  yield results.Row(compared, "beyond these", "s", ours, peer, theirs, more=more)


def import_seconds(modules: Sequence[str], rounds: int) -> dict[str, float]:
  """Returns the median time of importing each module, in addition to that of starting Python.

  Args:
    modules: What to put behind `import`.
    rounds: Repetitions, of all modules in turn.
  """

  def seconds(statement: str) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", statement], cwd=_ROOT, check=True, capture_output=True)
    return time.perf_counter() - start

  statements = ["pass", *(f"import {module}" for module in modules)]
  _, *times = [list(map(seconds, statements)) for _ in range(rounds + 1)]  # first reads the disk
  start, *medians = map(statistics.median, zip(*times, strict=True))
  return dict(zip(modules, (median - start for median in medians), strict=True))


def write_images(path: pathlib.Path) -> None:
  """Writes a set of random images for `configs/npz.py`."""
  random, arrays = np.random.default_rng(0), {}
  for part, count in (("train", 4 * _BATCH), ("test", _BATCH)):
    arrays[f"{part}_images"] = random.integers(0, 256, (count, _SIZE, _SIZE, 3), np.uint8)
    arrays[f"{part}_labels"] = inputs.labels(count)
  np.savez(path, allow_pickle=False, **arrays)


def first_steps(architecture: str, folder: pathlib.Path, name: str) -> tuple[float, float]:
  """Starts a run, waits for its steps, and ends it.

  Args:
    architecture: Name of the network.
    folder: Holds `weights.npz`, `images.npz` and the cache of all runs.
    name: Name of the run's folder.

  Returns:
    Seconds from the start of the process to the first step's line, and the shortest time between
    the lines of later steps.

  Raises:
    UserError: The run ended before its last step.
  """
  config = f"configs/npz.py:model={architecture},weights={folder / 'weights.npz'}"
  command = [sys.executable, "-m", "bit_jax.train", f"--workdir={folder / name}"]
  command += [f"--config={config},path={folder / 'images.npz'}"]
  command += [f"--config.{field}" for field in _CONFIG.split()]
  environment = {k: v for k, v in os.environ.items() if "COMPILATION_CACHE" not in k}
  environment["BIT_JAX_CACHE"] = str(folder / "cache")
  start, lines, at = time.perf_counter(), "", []
  pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
  with subprocess.Popen(command, cwd=_ROOT, env=environment, **pipes) as process:
    assert process.stdout
    for line in process.stdout:
      lines += line
      if STEP_LINE.match(line):
        at.append(time.perf_counter() - start)
      if len(at) == _STEPS:
        break
    process.kill()
  if len(at) < _STEPS:
    raise errors.UserError(f"The {name} run ended before its last step:\n{lines[-1000:]}")
  print(f"The {name} run finished its first step after {at[0]:.0f} s", file=sys.stderr)
  return at[0], min(b - a for a, b in itertools.pairwise(at))


if __name__ == "__main__":
  sys.exit(exits.run(main, sys.argv, needs_reader=False))
