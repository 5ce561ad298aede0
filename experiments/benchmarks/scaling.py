"""How the cost of a step grows with images, pixels and devices, and of an evaluation with examples.

Fits a straight line to each, and reports how far the measurements deviate from it.

    python -m experiments.benchmarks.scaling [--architecture R14x1]

The devices are CPU devices that share the machine's cores, each with a batch of its own: a step on
twice as many devices does twice the work. With more cores than devices the line would be flatter.
"""

import dataclasses
import os
import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from bit_jax.models import architectures
from bit_jax.runtime import exits
from experiments.benchmarks import results, workers

_FORCED = "--xla_force_host_platform_device_count"


@dataclasses.dataclass(frozen=True)
class Axis:
  """A quantity that grows.

  Attributes:
    name: Of the quantity.
    field: 'batch' (of each device), 'size', 'devices' or 'examples'.
    values: Of the field.
    spec: The other fields, and the task of `run_worker`.
  """

  name: str
  field: str
  values: tuple[int, ...]
  spec: Mapping[str, Any]

  def amount(self, value: int) -> int:
    """Returns the work, in which the cost should be linear: the area for a side, else the value."""
    return value**2 if self.field == "size" else value


_STEP = {"task": "training on one batch", "batch": 8, "size": 64, "devices": 1}
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
    intercept: Cost of no work.
    slope: Cost of one more unit of work.
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
  parser = results.parser(__doc__)
  parser.add_argument("--architecture", default="R14x0.5")
  parser.add_argument("--seconds", type=float, default=0.5, help="minimum length of a repetition")
  options = parser.parse_args(argv[1:])
  name = architectures.find(options.architecture).name
  rows = (r for axis in AXES for r in compare(axis, name, options.rounds, options.seconds))
  results.record("scaling", rows, options.out)


def compare(axis: Axis, architecture: str, rounds: int, seconds: float) -> Iterator[results.Row]:
  """Measures the points of an axis in turns; yields their costs, and the deviation from a line.

  Args:
    axis: What grows.
    architecture: Name of the network.
    rounds: Repetitions of each point.
    seconds: Minimum length of a repetition.
  """
  specs, environments = {}, {}
  for value in axis.values:
    fields = {**axis.spec, axis.field: value}
    batch = fields["batch"] * fields["devices"]
    specs[str(value)] = {
      "task": fields["task"],
      "architecture": architecture,
      "set": "random",
      "images": fields.get("examples", batch),  # those of an evaluation, or of a step
      "batch": batch,
      "resize": fields["size"],
      "crop": fields["size"],
      "seconds": seconds,
    }
    environments[str(value)] = _environment(fields["devices"])
  figures = workers.measure(specs, rounds, environments)
  costs = [specs[name]["images"] * figures[name].seconds for name in specs]
  line = fit([axis.amount(value) for value in axis.values], costs)
  whole = "set" if axis.spec["task"] == "evaluation" else "step"
  for value, cost in zip(axis.values, costs, strict=True):
    sides = f" ({value} x {value})" if axis.field == "size" else ""
    yield results.Row(
      f"{architecture}, {axis.amount(value):,} {axis.name}{sides}",
      f"seconds of a {whole}",
      "s",
      cost,
      "the straight line",
      line.intercept + line.slope * axis.amount(value),
    )
  more = {"cost of none": f"{1e3 * line.intercept:.3g} ms", "of one more": f"{line.slope:.3g} s"}
  yield results.Row(
    f"{architecture}, {axis.name}", "largest deviation", "%", 100 * line.deviation, more=more
  )


def _environment(devices: int) -> dict[str, str]:
  others = [f for f in os.environ.get("XLA_FLAGS", "").split() if not f.startswith(_FORCED)]
  return {
    "JAX_PLATFORMS": "cpu",
    "JAX_COMPILATION_CACHE_DIR": workers.compiled_programs(),
    "XLA_FLAGS": " ".join([*others, f"{_FORCED}={devices}"]),
  }


if __name__ == "__main__":
  sys.exit(exits.run(main, sys.argv, needs_reader=False))
