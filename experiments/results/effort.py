"""What runs took: time, and what of it is start-up."""

import dataclasses
import math
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from experiments.results import intervals, reading


@dataclasses.dataclass(frozen=True)
class Startup:
  """Runs that share what is compiled: network, sizes, batch and classes, on one machine.

  Attributes:
    sizes: Architecture, resize, crop, batch and classes.
    place: What they ran on (`reading.Run`).
    first: Seconds until the first of them was through its first step.
    others: The same of the later ones.
  """

  sizes: tuple[str, int, int, int, int]
  place: str
  first: float
  others: intervals.Summary


@dataclasses.dataclass(frozen=True)
class Effort:
  """Runs of one network that go through as many images of one size, on one kind of machine.

  Attributes:
    sizes: Architecture, resize, crop, batch and steps.
    place: What they ran on (`reading.Run`).
    count: How many runs.
    images: What each run's steps go through.
    rate: Images a second of the steps, the median.
    seconds: Of all runs from start to end, evaluations included; None if that isn't known of each.
  """

  sizes: tuple[str, int, int, int, int]
  place: str
  count: int
  images: int
  rate: float
  seconds: float | None


def efforts(found: Iterable[reading.Run]) -> list[Effort]:
  """Returns what the timed runs took, those that take least first."""
  alike: dict[Any, list[reading.Run]] = defaultdict(list)
  for run in found:
    if run.images_per_second is not None and run.steps is not None:
      c = run.config
      sizes = (run.architecture, c["resize"], c["crop"], c["batch_size"], run.steps)
      alike[sizes, run.place].append(run)
  result = []
  for (sizes, place), members in alike.items():
    rate = intervals.summarize([run.images_per_second or 0.0 for run in members]).median
    walls = [run.wall_seconds for run in members if run.wall_seconds is not None]
    seconds = math.fsum(walls) if len(walls) == len(members) else None
    images = sizes[3] * sizes[4]
    result.append(Effort(sizes, place, len(members), images, rate, seconds))
  return sorted(result, key=lambda one: (one.images, one.sizes, one.place))


def startups(found: Iterable[reading.Run]) -> list[Startup]:
  """Returns how runs of a sweep started that share what is compiled, where there are several."""
  by_program: dict[Any, list[reading.Run]] = defaultdict(list)
  for run in found:
    if run.sweep and run.startup_seconds is not None and run.num_classes and run.started:
      c = run.config
      sizes = (run.architecture, c["resize"], c["crop"], c["batch_size"], run.num_classes)
      by_program[sizes, run.recipe.dtype, run.place].append(run)
  result = []
  for (sizes, _, place), members in by_program.items():
    ordered = [r.startup_seconds or 0.0 for r in sorted(members, key=lambda run: run.started)]
    if len(ordered) > 1:
      result.append(Startup(sizes, place, ordered[0], intervals.summarize(ordered[1:])))
  return result
