"""Published results, looked up: `published_results.csv` beside this file, row by row.

published.find("timm results", "resnetv2_50x1_bit.goog_in21k_ft_in1k", "imagenet2012 val", "top1")
"""

import csv
import dataclasses
import functools
import pathlib

PATH = pathlib.Path(__file__).with_name("published_results.csv")


@dataclasses.dataclass(frozen=True)
class Result:
  """One published value.

  Attributes:
    source: Where it was published.
    model: What it was measured of, and what of its setting the source states.
    dataset: On what.
    value: In per cent.
    rounding: Half a unit of its last digit: how far off the exact value may be.
  """

  source: str
  model: str
  dataset: str
  value: float
  rounding: float


@functools.cache
def rows() -> tuple[dict[str, str], ...]:
  """Returns all rows as {column: text}."""
  with PATH.open(newline="", encoding="utf-8") as file:
    return tuple(csv.DictReader(file))


def find(source: str, model: str, dataset: str, metric: str) -> Result:
  """Returns the one row that fits.

  Args:
    source: What its source begins with.
    model: A word of its model.
    dataset: Its data set.
    metric: The first word of its metric, such as 'top1'.

  Raises:
    LookupError: No row fits, or several do.
  """
  wanted = [
    row
    for row in rows()
    if row["source"].startswith(source)
    and model in row["model"].split()
    and row["dataset"] == dataset
    and row["metric"].split()[0] == metric
  ]
  if len(wanted) != 1:
    raise LookupError(f"{len(wanted)} rows of {PATH.name}: {source}, {model}, {dataset}, {metric}")
  (row,) = wanted
  return Result(
    row["source"], row["model"], row["dataset"], float(row["value"]), rounding(row["value"])
  )


def rounding(text: str) -> float:
  """Returns half a unit of the last digit of a number as it is written."""
  return 0.5 * 10.0 ** -len(text.partition(".")[2])
