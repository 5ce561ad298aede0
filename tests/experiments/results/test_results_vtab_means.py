"""Runs on VTAB-1k, and the means over its tasks."""

import pytest
import run_folders

from bit_jax.data import vtab
from experiments.results import vtab_means

TASKS = {t: 0.3 + 0.03 * i for i, t in enumerate(vtab.TASKS)}


def test_vtab_groups_have_the_papers_sizes():
  assert {group: len(tasks) for group, tasks in vtab_means.GROUPS.items()} == {
    "natural": 7,
    "specialized": 4,
    "structured": 8,
  }


def tasks(names, seeds=(0,), change=0.0, model="BiT-M-R50x1", **more):
  return [
    (
      run_folders.config(f"model={model},seed={seed}", f"vtab/{task}"),
      TASKS[task] + change + 0.01 * seed,
      more,
    )
    for task in names
    for seed in seeds
  ]


def test_the_score_over_all_tasks(tmp_path):
  (score,) = vtab_means.scores(run_folders.written(tmp_path, *tasks(vtab.TASKS, (0, 1, 4))))
  every = [100 * (t + 0.01) for t in TASKS.values()]  # the median seed
  assert score.means["all"].value == pytest.approx(sum(every) / 19)
  assert (score.means["all"].done, score.means["all"].of) == (19, 19)
  expected = [sum(every) / 19 + d for d in (-1, 0, 3)]
  assert score.means["all"].seeds == pytest.approx(expected)
  natural = [100 * (TASKS[t] + 0.01) for t in vtab_means.GROUPS["natural"]]
  assert score.means["natural"].value == pytest.approx(sum(natural) / 7)
  assert list(score.tasks)[:2] == ["caltech101", "cifar100"]


def test_missing_tasks_are_counted(tmp_path):
  names = ("svhn", "cifar100", "dmlab")
  runs = [*tasks(names, (0, 1)), *tasks(["dtd"], (5,))]
  (score,) = vtab_means.scores(run_folders.written(tmp_path, *runs))
  counts = {name: (mean.done, mean.of) for name, mean in score.means.items()}
  assert counts == {
    "natural": (3, 7),
    "specialized": (0, 4),
    "structured": (1, 8),
    "all": (4, 19),
  }
  assert score.means["specialized"].value is None
  assert not score.means["all"].is_complete
  assert score.means["all"].seeds == ()  # none was run on all four
  assert len(score.means["structured"].seeds) == 2


@pytest.mark.parametrize("dataset", ["vtab/nothing", "vtab/", "folder"])
def test_what_is_no_task_of_it_is_no_vtab(tmp_path, dataset):
  config = run_folders.config("model=BiT-M-R50x1", "vtab/svhn")
  folder = run_folders.write(tmp_path / "a", config, 0.5)  # whose data are called vtab/svhn
  run_folders.dump(folder / "config.json", {**config.to_dict(), "dataset": dataset})
  found = run_folders.collected(tmp_path).runs
  assert len(found) == 1
  assert vtab_means.scores(found) == []


def test_few_examples_of_a_task_are_no_vtab(tmp_path):
  config = run_folders.config("model=BiT-M-R50x1,shots=5", "vtab/svhn")
  assert vtab_means.scores(run_folders.written(tmp_path, (config, 0.5))) == []
