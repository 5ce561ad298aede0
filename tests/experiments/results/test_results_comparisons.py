"""Which runs are compared: curves, VTAB-1k, sizes and recipes."""

import math

import pytest
import run_folders

from bit_jax.data import vtab
from bit_jax.models import architectures
from experiments.results import comparisons, seeds

NETWORKS = ["R14x0.5, random initialisation", "R14x0.5-CIFAR100"]


def of(panel, network):
  """Returns the points of a network."""
  return panel.points[panel.points.network == network]


def test_a_curve_of_few_and_all_examples(tmp_path):
  found = run_folders.table(
    tmp_path,
    *(run_folders.few(f"shots=5,seed={s}", t) for s, t in enumerate((0.5, 0.3, 0.35))),
    run_folders.few("shots=10", 0.4),
    run_folders.few("seed=7", 0.7),
    run_folders.few("shots=5,weights=none", 0.2),
  )
  (panel,) = comparisons.panels(found)
  assert {(run.dataset, run.protocol) for run in panel.runs} == {("cifar10", "final")}
  assert list(panel.points.network.unique()) == [
    "R14x0.5, random initialisation",
    "R14x0.5-CIFAR100",
  ]
  points = seeds.rows(of(panel, "R14x0.5-CIFAR100"))
  assert [p.per_class for p in points] == [5, 10, 5000]
  assert [p.top1.median for p in points] == pytest.approx([35, 40, 70])
  assert (points[0].top1.low, points[0].top1.high) == pytest.approx((30, 50))


def test_runs_of_another_recipe_have_another_panel(tmp_path):
  found = run_folders.table(
    tmp_path,
    run_folders.few("shots=5", 0.3),
    run_folders.few("shots=10", 0.4),
    run_folders.few("shots=5", 0.5, base_lr=0.01),
    run_folders.few("shots=10", 0.6, base_lr=0.01),
    run_folders.few("shots=10,protocol=select", 0.9),
    run_folders.few("shots=10,protocol=select,weights=none", 0.8),
  )
  panels = comparisons.panels(found)
  assert [len(of(panel, "R14x0.5-CIFAR100")) for panel in panels] == [2, 2, 1]
  assert {panel.runs[0].protocol for panel in panels} == {"final", "select"}


def test_a_variation_at_one_number_of_examples_is_no_curve(tmp_path):
  found = run_folders.table(
    tmp_path,
    run_folders.few("shots=5", 0.3),
    run_folders.few("shots=10", 0.4),
    run_folders.few("shots=10", 0.5, mixup_alpha=0.1),
  )
  (panel,) = comparisons.panels(found)
  assert not dict(panel.runs[0].recipe.departures).get("mixup_alpha")


@pytest.mark.parametrize("varied", [["shots=5"], ["shots=5", "shots=5,weights=none"]])
def test_networks_stay_together_where_some_were_run_by_another_recipe_too(tmp_path, varied):
  found = run_folders.table(
    tmp_path,
    run_folders.few("shots=5", 0.3),
    run_folders.few("shots=5,weights=none", 0.2),
    *(run_folders.few(arguments, 0.5, mixup_alpha=0.1) for arguments in varied),
  )
  (panel,) = comparisons.panels(found)
  assert not dict(panel.runs[0].recipe.departures).get("mixup_alpha")
  assert list(panel.points.network.unique()) == [
    "R14x0.5, random initialisation",
    "R14x0.5-CIFAR100",
  ]


@pytest.mark.parametrize("arguments", ["seed=1", "shots=250"])
def test_one_setting_alone_is_no_curve(tmp_path, arguments):
  assert comparisons.panels(run_folders.table(tmp_path, run_folders.few(arguments, 0.7))) == []


