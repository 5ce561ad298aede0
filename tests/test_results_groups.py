"""Which runs stand side by side, and the numbers that come of it."""

import pytest
import run_folders

from bit_jax import architectures
from bit_jax.data import vtab
from experiments.results import groups

CPU = "cpu (Linux x86_64, 2 cores)"
TASKS = {t: 0.3 + 0.03 * i for i, t in enumerate(vtab.TASKS)}


def few(arguments, top1, **fields):
  return run_folders.reduced(f"model=R14x0.5,{arguments}", **fields), top1


def test_vtab_groups_have_the_papers_sizes():
  assert {group: len(tasks) for group, tasks in groups.GROUPS.items()} == {
    "natural": 7,
    "specialized": 4,
    "structured": 8,
  }


def test_a_curve_of_few_and_all_examples(tmp_path):
  found = run_folders.written(
    tmp_path,
    *(few(f"shots=5,seed={s}", t) for s, t in enumerate((0.5, 0.3, 0.35))),
    few("shots=10", 0.4),
    few("seed=7", 0.7),
    few("shots=5,weights=none", 0.2),
  )
  (panel,) = groups.panels(found)
  assert (panel.dataset, panel.protocol) == ("cifar10", "final")
  assert list(panel.series) == ["R14x0.5, random initialisation", "R14x0.5-CIFAR100"]
  points = panel.series["R14x0.5-CIFAR100"]
  assert [groups.per_class(p) for p in points] == [5, 10, 5000]
  assert [p.top1.median for p in points] == pytest.approx([35, 40, 70])
  assert (points[0].top1.low, points[0].top1.high) == pytest.approx((30, 50))


def test_runs_of_another_recipe_have_another_panel(tmp_path):
  found = run_folders.written(
    tmp_path,
    few("shots=5", 0.3),
    few("shots=10", 0.4),
    few("shots=5", 0.5, base_lr=0.01),
    few("shots=10", 0.6, base_lr=0.01),
    few("shots=10,protocol=select", 0.9),
    few("shots=10,protocol=select,weights=none", 0.8),
  )
  panels = groups.panels(found)
  assert [len(p.series["R14x0.5-CIFAR100"]) for p in panels] == [2, 2, 1]
  assert {p.protocol for p in panels} == {"final", "select"}


def test_a_variation_at_one_number_of_examples_is_no_curve(tmp_path):
  found = run_folders.written(
    tmp_path, few("shots=5", 0.3), few("shots=10", 0.4), few("shots=10", 0.5, mixup_alpha=0.1)
  )
  (panel,) = groups.panels(found)
  assert not dict(panel.recipe.departures).get("mixup_alpha")


@pytest.mark.parametrize("arguments", ["seed=1", "shots=250"])
def test_one_setting_alone_is_no_curve(tmp_path, arguments):
  assert groups.panels(run_folders.written(tmp_path, few(arguments, 0.7))) == []


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
  (score,) = groups.scores(run_folders.written(tmp_path, *tasks(vtab.TASKS, (0, 1, 4))))
  every = [100 * (t + 0.01) for t in TASKS.values()]  # the median seed
  assert score.means["all"].value == pytest.approx(sum(every) / 19)
  assert (score.means["all"].done, score.means["all"].of) == (19, 19)
  expected = [sum(every) / 19 + d for d in (-1, 0, 3)]
  assert score.means["all"].seeds == pytest.approx(expected)
  natural = [100 * (TASKS[t] + 0.01) for t in groups.GROUPS["natural"]]
  assert score.means["natural"].value == pytest.approx(sum(natural) / 7)
  assert list(score.tasks)[:2] == ["caltech101", "cifar100"]


def test_missing_tasks_are_counted(tmp_path):
  names = ("svhn", "cifar100", "dmlab")
  runs = [*tasks(names, (0, 1)), *tasks(["dtd"], (5,))]
  (score,) = groups.scores(run_folders.written(tmp_path, *runs))
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
  assert groups.scores(found) == []


def test_few_examples_of_a_task_are_no_vtab(tmp_path):
  config = run_folders.config("model=BiT-M-R50x1,shots=5", "vtab/svhn")
  assert groups.scores(run_folders.written(tmp_path, (config, 0.5))) == []


