"""Which runs make a curve."""

import pytest
import run_folders

from bit_jax.models import architectures
from experiments.results import curves


def test_a_curve_of_few_and_all_examples(tmp_path):
  found = run_folders.written(
    tmp_path,
    *(run_folders.few(f"shots=5,seed={s}", t) for s, t in enumerate((0.5, 0.3, 0.35))),
    run_folders.few("shots=10", 0.4),
    run_folders.few("seed=7", 0.7),
    run_folders.few("shots=5,weights=none", 0.2),
  )
  (panel,) = curves.panels(found)
  assert (panel.dataset, panel.protocol) == ("cifar10", "final")
  assert list(panel.series) == ["R14x0.5, random initialisation", "R14x0.5-CIFAR100"]
  points = panel.series["R14x0.5-CIFAR100"]
  assert [curves.per_class(p) for p in points] == [5, 10, 5000]
  assert [p.top1.median for p in points] == pytest.approx([35, 40, 70])
  assert (points[0].top1.low, points[0].top1.high) == pytest.approx((30, 50))


def test_runs_of_another_recipe_have_another_panel(tmp_path):
  found = run_folders.written(
    tmp_path,
    run_folders.few("shots=5", 0.3),
    run_folders.few("shots=10", 0.4),
    run_folders.few("shots=5", 0.5, base_lr=0.01),
    run_folders.few("shots=10", 0.6, base_lr=0.01),
    run_folders.few("shots=10,protocol=select", 0.9),
    run_folders.few("shots=10,protocol=select,weights=none", 0.8),
  )
  panels = curves.panels(found)
  assert [len(p.series["R14x0.5-CIFAR100"]) for p in panels] == [2, 2, 1]
  assert {p.protocol for p in panels} == {"final", "select"}


def test_a_variation_at_one_number_of_examples_is_no_curve(tmp_path):
  found = run_folders.written(
    tmp_path,
    run_folders.few("shots=5", 0.3),
    run_folders.few("shots=10", 0.4),
    run_folders.few("shots=10", 0.5, mixup_alpha=0.1),
  )
  (panel,) = curves.panels(found)
  assert not dict(panel.recipe.departures).get("mixup_alpha")


@pytest.mark.parametrize("varied", [["shots=5"], ["shots=5", "shots=5,weights=none"]])
def test_networks_stay_together_where_some_were_run_by_another_recipe_too(tmp_path, varied):
  found = run_folders.written(
    tmp_path,
    run_folders.few("shots=5", 0.3),
    run_folders.few("shots=5,weights=none", 0.2),
    *(run_folders.few(arguments, 0.5, mixup_alpha=0.1) for arguments in varied),
  )
  (panel,) = curves.panels(found)
  assert not dict(panel.recipe.departures).get("mixup_alpha")
  assert list(panel.series) == ["R14x0.5, random initialisation", "R14x0.5-CIFAR100"]


@pytest.mark.parametrize("arguments", ["seed=1", "shots=250"])
def test_one_setting_alone_is_no_curve(tmp_path, arguments):
  assert curves.panels(run_folders.written(tmp_path, run_folders.few(arguments, 0.7))) == []


def test_networks_are_ordered_by_size(tmp_path):
  names = ("BiT-M-R152x4", "BiT-M-R50x1", "BiT-M-R101x1", "BiT-S-R50x1")
  runs = [
    (run_folders.config(f"model={name},shots={s}"), 0.5, {"sha": name.ljust(64)})
    for name in names
    for s in (1, 5)
  ]
  (panel,) = curves.panels(run_folders.written(tmp_path, *runs))
  expected = ["BiT-M-R50x1", "BiT-S-R50x1", "BiT-M-R101x1", "BiT-M-R152x4"]
  assert list(panel.series) == expected
  assert set(expected) <= set(architectures.MODEL_NAMES)
