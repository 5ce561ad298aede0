"""Images a second in training: measured ones, and what they let one expect of other networks.

On two CPU cores there are measurements (`benchmarks/results.jsonl`); what wasn't measured is taken
to run at the FLOP/s of the measured case that is most like it: of the same network, or else of the
R50x1, at the nearest size. Of GPUs there are data sheets: `benchmarks/roofline.py` says how fast
one could be at most, in bfloat16.
"""

import dataclasses
import json
import math
import pathlib
import re
import statistics
from collections.abc import Sequence
from typing import Any

from bit_jax import architectures
from experiments.benchmarks import comparison, results, roofline, scaling

CPU = "two CPU cores"
_CORES = 2
_REFERENCE = "R50x1"  # stands for networks of which nothing was measured
_CASE = re.compile(r"(\S+) (\d+) px batch (\d+) float32")
_SCALED = re.compile(r"(\S+), [\d,]+ pixels of an image \((\d+) x \d+\)")


@dataclasses.dataclass(frozen=True)
class Measured:
  """One measurement on two CPU cores.

  Attributes:
    architecture: Short name of the network.
    size: Side of the images in pixels.
    rate: Images per second in training, float32.
  """

  architecture: str
  size: int
  rate: float


@dataclasses.dataclass(frozen=True)
class Prediction:
  """What to expect.

  Attributes:
    rate: Images per second in training.
    basis: Where it comes from.
    measured: Whether it is the measurement itself.
    bound: Whether it is the most there can be rather than what there will be.
  """

  rate: float
  basis: str
  measured: bool = False
  bound: bool = False


def training_flops(architecture: str, size: int) -> int:
  """Returns the operations of a training step for one image (`architectures.forward_flops`)."""
  return comparison.training_flops(comparison.Case(architecture, size, 1))


def measurements(path: pathlib.Path = results.PATH) -> list[Measured]:
  """Returns those of `benchmarks/results.jsonl` that were made on two CPU cores."""
  records = [json.loads(line) for line in path.read_text().splitlines()]
  found = [m for record in records if (m := _measured(record)) is not None]
  return list(dict.fromkeys(found))  # a case is recorded once for each of its peers


def on_cpu(known: Sequence[Measured], architecture: str, size: int) -> Prediction | None:
  """Returns what two CPU cores do, or None if nothing like it is known.

  Args:
    known: From `measurements`.
    architecture: Short name of the network.
    size: Side of the images in pixels.
  """
  alike = [m for m in known if m.architecture == architecture]
  alike = alike or [m for m in known if m.architecture == _REFERENCE]
  if not alike:
    return None
  nearest = min(alike, key=lambda m: abs(math.log(m.size / size)))
  same = [m for m in alike if m.size == nearest.size]
  speed = statistics.median(m.rate * training_flops(m.architecture, m.size) for m in same)
  is_it = (nearest.architecture, nearest.size) == (architecture, size)
  case = f"{nearest.architecture} at {nearest.size} pixels"
  basis = f"measured, median of {len(same)}" if is_it else f"FLOP/s of {case}"
  return Prediction(speed / training_flops(architecture, size), basis, measured=is_it)


def on_card(card: str, architecture: str, size: int, batch: int) -> Prediction:
  """Returns the most that a card can do in bfloat16.

  Args:
    card: One of `roofline.ACCELERATORS`.
    architecture: Short name of the network.
    size: Side of the images in pixels.
    batch: Images of a step.
  """
  rate = roofline.images_per_second(
    roofline.ACCELERATORS[card], architectures.find(architecture), size, batch, training=True
  )
  return Prediction(rate, f"roofline of {card}", bound=True)


def of_run(
  known: Sequence[Measured], config: dict[str, Any], environment: dict[str, Any]
) -> Prediction | None:
  """Returns what a run's devices should do; None where nothing is known of them.

  Args:
    known: From `measurements`.
    config: The run's resolved config.
    environment: What its `environment.json` holds.
  """
  architecture = architectures.find(config["model"]).name
  if environment["platform"] == "cpu":
    if not environment["machine"].endswith(f" {_CORES} cores") or environment["dtype"] != "float32":
      return None
    return on_cpu(known, architecture, config["crop"])
  names = [name for name in roofline.ACCELERATORS if name in environment["device"]]
  if not names or environment["dtype"] != "bfloat16":
    return None
  count = environment["num_devices"]
  one = on_card(names[0], architecture, config["crop"], config["batch_size"] // count)
  return dataclasses.replace(one, rate=count * one.rate)


def _measured(record: dict[str, Any]) -> Measured | None:
  """Returns the measurement in a line of the results file, None if it holds none."""
  machine, ours = record["machine"], record["ours"]
  if not machine.endswith(f" {_CORES} cores") or "NVIDIA" in machine or ours is None:
    return None
  if record["benchmark"] == "train_step" and record["quantity"] == "training":
    case = _CASE.fullmatch(record["configuration"])
    return Measured(case[1], int(case[2]), ours) if case else None
  if record["benchmark"] == "scaling" and record["unit"] == "s":
    case = _SCALED.fullmatch(record["configuration"])
    batch = next(axis.spec["batch"] for axis in scaling.AXES if axis.field == "size")
    return Measured(case[1], int(case[2]), batch / ours) if case else None
  return None
