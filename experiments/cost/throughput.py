"""Images per second in training: measurements, and predictions for other networks and sizes.

`benchmarks/results.jsonl` holds the measurements: in float32 on two CPU cores, in bfloat16 on a
GPU. A case that wasn't measured on a device is predicted at the FLOP/s of the most similar case
that was: the same network, else the nearest in width and then in depth, at the nearest size. For
GPUs, data sheets bound the speed in bfloat16 (`benchmarks/roofline.py`).
"""

import dataclasses
import json
import math
import pathlib
import re
import statistics
from collections.abc import Sequence
from typing import Any, NamedTuple

from bit_jax.models import architectures
from experiments.benchmarks import comparison, results, roofline, scaling

CPU = "two CPU cores"
CARDS = ("A100", "H100", "H200")
_CASE = re.compile(r"(\S+) (\d+) px batch (\d+) (float32|bfloat16)")
_SCALED = re.compile(r"(\S+), [\d,]+ pixels of an image \((\d+) x \d+\)")


@dataclasses.dataclass(frozen=True)
class Measured:
  """One measurement.

  Attributes:
    architecture: Short name of the network.
    size: Side of the images in pixels.
    batch: Images per step.
    rate: Images per second in training; float32 on CPU, bfloat16 on a card.
    device: `CPU`, one of `roofline.ACCELERATORS`, or another card's name.
  """

  architecture: str
  size: int
  batch: int
  rate: float
  device: str = CPU


class Prediction(NamedTuple):
  """A predicted speed.

  Attributes:
    rate: Images per second in training.
    basis: 'm', measured; '~', an estimate from measurements; or '>=', the upper bound of a data
      sheet, so that a run takes longer.
  """

  rate: float
  basis: str


def measurements(path: pathlib.Path = results.PATH) -> list[Measured]:
  """Returns the measurements of `benchmarks/results.jsonl` on two CPU cores or a GPU."""
  found = map(_measured, map(json.loads, path.read_text().splitlines()))
  return list(dict.fromkeys(filter(None, found)))  # a case is recorded once for each peer


def predict(
  known: Sequence[Measured], device: str, architecture: str, size: int, batch: int
) -> Prediction | None:
  """Returns the speed of a device: measured, estimated, or bounded by its data sheet.

  An estimate above the bound of the data sheet is replaced by the bound.

  Args:
    known: From `measurements`.
    device: `CPU`, one of `roofline.ACCELERATORS`, or of the devices of `known`.
    architecture: Short name of the network.
    size: Side of the images in pixels.
    batch: Images per step; only the bound of a data sheet depends on it.

  Returns:
    The prediction; None for a device with neither measurements nor a known data sheet.
  """
  here = [m for m in known if m.device == device]
  found = _from_measured(here, architecture, size) if here else None
  accelerator = roofline.ACCELERATORS.get(device)
  if accelerator is None or (found and found.basis == "m"):
    return found
  network = architectures.find(architecture)
  rate = accelerator.images_per_second(roofline.operations(network, size, batch, training=True))
  return found if found and found.rate <= rate else Prediction(rate, ">=")


def _from_measured(here: Sequence[Measured], architecture: str, size: int) -> Prediction:
  """Returns the measurement of a case, or else an estimate from the most similar one.

  Args:
    here: Measurements of one device. Of several batches the largest counts.
    architecture: Short name of the network.
    size: Side of the images in pixels.
  """
  wanted = architectures.find(architecture)

  def distance(m: Measured) -> tuple[float, ...]:
    other = architectures.find(m.architecture)
    return (
      abs(math.log(other.width / wanted.width)),
      abs(math.log(sum(other.depths) / sum(wanted.depths))),
      abs(math.log(m.size / size)),
      -m.batch,
    )

  nearest = min(here, key=distance)
  case = comparison.Case(nearest.architecture, nearest.size, nearest.batch)
  rates = [m.rate for m in here if (m.architecture, m.size, m.batch) == case]
  predicted = case._replace(architecture=architecture, size=size)
  rate = statistics.median(rates) * case.flops("training") / predicted.flops("training")
  return Prediction(rate, "m" if case == predicted else "~")


def _card(device: str) -> str:
  """Returns the short name of a device such as 'NVIDIA H200'."""
  known = (name for name in roofline.ACCELERATORS if name in device)
  return next(known, device.removeprefix("NVIDIA "))


def _measured(record: dict[str, Any]) -> Measured | None:
  """Returns the measurement in a line of the results file, None if it holds none."""
  ours, text = record["ours"], record["configuration"]
  *gpus, _, cores = record["machine"].split(", ")  # `benchmarks.machine.describe`
  if ours is None or not (gpus or cores == "2 cores"):
    return None
  # The benchmark uses the first of several GPUs.
  device, dtype = (_card(gpus[0]), "bfloat16") if gpus else (CPU, "float32")
  if record["benchmark"] == "train_step" and record["quantity"] == "training":
    case = _CASE.fullmatch(text)
    if case and case[4] == dtype:
      return Measured(case[1], int(case[2]), int(case[3]), ours, device)
  if record["benchmark"] == "scaling" and record["unit"] == "s" and device == CPU:
    case = _SCALED.fullmatch(text)
    batch = next(axis.spec["batch"] for axis in scaling.AXES if axis.field == "size")
    return Measured(case[1], int(case[2]), batch, batch / ours) if case else None
  return None
