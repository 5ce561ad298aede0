"""What is set side by side of one network by several recipes."""

import pytest
import run_folders

from experiments.results import recipe_comparisons


def test_the_reference_is_what_follows_the_rule_most_closely(tmp_path):
  found = run_folders.written(
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
  (one,) = recipe_comparisons.comparisons(found)
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
  grid = [run_folders.few("shots=10,protocol=select", 0.4, length=n) for n in lengths]
  found = run_folders.written(
    tmp_path, *grid, run_folders.few("shots=5", 0.3), run_folders.few("shots=10", 0.3)
  )
  (one,) = recipe_comparisons.comparisons(found)
  assert [values for values, _ in one.rows] == [(100,), (50,), (200,)]


def test_what_a_run_computed_in_is_compared(tmp_path):
  half = {"environment": {"dtype": "bfloat16"}}
  found = run_folders.written(
    tmp_path, run_folders.few("shots=5", 0.3), (*run_folders.few("shots=5", 0.4), half)
  )
  (one,) = recipe_comparisons.comparisons(found)
  assert one.fields == ("dtype",)
  assert [values for values, _ in one.rows] == [("bfloat16",), ("float32",)]
