"""Images a second in training: measured ones, and what they let one expect of other networks.

`benchmarks/results.jsonl` holds what was measured: in float32 on two CPU cores, in bfloat16 on a
GPU. What wasn't measured on a device is taken to run at the FLOP/s of the case measured there that
is most like it: of the same network, or else of one nearest in width and then in depth, at the
nearest size. Of GPUs there are data sheets too: `benchmarks/roofline.py` says how fast one could be
at most, in bfloat16.
"""

import dataclasses
import json
import math
import pathlib
import re
import statistics
from collections.abc import Sequence
from typing import Any

from bit_jax.models import architectures
from experiments.benchmarks import comparison, results, roofline, scaling

CPU = "two CPU cores"
CARDS = ("A100", "H100", "H200")
_CORES = 2
_CASE = re.compile(r"(\S+) (\d+) px batch (\d+) (float32|bfloat16)")
_SCALED = re.compile(r"(\S+), [\d,]+ pixels of an image \((\d+) x \d+\)")
_MACHINE = re.compile(r".*, (\d+) cores?")


@dataclasses.dataclass(frozen=True)
class Measured:
  """One measurement.

  Attributes:
    architecture: Short name of the network.
    size: Side of the images in pixels.
    batch: Images of a step.
    rate: Images per second in training; float32 on CPU, bfloat16 on a card.
    device: `CPU`, or a card: one of `roofline.ACCELERATORS`, or its own name.
  """

  architecture: str
  size: int
  batch: int
  rate: float
  device: str = CPU


@dataclasses.dataclass(frozen=True)
class Setting:
  """What a run computes, and where.

  Attributes:
    architecture: Short name of the network.
    size: Side of the training images in pixels.
    batch: Images of a step over all devices.
    dtype: What it computes in.
    devices: Kind of the devices: 'cpu', or such as 'NVIDIA H200'; several where it went on
      elsewhere.
    num_devices: How many, or None.
    machines: What the run says of its machine, such as 'Linux x86_64, 2 cores'; likewise.
  """

  architecture: str
  size: int
  batch: int
  dtype: str
  devices: tuple[str, ...]
  num_devices: int | None
  machines: tuple[str, ...]


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
  """Returns those of `benchmarks/results.jsonl` that were made on two CPU cores or a GPU."""
  records = [json.loads(line) for line in path.read_text().splitlines()]
  found = [m for record in records if (m := _measured(record)) is not None]
  return list(dict.fromkeys(found))  # a case is recorded once for each of its peers


def measured_cards(known: Sequence[Measured]) -> list[str]:
  """Returns the cards of which something was measured, by name."""
  return sorted({m.device for m in known} - {CPU})


def on_cpu(known: Sequence[Measured], architecture: str, size: int) -> Prediction | None:
  """Returns what two CPU cores do, or None if nothing was measured there.

  Args:
    known: From `measurements`.
    architecture: Short name of the network.
    size: Side of the images in pixels.
  """
  return _from_measured([m for m in known if m.device == CPU], architecture, size)


def on_card(
  known: Sequence[Measured], card: str, architecture: str, size: int, batch: int
) -> Prediction | None:
  """Returns what a card does in bfloat16: measured, estimated, or the most that it can do.

  An estimate of more than the data sheet allows gives way to that.

  Args:
    known: From `measurements`.
    card: One of `roofline.ACCELERATORS`, or of `measured_cards`.
    architecture: Short name of the network.
    size: Side of the images in pixels.
    batch: Images of a step.

  Returns:
    The prediction; None where nothing was measured of a card whose data sheet isn't known.
  """
  found = _from_measured([m for m in known if m.device == card], architecture, size)
  accelerator = roofline.ACCELERATORS.get(card)
  if accelerator is None or (found is not None and found.measured):
    return found
  rate = roofline.images_per_second(
    accelerator, architectures.find(architecture), size, batch, training=True
  )
  if found is not None and found.rate <= rate:
    return found
  return Prediction(rate, f"roofline of {card}", bound=True)


