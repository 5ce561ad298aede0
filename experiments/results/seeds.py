"""Runs of one setting, which differ in their seeds alone: medians, extremes, paired differences."""

import dataclasses
import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from bit_jax.models import architectures
from bit_jax.runtime import phrases
from experiments.results import reading

_ENOUGH = 6  # with fewer values, the interval always goes from the lowest to the highest
_RESAMPLES = 10_000
_PROPERTIES = ("network", "task", "subject", "place", "per_class")  # of `Run`
_OF_CONFIG = ("resize", "crop", "batch_size")
_FLOATS = (
  *("top1", "shots", "per_class", "parameters", "wall_seconds", "step_seconds"),
  *("startup_seconds", "images_per_second"),
)


@dataclasses.dataclass(frozen=True)
class Summary:
  """Summary of one or more values, in their unit.

  Attributes:
    count: Number of values.
    median: The median.
    low: The lowest.
    high: The highest.
    interval: 95% bootstrap interval of the median (percentiles); None for fewer than 6 values.
    noun: What the values are of.
  """

  count: int
  median: float
  low: float
  high: float
  interval: tuple[float, float] | None = None
  noun: str = "seed"

  def __str__(self) -> str:
    """Returns e.g. '51.0 (50.0 to 52.0), 2 seeds'."""
    text = f"{self.median:.1f}"
    if self.count > 1:
      text += f" ({self.low:.1f} to {self.high:.1f})"
    if self.count:
      text += f", {phrases.counted(self.count, self.noun)}"
    if self.interval and self.interval != (self.low, self.high):
      text += ", median in {:.1f} to {:.1f}".format(*self.interval)
    return text


def summarize(values: Iterable[float]) -> Summary | None:
  """Returns the summary of values, whose order doesn't matter; None without any."""
  ordered = np.sort(np.asarray([*values], np.float64))
  if not len(ordered):
    return None
  interval = None
  if len(ordered) >= _ENOUGH:
    draws = np.random.default_rng(0).choice(ordered, (_RESAMPLES, len(ordered)))
    low, high = np.quantile(np.median(draws, axis=1), (0.025, 0.975))
    interval = float(low), float(high)
  median = float(np.median(ordered))
  return Summary(len(ordered), median, float(ordered[0]), float(ordered[-1]), interval)


def frame(found: Iterable[reading.Run]) -> pd.DataFrame:
  """Returns the runs as a table: a column `run`, and one for each field that runs are grouped by.

  `top1` is in %, and `parameters` the network's without its head (infinite if unknown).
  """
  runs = list(found)
  names = (*(field.name for field in dataclasses.fields(reading.Run)), *_PROPERTIES)
  columns = {
    "run": runs,
    **{name: [getattr(run, name) for run in runs] for name in names},
    **{name: [run.config[name] for run in runs] for name in _OF_CONFIG},
    "top1": [100 * run.metrics["top1"] for run in runs],
    "parameters": [num_parameters(run.architecture) for run in runs],
  }
  return pd.DataFrame(columns, dtype=object).astype(dict.fromkeys(_FLOATS, float))


def points(runs: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
  """Returns a row per setting, in order of appearance.

  Args:
    runs: From `frame`.
    by: Columns in which the runs of a setting agree.

  Returns:
    Columns `by`, the setting's `runs`, and a `Summary` in % of each of `reading.RATES`, or 'not
    available' if no run has recorded it.
  """
  records = []
  for key, members in runs.groupby(list(by), sort=False):
    metrics = [{rate: 100 * v for rate, v in run.metrics.items()} for run in members.run]
    values = [[of[rate] for of in metrics if rate in of] for rate in reading.RATES]
    shown = [summarize(of) or "not available" for of in values]
    records.append((*key, tuple(members.run), *shown))
  return pd.DataFrame(records, columns=[*by, "runs", *reading.RATES])


def rows(table: pd.DataFrame) -> list[Any]:
  """Returns the rows of a table as tuples with the columns as attributes."""
  return list(table.itertuples(index=False))


def paired_differences(
  found: Iterable[reading.Run], reference: Iterable[reading.Run]
) -> list[float]:
  """Returns the differences of top-1 between runs with the same seed, in points.

  A seed picks the examples and their order, so runs of different seeds are not compared.

  Args:
    found: Runs of one setting, each seed once.
    reference: Runs of the setting they are compared with, likewise.
  """
  theirs = {run.seed: run.metrics["top1"] for run in reference}
  return [100 * (run.metrics["top1"] - theirs[run.seed]) for run in found if run.seed in theirs]


def num_parameters(architecture: str) -> float:
  """Returns the number of parameters without the head; infinite for an unknown architecture."""
  known = architectures.ARCHITECTURES.get(architecture)
  return math.inf if known is None else architectures.num_parameters(known, None)
