"""The programs of the table: which network is compiled for which accelerator."""

import dataclasses
import itertools
from collections.abc import Iterator

from bit_jax.models import architectures
from experiments.accelerators import targets

BATCH = 512  # of a step over all devices: the rule's
TRAINING, EVALUATION = "training", "evaluation"
PROGRAMS = (TRAINING, EVALUATION)
_SIZES = (128, 480)  # pixels
_ENDS = ("R50x1", "R152x4")  # the smallest and the largest released network
_MAIN = ("h100", "v5e")  # the targets that all networks are compiled for
_OTHERS = ("a100", "h200", "v4", "v5p", "v6e")
_SEVERAL = (("h100", 8), ("v5e", 4), ("v5e", 16))


@dataclasses.dataclass(frozen=True)
class Case:
  """A program of a network on an accelerator.

  Attributes:
    target: A key of `targets.TARGETS`.
    devices: Number of devices.
    model: Name of the architecture, such as 'R50x1'.
    size: Side of the crop in pixels.
    program: One of `PROGRAMS`.
    dtype: Of convolutions: 'float32', 'bfloat16', or 'auto' for what a run takes there.
  """

  target: str
  devices: int
  model: str
  size: int
  program: str = TRAINING
  dtype: str = "auto"

  @property
  def name(self) -> str:
    """Such as '8 x h100 R50x1 480 px training'."""
    dtype = "" if self.dtype == "auto" else f" {self.dtype}"
    return f"{self.devices} x {self.target} {self.model} {self.size} px {self.program}{dtype}"

  @property
  def on_gpu(self) -> bool:
    """Whether the accelerator is a GPU; the others are TPUs."""
    return targets.TARGETS[self.target].platform == "gpu"


def table() -> list[Case]:
  """Returns the cases of the table in its order."""
  return [*small(), *_released()]


def small() -> list[Case]:
  """Returns the cases that a change of the network or the step is tried with, in minutes."""
  return [Case(target, 1, "R14x0.5", 128) for target in _MAIN]


def _released() -> Iterator[Case]:
  released = [name for name in architectures.ARCHITECTURES if name not in architectures.SMALL]
  for target, model, size, program in itertools.product(_MAIN, released, _SIZES, PROGRAMS):
    yield Case(target, 1, model, size, program)
  for target, model in itertools.product(_OTHERS, _ENDS):
    yield Case(target, 1, model, 480)
  for (target, count), model in itertools.product(_SEVERAL, _ENDS):
    yield Case(target, count, model, 480)
  for target in _MAIN:
    yield Case(target, 1, "R50x1", 128, dtype="float32")


def effort(case: Case) -> tuple[bool, int, bool]:
  """Sorts cases by how long they take: TPU's compiler is the slower one, more so at 480 pixels."""
  layers = sum(architectures.find(case.model).depths)
  return not case.on_gpu, layers * case.size, case.program == TRAINING
