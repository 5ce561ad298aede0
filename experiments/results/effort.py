"""What runs took: time, and what of it is start-up."""

import dataclasses
import math
from collections import defaultdict
from collections.abc import Iterable
from typing import Any, NamedTuple

from experiments.results import intervals, reading


@dataclasses.dataclass(frozen=True)
class Startup:
  """Runs that share what is compiled: network, sizes, batch and classes, on one machine.

  Attributes:
    sizes: Architecture, resize, crop, batch and classes.
    place: What they ran on (`reading.Run`).
    first: Seconds until a first step was done, of those runs that began before any of the others
      was so far: what they needed they had to compile.
    later: The same of the others; None if there are none.
  """

  sizes: tuple[str, int, int, int, int]
  place: str
  first: intervals.Summary
  later: intervals.Summary | None


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


class _Start(NamedTuple):
  """When an attempt began, in seconds, and how many it took to the end of its first step."""

  began: float
  seconds: float


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
  by_program: dict[Any, list[_Start]] = defaultdict(list)
  for run in found:
    if run.sweep and run.startup_seconds and run.startup_began and run.num_classes:
      c = run.config
      sizes = (run.architecture, c["resize"], c["crop"], c["batch_size"], run.num_classes)
      start = _Start(run.startup_began.timestamp(), run.startup_seconds)
      by_program[sizes, run.recipe.dtype, run.place].append(start)
  result = []
  for (sizes, _, place), starts in by_program.items():
    if len(starts) > 1:
      compiled = min(start.began + start.seconds for start in starts)
      first = [start.seconds for start in starts if start.began <= compiled]
      later = [start.seconds for start in starts if start.began > compiled]
      summary = intervals.summarize(later) if later else None
      result.append(Startup(sizes, place, intervals.summarize(first), summary))
  return result
