"""What several runs of one setting found: lowest, median, highest, and how sure the median is."""

import dataclasses
from collections.abc import Sequence

import numpy as np

_ENOUGH = 6  # of fewer values, it always goes from the lowest to the highest
_RESAMPLES = 10_000


@dataclasses.dataclass(frozen=True)
class Summary:
  """Of one or more values; in their unit.

  Attributes:
    count: How many values.
    median: The median.
    low: The lowest.
    high: The highest.
    interval: 95 % bootstrap interval of the median (percentiles); None for fewer than 6 values.
  """

  count: int
  median: float
  low: float
  high: float
  interval: tuple[float, float] | None


def summarize(values: Sequence[float]) -> Summary:
  """Returns the summary of at least one value; their order is of no consequence."""
  ordered = np.sort(np.asarray(values, np.float64))
  interval = _bootstrap(ordered) if len(ordered) >= _ENOUGH else None
  return Summary(
    len(ordered), float(np.median(ordered)), float(ordered[0]), float(ordered[-1]), interval
  )


def _bootstrap(ordered: np.ndarray) -> tuple[float, float]:
  draws = np.random.default_rng(0).choice(ordered, (_RESAMPLES, len(ordered)))
  low, high = np.quantile(np.median(draws, axis=1), (0.025, 0.975))
  return float(low), float(high)
