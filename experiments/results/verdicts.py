"""Published values beside the runs' values, with a verdict if the comparison is like with like.

The values and their sources are in `experiments/published_results.csv`. How the sources trained:
the paper as its text says (arXiv 1912.11370, 3.3), with batch 512; the README of
google-research/big_transfer used batch 128 and learning rate 0.001 for its CIFAR table and the rule
of its code for its ImageNet table; it states neither rule nor resolution for its VTAB table; the
colab's CIFAR-100 run has batch 64, and its learning rate is not recorded here.
"""

import dataclasses
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import pandas as pd

from bit_jax import hyperrule
from bit_jax.data import datasets, vtab
from experiments import published
from experiments.results import comparisons, reading, seeds


class _Source(NamedTuple):
  """How the runs of a source were trained; `unstated` is what it doesn't state of that."""

  beginning: str  # of its name in the table
  preset: str | None
  unstated: str | None = None


_SOURCES = (
  _Source("BiT paper Table 2", "paper"),
  _Source("BiT paper sec 3.4", "paper"),
  _Source("big_transfer README CIFAR table", "readme_128"),
  _Source("big_transfer README ImageNet table", "code"),
  _Source("big_transfer README VTAB-1k table", None, "which rule and resolution it used"),
  _Source("big_transfer JAX colab output (batch 64", None, "its learning rate, at batch 64"),
  _Source("big_transfer PyTorch colab output (batch 512", "code"),
)
_VTAB_ROWS = {  # data set in the table: key of `comparisons.Score.means`
  "vtab-1k(19 tasks)": "all",
  "vtab-1k all 19": "all",
  "vtab-1k natural (7)": vtab.NATURAL,
  "vtab-1k specialized (4)": vtab.SPECIALIZED,
  "vtab-1k structured (8)": vtab.STRUCTURED,
}
_MODEL = re.compile(r"^(BiT-[SM]-R\d+x\d+)(?: \[(?:TF2|Jax|PyTorch)\])?$")
_ONE_POINT = 1.0


@dataclasses.dataclass(frozen=True)
class Comparison:
  """A published value and ours.

  Attributes:
    row: A row of `read`.
    ours: The value in %.
    spread: Our lowest and highest in %; None where no seed was run on everything.
    count: Number of seeds; for a mean over tasks, of those that all tasks share.
    network: The network's name.
    differences: What isn't like with like; empty if nothing.
  """

  row: Any
  ours: float
  spread: tuple[float, float] | None
  count: int
  network: str
  differences: tuple[str, ...]

  @property
  def verdict(self) -> str | None:
    """How far ours is off, and whether it is of one seed only; None if not like with like."""
    if self.differences:
      return None
    return f"{verdict(self.row, self.ours)}{' (one seed only)' if self.count == 1 else ''}"

  @property
  def text(self) -> str:
    """Our value and spread."""
    if self.spread is None:
      return f"{self.ours:.1f}"
    return str(seeds.Summary(self.count, self.ours, *self.spread))


def verdict(row: Any, ours: float) -> str:
  """Returns how far a value is off a published one.

  Args:
    row: A row of `read`.
    ours: In %.
  """
  ours = round(ours, 6)  # 100 * 0.546 is a little more than 54.6
  if row.spread_low <= ours <= row.spread_high:  # never if there is none: NaN
    return "within the published spread"
  if round(abs(ours - row.value), 6) <= _ONE_POINT:
    return "within one point"
  return f"off by {ours - row.value:+.1f}"


def read() -> list[Any]:
  """Returns the published values that a run of this project can be compared with.

  Their attributes are the table's columns, with `value`, `spread_low` and `spread_high` as numbers
  in %, and: `how` (a `_Source`); `checkpoint`, such as 'BiT-M-R50x1'; `name`, 'top1' or 'top5';
  `shots`; `group`, the mean over VTAB-1k's tasks that it is, or ''; and as text `label`,
  `examples`, `network` and `published`. A spread is the lowest and the highest value, or the median
  minus and plus one standard deviation; NaN if there is none.
  """
  rows = pd.DataFrame(published.rows(), dtype=object)
  rows["how"] = rows.source.map(_source)
  rows["checkpoint"] = rows.model.str.extract(_MODEL)[0]
  rows["name"] = rows.metric.str.partition(" ")[0]
  number = rows.regime.str.extract(r"^(\d+)-shot$")[0].astype(float)
  rows["shots"] = number.fillna(reading.ALL)
  rows["group"] = [_VTAB_ROWS.get(dataset, "") for dataset in rows.dataset]
  comparable = rows.regime.isin(["full", "vtab1k"]) | number.notna()
  known = rows.how.notna() & rows.checkpoint.notna() & rows.name.isin(["top1", "top5"])
  rows = rows[comparable & known].copy()
  ends = rows[["spread_low", "spread_high"]].apply(pd.to_numeric)
  spreads = ends.apply(" ({0.spread_low:g} to {0.spread_high:g})".format, axis=1)
  rows["published"] = rows.value + spreads.where(ends.notna().all(axis=1), "")
  rows[list(ends)] = ends
  rows["value"] = rows.value.astype(float)
  rows["label"] = rows.dataset.where(rows.name == "top1", rows.dataset + ", " + rows.name)
  rows["examples"] = rows.shots.map(reading.examples).mask(rows.group != "", "1000")
  rows["network"] = [model.replace(" [", ", ").rstrip("]") for model in rows.model]
  return seeds.rows(rows)


