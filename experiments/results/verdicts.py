"""Published values beside ours, with a verdict where the comparison is like with like.

The values, each with its source, are in `experiments/published_results.csv`. How the sources
trained: the paper by what its text says (arXiv 1912.11370, 3.3), with batch 512; the README of
google-research/big_transfer its CIFAR table with batch 128 and learning rate 0.001, its ImageNet
table by the rule as its code has it; of its VTAB table it tells neither rule nor resolution; the
colab's CIFAR-100 run has batch 64, and a learning rate that isn't on record here.
"""

import dataclasses
import re
from collections.abc import Iterable, Iterator, Sequence

from bit_jax import hyperrule
from bit_jax.data import datasets, vtab
from experiments import published
from experiments.results import intervals, reading, seeds, vtab_means


@dataclasses.dataclass(frozen=True)
class _Source:
  """How the runs of a source were made; `unstated` is what it doesn't tell."""

  beginning: str  # of what the table calls it
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
_VTAB_ROWS = {  # data set in the table: key of `vtab_means.Score.means`
  "vtab-1k(19 tasks)": "all",
  "vtab-1k all 19": "all",
  "vtab-1k natural (7)": vtab.NATURAL,
  "vtab-1k specialized (4)": vtab.SPECIALIZED,
  "vtab-1k structured (8)": vtab.STRUCTURED,
}
_MODEL = re.compile(r"(BiT-[SM]-R\d+x\d+)(?: \[(?:TF2|Jax|PyTorch)\])?")
_ONE_POINT = 1.0


@dataclasses.dataclass(frozen=True)
class Row:
  """One published value that a run of this project could have.

  Attributes:
    source: Table or text, and what it says of its recipe.
    model: As the source writes it, such as 'BiT-M-R50x1 [Jax]'.
    checkpoint: Name of the released checkpoint, such as 'BiT-M-R50x1'.
    dataset: As the source has it.
    shots: Examples of each class; None: all.
    metric: 'top1' or 'top5'.
    description: What the value and its spread are, such as 'top1 min<-median->max of >=5 runs'.
    text: The value in %, as published.
    value: The value.
    spread: Lowest and highest value, or median minus and plus one standard deviation, in %; None
      where there is none.
    citation: Where to find it.
  """

  source: str
  model: str
  checkpoint: str
  dataset: str
  shots: int | None
  metric: str
  description: str
  text: str
  value: float
  spread: tuple[float, float] | None
  citation: str

  @property
  def vtab_group(self) -> str | None:
    """Which mean over VTAB's tasks it is, or None if it is none."""
    return _VTAB_ROWS.get(self.dataset)


@dataclasses.dataclass(frozen=True)
class Comparison:
  """A published value and ours.

  Attributes:
    row: What was published.
    ours: The value in %.
    spread: Our lowest and highest in %; None where no seed was run on everything.
    count: Seeds, or for a mean over tasks those that all tasks share.
    network: What ours started from.
    differences: What isn't like with like; empty: nothing.
  """

  row: Row
  ours: float
  spread: tuple[float, float] | None
  count: int
  network: str
  differences: tuple[str, ...]

  @property
  def verdict(self) -> str | None:
    """How far ours is off, and whether that is one seed's; None if it isn't like with like."""
    if self.differences:
      return None
    return f"{verdict(self.row, self.ours)}{' (one seed only)' if self.count == 1 else ''}"


def verdict(row: Row, ours: float) -> str:
  """Returns how far a value is off a published one.

  Args:
    row: What was published.
    ours: In %.
  """
  ours = round(ours, 6)  # 100 * 0.546 is a little more than 54.6
  if row.spread is not None and row.spread[0] <= ours <= row.spread[1]:
    return "within the published spread"
  if round(abs(ours - row.value), 6) <= _ONE_POINT:
    return "within one point"
  return f"off by {ours - row.value:+.1f}"


def read() -> list[Row]:
  """Returns the rows of the table that a run of this project could have."""
  return [row for record in published.rows() if (row := _row(record)) is not None]


def compare(
  rows: Sequence[Row], found: Iterable[reading.Run], scores: Iterable[vtab_means.Score]
) -> list[Comparison]:
  """Returns every published value whose model, data, shots and metric there are runs of.

  Args:
    rows: From `read`.
    found: Runs that count.
    scores: Of the same, from `vtab_means.scores`.
  """
  plain = [run for run in found if not vtab_means.is_vtab(run)]
  by_setting = seeds.points(plain, lambda run: (*run.cell, run.recipe))
  result = []
  for row in rows:
    if row.vtab_group is None:
      result += [c for one in by_setting.values() for c in _of_point(row, one)]
    else:
      result += [c for score in scores for c in _of_score(row, row.vtab_group, score)]
  return result