def test_the_reference_is_what_follows_the_rule_most_closely(tmp_path):
  found = run_folders.written(
    tmp_path,
    few("shots=10,preset=scaled", 0.44),
    few("shots=10,preset=paper", 0.43),
    few("shots=10", 0.40),
    few("shots=10,seed=1", 0.42),
    few("shots=10", 0.5, mixup_alpha=0.1),
    few("shots=10", 0.6, mixup_alpha=0.1, base_lr=0.01),
    few("shots=10,flip=False", 0.3),
    few("shots=5", 0.3),
  )
  (one,) = groups.comparisons(found)
  assert (one.dataset, one.protocol, one.shots) == ("cifar10", "final", 10)
  assert one.fields == ("preset", "base_lr", "total_steps", "mixup_alpha", "random_flip")
  values = [values for values, _ in one.rows]
  assert values == [
    ("code", 0.003, 100, 0.0, True),
    ("paper", 0.003, 100, 0.0, True),
    ("code", 0.003, 100, 0.1, True),
    ("code", 0.003, 100, 0.0, False),
    ("code", 0.01, 100, 0.1, True),
    ("scaled", 0.000375, 800, 0.0, True),
  ]
  medians = [point.top1.median for _, point in one.rows]
  assert medians == pytest.approx([41, 43, 50, 30, 60, 44])


def test_of_several_lengths_the_one_that_other_runs_have_is_the_reference(tmp_path):
  lengths = (0.1, 0.2, 0.4)
  grid = [few("shots=10,protocol=select", 0.4, length=n) for n in lengths]
  found = run_folders.written(tmp_path, *grid, few("shots=5", 0.3), few("shots=10", 0.3))
  (one,) = groups.comparisons(found)
  assert [values for values, _ in one.rows] == [(100,), (50,), (200,)]


def test_what_a_run_computed_in_is_compared(tmp_path):
  half = {"environment": {"dtype": "bfloat16"}}
  found = run_folders.written(tmp_path, few("shots=5", 0.3), (*few("shots=5", 0.4), half))
  (one,) = groups.comparisons(found)
  assert one.fields == ("dtype",)
  assert [values for values, _ in one.rows] == [("bfloat16",), ("float32",)]


def sized(model, top1, seconds, arguments="shots=5", **more):
  config = run_folders.config(f"model={model},{arguments}")
  return config, top1, {"sha": model[::-1].ljust(64), "result": {"seconds": seconds}, **more}


def test_sizes(tmp_path):
  found = run_folders.written(
    tmp_path,
    sized("BiT-M-R101x1", 0.7, 30.0),
    sized("BiT-M-R50x1", 0.6, 10.0),
    sized("BiT-M-R50x1", 0.62, 14.0, "shots=5,seed=1"),
    sized("BiT-M-R50x1", 0.9, 99.0, "seed=1"),
    sized("BiT-S-R50x1", 0.5, 10.0),
    sized("BiT-M-R50x3", 0.6, 1.0, environment={"device": "H200"}),
  )
  by_key = {(one.start, one.device): one for one in groups.sizes(found)}
  assert set(by_key) == {("BiT-M", CPU), ("BiT-S", CPU), ("BiT-M", "H200")}
  five, full = by_key["BiT-M", CPU].series[5], by_key["BiT-M", CPU].series[None]
  assert [size.architecture for size in five] == ["R50x1", "R101x1"]
  assert (five[0].seconds, five[0].value, five[0].count) == (12.0, pytest.approx(61), 2)
  assert five[0].parameters == 23_500_352
  assert [size.architecture for size in full] == ["R50x1"]


def test_sizes_by_the_score(tmp_path):
  runs = [
    run
    for model, change in (("BiT-M-R50x1", 0.0), ("BiT-M-R101x1", 0.02))
    for run in tasks(vtab.TASKS, change=change, model=model, sha=model.ljust(64))
  ]
  (one,) = groups.sizes(run_folders.written(tmp_path, *runs, *tasks(["svhn"], model="BiT-M-R50x3")))
  assert one.dataset == groups.VTAB
  assert [size.architecture for size in one.series[None]] == ["R50x1", "R101x1"]
  assert [size.seconds for size in one.series[None]] == [19 * 23.5] * 2
  small, large = (size.value for size in one.series[None])
  assert large - small == pytest.approx(2)


def test_networks_are_ordered_by_size(tmp_path):
  names = ("BiT-M-R152x4", "BiT-M-R50x1", "BiT-M-R101x1", "BiT-S-R50x1")
  runs = [sized(name, 0.5, 1.0, f"shots={s}") for name in names for s in (1, 5)]
  (panel,) = groups.panels(run_folders.written(tmp_path, *runs))
  expected = ["BiT-M-R50x1", "BiT-S-R50x1", "BiT-M-R101x1", "BiT-M-R152x4"]
  assert list(panel.series) == expected
  assert set(expected) <= set(architectures.MODEL_NAMES)
