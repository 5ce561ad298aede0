"""Looks up published results in `published_results.csv`, which is beside this file.

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
    metric: 'top1' or 'top5'.
    value: In per cent.
    rounding: Half a unit of its last digit, the largest rounding error.
    source: Where it was published.
    model: The evaluated model, with those settings that the source states.
  """

  metric: str
  value: float
  rounding: float
  source: str
  model: str = ""


@functools.cache
def rows() -> tuple[dict[str, str], ...]:
  """Returns all rows as {column: text}."""
  with PATH.open(newline="", encoding="utf-8") as file:
    return tuple(csv.DictReader(file))


def find(source: str, model: str, dataset: str, metric: str) -> Result:
  """Returns the only row that matches.

  Args:
    source: Beginning of its source.
    model: A word of its model.
    dataset: Its data set.
    metric: The first word of its metric, such as 'top1'.

  Raises:
    LookupError: No row matches, or several do.
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
  return result(metric, row["value"], row["source"], row["model"])


def result(metric: str, text: str, source: str, model: str = "") -> Result:
  """Returns the result of a value given as text; its digits give the rounding."""
  half_a_unit = 0.5 * 10.0 ** -len(text.partition(".")[2])
  return Result(metric, float(text), half_a_unit, source, model)