def _row(record: dict[str, str]) -> Row | None:
  source = next((s for s in _SOURCES if record["source"].startswith(s.beginning)), None)
  model = _MODEL.fullmatch(record["model"])
  regime = record["regime"]
  shots = re.fullmatch(r"(\d+)-shot", regime)
  metric = record["metric"].partition(" ")[0]
  if not (source and model and metric in ("top1", "top5")):
    return None
  if not shots and regime not in ("full", "vtab1k"):
    return None
  spread = (record["spread_low"], record["spread_high"])
  return Row(
    source=record["source"],
    model=record["model"],
    checkpoint=model.group(1),
    dataset=record["dataset"],
    shots=int(shots.group(1)) if shots else None,
    metric=metric,
    description=record["metric"],
    text=record["value"],
    value=float(record["value"]),
    spread=(float(spread[0]), float(spread[1])) if all(spread) else None,
    citation=record["url_or_citation"],
  )


def _is_of(row: Row, run: reading.Run) -> bool:
  return row.checkpoint in (run.model, run.config["weights"])


def _of_point(row: Row, one: seeds.Point) -> Iterator[Comparison]:
  run = one.runs[0]
  if not _is_of(row, run) or (row.dataset, row.shots) != (run.dataset, run.shots):
    return
  values = [100 * r.metrics[row.metric] for r in one.runs if row.metric in r.metrics]
  if not values:
    return
  summary = intervals.summarize(values)
  yield Comparison(
    row=row,
    ours=summary.median,
    spread=(summary.low, summary.high),
    count=summary.count,
    network=run.network,
    differences=tuple(dict.fromkeys(d for r in one.runs for d in _differences(row, r))),
  )


def _of_score(row: Row, group: str, score: vtab_means.Score) -> Iterator[Comparison]:
  found = [run for one in score.tasks.values() for run in one.runs]
  mean = score.means[group]
  if mean.value is None or not _is_of(row, found[0]):
    return
  differences = [] if mean.is_complete else [f"{mean.done} of {mean.of} tasks"]
  tasks = vtab.TASKS if group == "all" else vtab_means.GROUPS[group]
  of_group = [run for run in found if run.dataset.rpartition("/")[2] in tasks]
  differences += [d for run in of_group for d in _differences(row, run)]
  yield Comparison(
    row=row,
    ours=mean.value,
    spread=(min(mean.seeds), max(mean.seeds)) if mean.seeds else None,
    count=len(mean.seeds),
    network=score.network,
    differences=tuple(dict.fromkeys(differences)),
  )


def _differences(row: Row, run: reading.Run) -> Iterator[str]:
  """Yields what isn't as it was with the published value, as 'ours, theirs'."""
  source = next(s for s in _SOURCES if row.source.startswith(s.beginning))
  if source.unstated:
    yield f"the source doesn't state {source.unstated}"
  elif run.recipe.preset != source.preset:
    yield f"preset {run.recipe.preset}, theirs {source.preset}"
  if not run.checkpoint_agrees:
    yield reading.DISAGREE
  if run.config["weights"] != row.checkpoint:
    yield f"starts from {run.start}, not from the released {row.checkpoint}"
  elif not run.checkpoint_sha256:
    yield "its checkpoint's hash isn't on record"
  elif run.checkpoint_sha256[:8] in run.start:  # it took the hash to tell it from another
    yield f"several files among these runs are called {row.checkpoint}"
  if run.protocol != "final":
    yield f"protocol {run.protocol}, theirs final"
  yield from _recipe_differences(run)
  if source.preset and (sizes := _published_sizes(row, run, source.preset)):
    yield sizes
  if not run.complete:
    tested = "an unknown number" if run.num_test is None else f"{run.num_test:,}"
    yield f"{run.num_train:,} images trained on and {tested} scored, not all that there are"


def _recipe_differences(run: reading.Run) -> Iterator[str]:
  if run.recipe.follows_rule:
    return
  kind = f"a departure from the rule ({run.reason})" if run.reason else "a departure from the rule"
  yield f"{kind}: {run.rule}"


def _published_sizes(row: Row, run: reading.Run, preset: str) -> str | None:
  """Returns a difference in resolution that the run's own preset doesn't show."""
  try:
    spec = datasets.find(run.dataset, "final")
  except ValueError:
    return "its images' size isn't on record"
  source = "paper" if preset == "paper" else "code"
  theirs = hyperrule.resolution(spec.image_size, row.checkpoint, source)
  ours = (run.config["resize"], run.config["crop"])
  if ours == theirs or dict(run.recipe.departures).keys() & {"resize", "crop"}:
    return None
  return f"resize {ours[0]} and crop {ours[1]}, theirs {theirs[0]} and {theirs[1]}"


def unmatched(found: Iterable[reading.Run], compared: Iterable[Comparison]) -> list[str]:
  """Returns the models among the runs that no published value is of, sorted."""
  names = {c.row.checkpoint for c in compared}
  return sorted({r.network for r in found if not names & {r.model, str(r.config["weights"])}})
