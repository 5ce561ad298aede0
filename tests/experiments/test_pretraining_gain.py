"""Tests of the sweep file experiments/pretraining_gain.py, and of what the README has from it."""

import csv
import statistics

import resolving
import running

from bit_jax import run_config
from bit_jax.configs import quickstart
from experiments import pretraining_gain
from experiments.sweeping import grid

FOLDER = running.ROOT / "experiments"


def planned():
  return grid.load(str(FOLDER / "pretraining_gain.py"))


def test_five_subsets_from_either_start_by_the_recipe_of_the_quickstart():
  found = planned()
  assert [(one.labels["start"], one.config.weights, one.config.seed) for one in found] == [
    (start, weights, seed)
    for start, weights in pretraining_gain.STARTS.items()
    for seed in range(5)
  ]
  recipe = run_config.identity(resolving.resolve(quickstart.get_config())[0])
  varied = {"weights": recipe["weights"], "seed": 0, "eval_every": recipe["eval_every"]}
  for one in found:
    assert one.config.eval_every == one.config.total_steps
    assert {**run_config.identity(one.config), **varied} == recipe


def test_the_readme_has_what_was_measured():
  with (FOLDER / "pretraining_gain_results/results.csv").open(newline="") as file:
    rows = [row for row in csv.DictReader(file) if row["metric"] == "top1"]
  assert {row["run"] for row in rows} == {one.name for one in planned()}
  cells, medians = [], []
  for start in pretraining_gain.STARTS:
    values = [100 * float(row["value"]) for row in rows if row["start"] == start]
    medians.append(statistics.median(values))
    cells.append(f"{medians[-1]:.1f} ({min(values):.1f} to {max(values):.1f})")
  line = f"| 5 | {' | '.join(cells)} | {medians[0] - medians[1]:+.1f} |"
  assert f"\n{line}\n" in (running.ROOT / "README.md").read_text(encoding="utf-8")
