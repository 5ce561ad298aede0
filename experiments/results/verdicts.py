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

# Runs, their value, and what is missing in it.
_Ours = tuple[Sequence[reading.Run], seeds.Summary, list[str]]


@dataclasses.dataclass(frozen=True)
class Comparison:
  """A published value and ours.

  Attributes:
    row: A row of `read`.
    ours: Our value in %; of a mean over tasks, the extremes of the seeds that all tasks share.
    differences: What isn't like with like; empty if nothing.
  """

  row: Any
  ours: seeds.Summary
  differences: tuple[str, ...]

  @property
  def verdict(self) -> str | None:
    """How far ours is off, and whether it is of one seed only; None if not like with like."""
    if self.differences:
      return None
    row, ours = self.row, round(self.ours.median, 6)  # 100 * 0.546 is a little more than 54.6
    text = f"off by {ours - row.value:+.1f}"
    if row.spread_low <= ours <= row.spread_high:  # never if there is none: NaN
      text = "within the published spread"
    elif round(abs(ours - row.value), 6) <= _ONE_POINT:
      text = "within one point"
    return f"{text} (one seed only)" if self.ours.count == 1 else text


def read() -> list[Any]:
  """Returns the published values that a run of this project can be compared with.

  Their attributes are the table's columns, with `value`, `spread_low` and `spread_high` as numbers
  in %, and: `how` (a `_Source`); `checkpoint`, such as 'BiT-M-R50x1'; `name`, 'top1' or 'top5';
  `shots`; `group`, the mean over VTAB-1k's tasks that it is, or ''; and as text `cited` (the
  source), `label`, `examples`, `network` and `published`. A spread is the lowest and the highest
  value, or the median minus and plus one standard deviation; NaN if there is none.
  """
  rows = pd.DataFrame(published.rows(), dtype=object)
  rows["how"] = rows.source.map(
    lambda name: next((s for s in _SOURCES if name.startswith(s.beginning)), None)
  )
  rows["cited"] = rows.source + "; " + rows.url_or_citation
  rows["checkpoint"] = rows.model.str.extract(_MODEL)[0]
  rows["name"] = rows.metric.str.partition(" ")[0]
  number = rows.regime.str.extract(r"^(\d+)-shot$")[0].astype(float)
  rows["shots"] = number.fillna(reading.ALL)
  rows["group"] = [_VTAB_ROWS.get(dataset, "") for dataset in rows.dataset]
  comparable = rows.regime.isin(["full", "vtab1k"]) | number.notna()
  known = rows.how.notna() & rows.checkpoint.notna() & rows.name.isin(["top1", "top5"])
  rows = rows[comparable & known].copy()
  spreads = " (" + rows.spread_low + " to " + rows.spread_high + ")"
  rows["published"] = rows.value + spreads.where((rows.spread_low + rows.spread_high) != "", "")
  for name in ("value", "spread_low", "spread_high"):
    rows[name] = pd.to_numeric(rows[name])
  rows["label"] = rows.dataset.where(rows.name == "top1", rows.dataset + ", " + rows.name)
  rows["examples"] = rows.shots.map(reading.examples).mask(rows.group != "", "1000")
  rows["network"] = [model.replace(" [", ", ").rstrip("]") for model in rows.model]
  return seeds.rows(rows)


def compare(
  rows: Sequence[Any], runs: pd.DataFrame, scores: Iterable[comparisons.Score]
) -> list[Comparison]:
  """Returns every published value for whose model, data, shots and metric there are runs.

  Args:
    rows: From `read`.
    runs: From `seeds.frame`.
    scores: Scores of the same runs, from `comparisons.scores`.
  """
  points = seeds.rows(seeds.points(runs[runs.task.isna()], [*comparisons.CELL, "recipe"]))
  result = []
  for row in rows:
    for found, ours, missing in _of_scores(row, scores) if row.group else _of_points(row, points):
      if row.checkpoint in (found[0].model, found[0].config["weights"]):
        listed = [*missing, *(text for run in found for text in _differences(row, run))]
        result.append(Comparison(row, ours, tuple(dict.fromkeys(listed))))
  return result


def unmatched(found: Iterable[reading.Run], compared: Iterable[Comparison]) -> list[str]:
  """Returns the networks among the runs for which no value was published, sorted."""
  names = {one.row.checkpoint for one in compared}
  return sorted({r.network for r in found if not names & {r.model, str(r.config["weights"])}})


def _of_points(row: Any, points: Iterable[Any]) -> Iterator[_Ours]:
  for point in points:
    ours = getattr(point, row.name)
    same = (row.dataset, row.shots) == (point.dataset, point.shots)
    if same and isinstance(ours, seeds.Summary):
      yield point.runs, dataclasses.replace(ours, interval=None), []


def _of_scores(row: Any, scores: Iterable[comparisons.Score]) -> Iterator[_Ours]:
  for score in scores:
    mean = score.means[row.group]
    if mean.top1:
      tasks = vtab.TASKS if row.group == "all" else comparisons.VTAB_GROUPS[row.group]
      missing = [] if mean.is_complete else [f"{mean.done} of {mean.of} tasks"]
      yield [run for run in score.runs if run.task in tasks], mean.top1, missing


def _differences(row: Any, run: reading.Run) -> Iterator[str]:
  """Yields the differences between a run and the published one, as 'ours, theirs'."""
  preset, resize, crop = row.how.preset, run.config["resize"], run.config["crop"]
  if row.how.unstated:
    yield f"the source doesn't state {row.how.unstated}"
  elif run.recipe.preset != preset:
    yield f"preset {run.recipe.preset}, theirs {preset}"
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
  if preset and not dict(run.recipe.departures).keys() & {"resize", "crop"}:
    # The run's own preset doesn't show a difference in resolution from theirs.
    image_size = datasets.find(run.dataset, "final").image_size
    source = "paper" if preset == "paper" else "code"
    theirs = hyperrule.resolution(image_size, row.checkpoint, source)
    if theirs != (resize, crop):
      yield f"resize {resize} and crop {crop}, theirs {theirs[0]} and {theirs[1]}"
  if not run.complete:
    tested = "an unknown number" if run.num_test is None else f"{run.num_test:,}"
    yield f"{run.num_train:,} images trained on and {tested} evaluated, not the whole data set"