def _source(name: str) -> _Source | None:
  return next((source for source in _SOURCES if name.startswith(source.beginning)), None)


def compare(
  rows: Sequence[Any], runs: pd.DataFrame, scores: Iterable[comparisons.Score]
) -> list[Comparison]:
  """Returns every published value for whose model, data, shots and metric there are runs.

  Args:
    rows: From `read`.
    runs: From `seeds.frame`.
    scores: Of the same runs, from `comparisons.scores`.
  """
  points = seeds.rows(seeds.points(runs[runs.task.isna()], [*comparisons.CELL, "recipe"]))
  result: list[Comparison] = []
  for row in rows:
    if not row.group:
      result += [one for point in points for one in _of_point(row, point)]
    else:
      result += [one for score in scores for one in _of_score(row, score)]
  return result


def unmatched(found: Iterable[reading.Run], compared: Iterable[Comparison]) -> list[str]:
  """Returns the networks among the runs for which no value was published, sorted."""
  names = {one.row.checkpoint for one in compared}
  return sorted({r.network for r in found if not names & {r.model, str(r.config["weights"])}})


def _is_of(row: Any, run: reading.Run) -> bool:
  return row.checkpoint in (run.model, run.config["weights"])


def _of_point(row: Any, point: Any) -> Iterator[Comparison]:
  values = [100 * r.metrics[row.name] for r in point.runs if row.name in r.metrics]
  same = (row.dataset, row.shots) == (point.dataset, point.shots)
  if same and values and _is_of(row, point.runs[0]):
    ours = seeds.summarize(values)
    differences = tuple(dict.fromkeys(d for run in point.runs for d in _differences(row, run)))
    spread = (ours.low, ours.high)
    yield Comparison(row, ours.median, spread, ours.count, point.network, differences)


def _of_score(row: Any, score: comparisons.Score) -> Iterator[Comparison]:
  mean = score.means[row.group]
  if mean.value is None or not _is_of(row, score.runs[0]):
    return
  differences = [] if mean.is_complete else [f"{mean.done} of {mean.of} tasks"]
  tasks = vtab.TASKS if row.group == "all" else comparisons.VTAB_GROUPS[row.group]
  differences += [d for run in score.runs if run.task in tasks for d in _differences(row, run)]
  spread = (min(mean.seeds), max(mean.seeds)) if mean.seeds else None
  unique = tuple(dict.fromkeys(differences))
  yield Comparison(row, mean.value, spread, len(mean.seeds), score.runs[0].network, unique)


def _differences(row: Any, run: reading.Run) -> Iterator[str]:
  """Yields the differences between a run and the published one, as 'ours, theirs'."""
  if row.how.unstated:
    yield f"the source doesn't state {row.how.unstated}"
  elif run.recipe.preset != row.how.preset:
    yield f"preset {run.recipe.preset}, theirs {row.how.preset}"
  if not run.checkpoint_agrees:
    yield reading.DISAGREE
  if run.config["weights"] != row.checkpoint:
    yield f"starts from {run.start}, not from the released {row.checkpoint}"
  elif not run.checkpoint_sha256:
    yield "the hash of its checkpoint isn't recorded"
  elif run.checkpoint_sha256[:8] in run.start:  # the hash distinguishes it from another
    yield f"several files among these runs are called {row.checkpoint}"
  if run.protocol != "final":
    yield f"protocol {run.protocol}, theirs final"
  if not run.recipe.follows_rule:
    yield f"a departure from the rule{f' ({run.reason})' if run.reason else ''}: {run.rule}"
  if row.how.preset and (sizes := _published_sizes(row, run)):
    yield sizes
  if not run.complete:
    tested = "an unknown number" if run.num_test is None else f"{run.num_test:,}"
    yield f"{run.num_train:,} images trained on and {tested} evaluated, not the whole data set"


def _published_sizes(row: Any, run: reading.Run) -> str | None:
  """Returns a difference in resolution that the run's own preset doesn't show."""
  spec = datasets.find(run.dataset, "final")
  source = "paper" if row.how.preset == "paper" else "code"
  theirs = hyperrule.resolution(spec.image_size, row.checkpoint, source)
  ours = (run.config["resize"], run.config["crop"])
  if ours == theirs or dict(run.recipe.departures).keys() & {"resize", "crop"}:
    return None
  return f"resize {ours[0]} and crop {ours[1]}, theirs {theirs[0]} and {theirs[1]}"