def test_networks_are_ordered_by_size(tmp_path):
  names = ("BiT-M-R152x4", "BiT-M-R50x1", "BiT-M-R101x1", "BiT-S-R50x1")
  runs = [
    (run_folders.config(f"model={name},shots={s}"), 0.5, {"sha": name.ljust(64)})
    for name in names
    for s in (1, 5)
  ]
  (panel,) = comparisons.panels(run_folders.table(tmp_path, *runs))
  expected = ["BiT-M-R50x1", "BiT-S-R50x1", "BiT-M-R101x1", "BiT-M-R152x4"]
  assert list(panel.points.network.unique()) == expected
  assert set(expected) <= set(architectures.MODEL_NAMES)


TASKS = {t: 0.3 + 0.03 * i for i, t in enumerate(vtab.TASKS)}


def test_vtab_groups_have_the_papers_sizes():
  assert {group: len(tasks) for group, tasks in comparisons.VTAB_GROUPS.items()} == {
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
  (score,) = comparisons.scores(run_folders.table(tmp_path, *tasks(vtab.TASKS, (0, 1, 4))))
  every = [100 * (t + 0.01) for t in TASKS.values()]  # the median seed
  assert score.means["all"].top1.median == pytest.approx(sum(every) / 19)
  assert (score.means["all"].done, score.means["all"].of) == (19, 19)
  found = score.means["all"].top1
  assert (found.low, found.high) == pytest.approx((sum(every) / 19 - 1, sum(every) / 19 + 3))
  assert found.count == 3
  natural = [100 * (TASKS[t] + 0.01) for t in comparisons.VTAB_GROUPS["natural"]]
  assert score.means["natural"].top1.median == pytest.approx(sum(natural) / 7)
  assert list(score.points.task)[:2] == ["caltech101", "cifar100"]


def test_missing_tasks_are_counted(tmp_path):
  names = ("svhn", "cifar100", "dmlab")
  runs = [*tasks(names, (0, 1)), *tasks(["dtd"], (5,))]
  (score,) = comparisons.scores(run_folders.table(tmp_path, *runs))
  counts = {name: (mean.done, mean.of) for name, mean in score.means.items()}
  assert counts == {
    "natural": (3, 7),
    "specialized": (0, 4),
    "structured": (1, 8),
    "all": (4, 19),
  }
  assert score.means["specialized"].top1 is None
  assert not score.means["all"].is_complete
  assert score.means["all"].top1.count == 0  # none was run on all four
  assert score.means["structured"].top1.count == 2


@pytest.mark.parametrize("dataset", ["vtab/nothing", "vtab/", "folder"])
def test_what_is_no_task_of_it_is_no_vtab(tmp_path, dataset):
  config = run_folders.config("model=BiT-M-R50x1", "vtab/svhn")
  folder = run_folders.write(tmp_path / "a", config, 0.5)  # whose data are called vtab/svhn
  run_folders.dump(folder / "config.json", {**config.to_dict(), "dataset": dataset})
  found = seeds.frame(run_folders.collected(tmp_path).runs)
  assert len(found) == 1
  assert comparisons.scores(found) == []


def test_few_examples_of_a_task_are_no_vtab(tmp_path):
  config = run_folders.config("model=BiT-M-R50x1,shots=5", "vtab/svhn")
  assert comparisons.scores(run_folders.table(tmp_path, (config, 0.5))) == []


CPU = "cpu (Linux x86_64, 2 cores)"


def sized(model, top1, seconds, arguments="shots=5", dataset="cifar10", **more):
  config = run_folders.config(f"model={model},{arguments}", dataset)
  return config, top1, {"sha": model[::-1].ljust(64), "result": {"seconds": seconds}, **more}


def test_sizes(tmp_path):
  found = run_folders.table(
    tmp_path,
    sized("BiT-M-R101x1", 0.7, 30.0),
    sized("BiT-M-R50x1", 0.6, 10.0),
    sized("BiT-M-R50x1", 0.62, 14.0, "shots=5,seed=1"),
    sized("BiT-M-R50x1", 0.9, 99.0, "seed=1"),
    sized("BiT-S-R50x1", 0.5, 10.0),
    sized("BiT-M-R50x3", 0.6, 1.0, environment={"device": "H200"}),
  )
  (one,) = comparisons.sizes(found)  # the others would be alone
  assert {run.place for run in one.runs} == {CPU}
  points = seeds.rows(one.points)
  assert [(point.start, point.architecture, point.shots) for point in points] == [
    ("BiT-M", "R50x1", 5),
    ("BiT-M", "R101x1", 5),
    ("BiT-M", "R50x1", math.inf),
  ]
  assert points[0].seconds == 12.0
  assert (points[0].top1.median, points[0].top1.count) == (pytest.approx(61), 2)
  assert points[0].parameters == 23_500_352


def test_sizes_by_the_score(tmp_path):
  runs = [
    sized(model, top1, 23.5, "seed=0", f"vtab/{task}")
    for model, top1 in (("BiT-M-R50x1", 0.5), ("BiT-M-R101x1", 0.52))
    for task in vtab.TASKS
  ]
  incomplete = sized("BiT-M-R50x3", 0.5, 1.0, "seed=0", "vtab/svhn")
  (one,) = comparisons.sizes(run_folders.table(tmp_path, *runs, incomplete))
  assert {run.subject for run in one.runs} == {"VTAB-1k"}
  assert list(one.points.architecture) == ["R50x1", "R101x1"]
  assert list(one.points.seconds) == [19 * 23.5] * 2
  assert [top1.median for top1 in one.points.top1] == pytest.approx([50, 52])
  assert [top1.count for top1 in one.points.top1] == [1, 1]


def test_the_reference_is_what_follows_the_rule_most_closely(tmp_path):
  found = run_folders.table(
    tmp_path,
    run_folders.few("shots=10,preset=scaled", 0.44),
    run_folders.few("shots=10,preset=paper", 0.43),
    run_folders.few("shots=10", 0.40),
    run_folders.few("shots=10,seed=1", 0.42),
    run_folders.few("shots=10", 0.5, mixup_alpha=0.1),
    run_folders.few("shots=10", 0.6, mixup_alpha=0.1, base_lr=0.01),
    run_folders.few("shots=10,flip=False", 0.3),
    run_folders.few("shots=5", 0.3),
  )
  (one,) = comparisons.recipe_comparisons(found)
  assert {(r.dataset, r.protocol, r.shots) for r in one.runs} == {("cifar10", "final", 10)}
  assert one.fields == ("preset", "base_lr", "total_steps", "mixup_alpha", "random_flip")
  assert list(one.points["values"]) == [
    ("code", 0.003, 100, 0.0, True),
    ("paper", 0.003, 100, 0.0, True),
    ("code", 0.003, 100, 0.1, True),
    ("code", 0.003, 100, 0.0, False),
    ("code", 0.01, 100, 0.1, True),
    ("scaled", 0.000375, 800, 0.0, True),
  ]
  assert one.reference == one.points.runs[0]
  medians = [top1.median for top1 in one.points.top1]
  assert medians == pytest.approx([41, 43, 50, 30, 60, 44])


def test_of_several_lengths_the_one_that_other_runs_have_is_the_reference(tmp_path):
  lengths = (0.1, 0.2, 0.4)
  grid = [run_folders.few("shots=10,protocol=select", 0.4, length=n) for n in lengths]
  found = run_folders.table(
    tmp_path, *grid, run_folders.few("shots=5", 0.3), run_folders.few("shots=10", 0.3)
  )
  (one,) = comparisons.recipe_comparisons(found)
  assert list(one.points["values"]) == [(100,), (50,), (200,)]


def test_what_a_run_computed_in_is_compared(tmp_path):
  half = {"environment": {"dtype": "bfloat16"}}
  found = run_folders.table(
    tmp_path, run_folders.few("shots=5", 0.3), (*run_folders.few("shots=5", 0.4), half)
  )
  (one,) = comparisons.recipe_comparisons(found)
  assert one.fields == ("dtype",)
  assert list(one.points["values"]) == [("bfloat16",), ("float32",)]
