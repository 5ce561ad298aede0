"""How the cost of a step grows with images, pixels and devices, and of an evaluation with examples.

Fits a straight line to each, and reports how far the measurements deviate from it.

    python -m experiments.benchmarks.scaling [--architecture R14x1]

The devices are CPU devices that share the machine's cores, each with a batch of its own: a step on
twice as many devices does twice the work. With more cores than devices the line would be flatter.
"""

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from bit_jax.models import architectures
from bit_jax.runtime import exits
from experiments.benchmarks import results, workers


class Axis(NamedTuple):
  """A quantity that grows.

  Attributes:
    name: Name of the quantity.
    field: 'batch' (of each device), 'size', 'devices' or 'examples'.
    values: Values of the field.
    spec: The other fields, and the task of `run_worker`.
  """

  name: str
  field: str
  values: tuple[int, ...]
  spec: Mapping[str, Any]


_STEP = {"task": "training on one batch", "batch": 8, "size": 64, "devices": 1}
_SET = {"task": "evaluation", "batch": 64, "size": 32, "devices": 1}
AXES = (
  Axis("images of a batch", "batch", (4, 8, 16, 32), _STEP),
  Axis("pixels of an image", "size", (48, 64, 96, 128), _STEP),
  Axis("CPU devices", "devices", (1, 2, 4), _STEP),
  Axis("examples evaluated", "examples", (256, 512, 1024, 2048), _SET),
)


def main(argv: Sequence[str]) -> None:
  """Runs the benchmark."""
  parser = results.parser(__doc__)
  parser.add_argument("--architecture", default="R14x0.5")
  parser.add_argument("--seconds", type=float, default=0.5, help="minimum length of a repetition")
  options = parser.parse_args(argv[1:])
  name = architectures.find(options.architecture).name
  rows = (r for axis in AXES for r in compare(axis, name, options.rounds, options.seconds))
  results.record("scaling", rows, options.out)


def compare(axis: Axis, architecture: str, rounds: int, seconds: float) -> Iterator[results.Row]:
  """Measures the points of an axis in turns; yields their costs, and the deviation from a line.

  The line is that with the least sum of squares; the deviation, the largest distance of a point
  from the line, relative to the line.

  Args:
    axis: What grows.
    architecture: Name of the network.
    rounds: Repetitions of each point.
    seconds: Minimum length of a repetition.
  """
  specs = {str(value): _spec(axis, value, architecture, seconds) for value in axis.values}
  figures = workers.measure(specs, rounds)
  costs = np.array([spec["images"] / figures[name].rate for name, spec in specs.items()])
  amounts = np.array(axis.values) ** (2 if axis.field == "size" else 1)  # sides: their areas
  slope, intercept = np.polyfit(amounts, costs, 1)
  line = intercept + slope * amounts
  quantity = "seconds of a set" if axis.spec["task"] == "evaluation" else "seconds of a step"
  points = zip(axis.values, amounts, costs.tolist(), line.tolist(), strict=True)
  for value, amount, cost, expected in points:
    sides = f" ({value} x {value})" if axis.field == "size" else ""
    configuration = f"{architecture}, {amount:,} {axis.name}{sides}"
    yield results.Row(configuration, quantity, "s", cost, "the straight line", expected)
  deviation = float(np.max(np.abs(costs / line - 1)))
  more = {"cost of none": f"{1e3 * intercept:.3g} ms", "of one more": f"{slope:.3g} s"}
  configuration = f"{architecture}, {axis.name}"
  yield results.Row(configuration, "largest deviation", "%", 100 * deviation, more=more)


def _spec(axis: Axis, value: int, architecture: str, seconds: float) -> dict[str, Any]:
  """Returns what the worker of a point does."""
  fields = {**axis.spec, axis.field: value}
  batch, devices = fields["batch"] * fields["devices"], fields["devices"]
  flags = os.environ.get("XLA_FLAGS", "")  # of a flag that is given twice, the last counts
  return {
    "task": fields["task"],
    "architecture": architecture,
    "set": "random",
    "images": fields.get("examples", batch),  # those of an evaluation, or of a step
    "batch": batch,
    "resize": fields["size"],
    "crop": fields["size"],
    "seconds": seconds,
    "environment": {
      "JAX_PLATFORMS": "cpu",
      "JAX_COMPILATION_CACHE_DIR": workers.compiled_programs(),
      "XLA_FLAGS": f"{flags} --xla_force_host_platform_device_count={devices}",
    },
  }


if __name__ == "__main__":
  sys.exit(exits.run(main, sys.argv, needs_reader=False))
