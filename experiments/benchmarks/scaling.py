"""How the cost of a step grows with images, pixels and devices, and of an evaluation with examples.

A straight line through each, and how far the points lie from it.

    python -m experiments.benchmarks.scaling [--architecture R14x1]

The devices are CPU devices that share the machine's cores, each with a batch of its own: with
twice as many a step has twice the work. On more cores than devices their line would be flatter.
"""

import argparse
import contextlib
import dataclasses
import os
import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from bit_jax.models import architectures
from bit_jax.runtime import paths
from experiments.benchmarks import results, workers

_FORCED = "--xla_force_host_platform_device_count"
_COMMAND = (sys.executable, "-m", "experiments.benchmarks.scaling_worker")


@dataclasses.dataclass(frozen=True)
class Axis:
  """A quantity that grows, and the work that should grow with it.

  Attributes:
    name: Of the quantity.
    field: Of the spec: 'batch', 'size', 'devices' or 'examples'.
    values: Of the field.
    spec: The other fields.
  """

  name: str
  field: str
  values: tuple[int, ...]
  spec: Mapping[str, Any]

  def amount(self, value: int) -> int:
    """Returns what the cost should be a straight line of: the area, of a side."""
    return value**2 if self.field == "size" else value


_STEP = {"task": "training", "batch": 8, "size": 64, "devices": 1}
_SET = {"task": "evaluation", "batch": 64, "size": 32, "devices": 1}
AXES = (
  Axis("images of a batch", "batch", (4, 8, 16, 32), _STEP),
  Axis("pixels of an image", "size", (48, 64, 96, 128), _STEP),
  Axis("CPU devices", "devices", (1, 2, 4), _STEP),
  Axis("examples evaluated", "examples", (256, 512, 1024, 2048), _SET),
)


@dataclasses.dataclass(frozen=True)
class Line:
  """The straight line through some points with the least sum of squares.

  Attributes:
    intercept: Cost of nothing.
    slope: Cost of one more.
    deviation: The largest distance of a point from the line, relative to the line.
  """

  intercept: float
  slope: float
  deviation: float


def fit(amounts: Sequence[float], costs: Sequence[float]) -> Line:
  """Returns the line through the points of at least two different amounts."""
  slope, intercept = statistics.linear_regression(amounts, costs)
  expected = [intercept + slope * amount for amount in amounts]
  deviation = max(abs(c - e) / abs(e) for c, e in zip(costs, expected, strict=True))
  return Line(intercept, slope, deviation)


def main(argv: Sequence[str]) -> None:
  """Runs the benchmark."""
  parser = argparse.ArgumentParser(description="How costs grow.")
  parser.add_argument("--architecture", default="R14x0.5")
  parser.add_argument("--rounds", type=int, default=5, help="repetitions of each point")
  parser.add_argument("--seconds", type=float, default=0.5, help="that one takes, at least")
  parser.add_argument("--out", type=paths.argument, default=results.PATH, help="file to append to")
  options = parser.parse_args(argv)
  with results.Table("scaling", path=options.out) as table:
    for axis in AXES:
      architecture = architectures.find(options.architecture)
      for row in compare(axis, architecture, options.rounds, options.seconds):
        table.add(row)


def compare(
  axis: Axis, architecture: architectures.Architecture, rounds: int, seconds: float
) -> Iterator[results.Row]:
  """Measures the points of an axis, in turns; yields their cost, and how straight their line is.

  Args:
    axis: What grows.
    architecture: Which network.
    rounds: Repetitions of each point.
    seconds: That a repetition takes, at least.
  """
  with contextlib.ExitStack() as stack:
    started = [
      stack.enter_context(_start(axis, value, architecture, seconds)) for value in axis.values
    ]
    figures = workers.alternate(started, rounds)
  costs = [figures[str(value)].seconds for value in axis.values]
  line = fit([axis.amount(value) for value in axis.values], costs)
  task = "step" if axis.spec["task"] == "training" else "set"
  for value, cost in zip(axis.values, costs, strict=True):
    on_line = line.intercept + line.slope * axis.amount(value)
    sides = f" ({value} x {value})" if axis.field == "size" else ""
    yield results.Row(
      f"{architecture.name}, {axis.amount(value):,} {axis.name}{sides}",
      f"seconds of a {task}",
      "s",
      cost,
      "the straight line",
      on_line,
    )
  yield results.Row(
    f"{architecture.name}, {axis.name}",
    "largest deviation",
    "%",
    100 * line.deviation,
    more={"cost of none": f"{1e3 * line.intercept:.3g} ms", "of one more": f"{line.slope:.3g} s"},
  )


def _start(
  axis: Axis, value: int, architecture: architectures.Architecture, seconds: float
) -> workers.Worker:
  network = dataclasses.astuple(architecture)
  spec = {**axis.spec, "architecture": network, "seconds": seconds, axis.field: value}
  others = [f for f in os.environ.get("XLA_FLAGS", "").split() if not f.startswith(_FORCED)]
  environment = {
    "JAX_PLATFORMS": "cpu",
    "JAX_COMPILATION_CACHE_DIR": workers.compiled_programs(),
    "XLA_FLAGS": " ".join([*others, f"{_FORCED}={spec['devices']}"]),
  }
  return workers.Worker(str(value), _COMMAND, spec, environment=environment)


if __name__ == "__main__":
  main(sys.argv[1:])
