"""Time that runs took, and how much of it was start-up."""

import datetime

import pandas as pd

from experiments.results import seeds

_PROGRAM = ["architecture", "resize", "crop", "batch_size"]


def efforts(runs: pd.DataFrame) -> pd.DataFrame:
  """Returns the time of runs of one network, image size, batch and length on one kind of machine.

  Args:
    runs: From `seeds.frame`.

  Returns:
    A row per kind of run, the least work first: what it is, number of `runs`, `images` that the
    steps of each go through, median `rate` in images per second, `hours` of all their steps, and
    `total` hours from start to end, evaluations included (NaN unless recorded for each run).
  """
  by = [*_PROGRAM, "steps", "place"]
  timed = runs[runs.images_per_second.notna() & runs.steps.notna()]
  found = timed.groupby(by, sort=False).agg(
    runs=("run", "size"),
    rate=("images_per_second", "median"),
    total=("wall_seconds", lambda seconds: seconds.sum(skipna=False) / 3600),
  )
  found = found.reset_index().assign(images=lambda of: of.batch_size * of.steps)
  found["hours"] = found.runs * found.images / found.rate / 3600
  return found.sort_values(["images", *by], ignore_index=True)


def startups(runs: pd.DataFrame) -> pd.DataFrame:
  """Returns start-up times of several runs of sweeps that share a compiled program.

  Args:
    runs: From `seeds.frame`.

  Returns:
    A row per program and place: what it is, and summaries of the seconds until a first step was
    done: `first` of the runs that began before any of them had done a step, and so had to compile,
    `later` of the others (None without any).
  """
  by = [*_PROGRAM, "num_classes", "dtype", "place"]
  known = runs[["startup_seconds", "startup_began", "num_classes"]].notna().all(axis=1)
  timed = runs[known & (runs.sweep != "")]
  timed = timed.assign(dtype=[recipe.dtype for recipe in timed.recipe])
  records = []
  for key, members in timed.groupby(by, sort=False, dropna=False):
    if len(members) > 1:
      began = members.startup_began.map(datetime.datetime.timestamp)
      seconds = members.startup_seconds
      is_first = began <= (began + seconds).min()
      records.append((*key, _range(seconds[is_first]), _range(seconds[~is_first])))
  return pd.DataFrame(records, columns=[*by, "first", "later"], dtype=object)


def _range(of: pd.Series) -> seeds.Summary | None:
  return seeds.Summary(len(of), of.median(), of.min(), of.max(), noun="run") if len(of) else None