def of_run(known: Sequence[Measured], setting: Setting) -> Prediction | None:
  """Returns what a run's devices should do; None where nothing is known of them.

  One CPU core is taken for half of two; several cards for as many times one.
  Nothing is said of a run that went on elsewhere: how much of it was made where, no one noted.

  Args:
    known: From `measurements`.
    setting: Of the run.
  """
  if len(setting.devices) != 1 or len(setting.machines) > 1:
    return None
  (device,) = setting.devices
  if device == "cpu":
    return _of_cores(known, setting)
  count = setting.num_devices
  if count is None or setting.dtype != "bfloat16":
    return None
  card, batch = _card(device), setting.batch // count
  one = on_card(known, card, setting.architecture, setting.size, batch)
  if one is None or count == 1:
    return one
  return Prediction(count * one.rate, f"{count} x {one.basis}", bound=one.bound)


def _of_cores(known: Sequence[Measured], setting: Setting) -> Prediction | None:
  machine = _MACHINE.fullmatch(setting.machines[0]) if setting.machines else None
  both = on_cpu(known, setting.architecture, setting.size)
  if both is None or machine is None or setting.dtype != "float32":
    return None
  cores = int(machine[1])
  if cores == 1:
    return Prediction(both.rate / _CORES, f"half of two cores: {both.basis}")
  return both if cores == _CORES else None


def _from_measured(here: Sequence[Measured], architecture: str, size: int) -> Prediction | None:
  """Returns the measurement of a case, or else what the one most like it lets one expect.

  Args:
    here: Measurements of one device. Of several batches the largest counts.
    architecture: Short name of the network.
    size: Side of the images in pixels.
  """
  if not here:
    return None

  def distance(m: Measured) -> tuple[float, ...]:
    return (*_unlike(m.architecture, architecture), abs(math.log(m.size / size)), -m.batch)

  nearest = min(here, key=distance)
  case = (nearest.architecture, nearest.size)
  same = [m for m in here if (m.architecture, m.size, m.batch) == (*case, nearest.batch)]
  speed = statistics.median(m.rate for m in same) * training_flops(*case)
  is_it = case == (architecture, size)
  basis = (
    f"measured, median of {len(same)}" if is_it else f"FLOP/s of {case[0]} at {case[1]} pixels"
  )
  return Prediction(speed / training_flops(architecture, size), basis, measured=is_it)


def _unlike(one: str, other: str) -> tuple[float, float]:
  """Returns how far two networks are from each other: in width, then in depth, both on a log."""
  a, b = architectures.find(one), architectures.find(other)
  depths = sum(a.depths) / sum(b.depths)
  return abs(math.log(a.width / b.width)), abs(math.log(depths))


def _card(device: str) -> str:
  """Returns what a device is called here, from such as 'NVIDIA H200'."""
  known = (name for name in roofline.ACCELERATORS if name in device)
  return next(known, device.removeprefix("NVIDIA "))


def _measured(record: dict[str, Any]) -> Measured | None:
  """Returns the measurement in a line of the results file, None if it holds none."""
  ours, text = record["ours"], record["configuration"]
  *gpus, _, cores = record["machine"].split(", ")  # `machine.Machine`
  on_two_cores = not gpus and cores == f"{_CORES} cores"
  if ours is None:
    return None
  if record["benchmark"] == "train_step" and record["quantity"] == "training":
    case = _CASE.fullmatch(text)
    if case and case[4] == "float32" and on_two_cores:
      return Measured(case[1], int(case[2]), int(case[3]), ours)
    if case and case[4] == "bfloat16" and gpus:  # of several the benchmark takes the first
      return Measured(case[1], int(case[2]), int(case[3]), ours, _card(gpus[0]))
  if record["benchmark"] == "scaling" and record["unit"] == "s" and on_two_cores:
    case = _SCALED.fullmatch(text)
    batch = next(axis.spec["batch"] for axis in scaling.AXES if axis.field == "size")
    return Measured(case[1], int(case[2]), batch, batch / ours) if case else None
  return None
