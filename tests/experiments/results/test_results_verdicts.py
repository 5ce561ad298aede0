"""Published values: which are compared with what, and what the verdict is."""

import collections
import math

import pytest
import run_folders

from bit_jax.data import vtab
from experiments.results import comparisons, seeds, verdicts

SOURCE = "big_transfer README CIFAR table (batch 128, base_lr 0.001)"


def rows(**fields):
  """Returns the published rows that have these fields."""
  every = verdicts.read()
  return [r for r in every if all(getattr(r, name) == value for name, value in fields.items())]


def verdict(ours, **fields):
  """Returns the verdict on the median of two seeds beside the only CIFAR-10 row of these fields."""
  (row,) = rows(dataset="cifar10", **fields)
  return verdicts.Comparison(row, seeds.Summary(2, ours, 0, 100), ()).verdict


def compared(folder, *runs):
  """Returns the comparisons of runs given as (config, top1, and what else `write` takes)."""
  for number, (config, top1, *more) in enumerate(runs):
    run_folders.write(folder / str(number), config, top1, **(more[0] if more else {}))
  found = seeds.frame(run_folders.collected(folder).runs)
  return verdicts.compare(verdicts.read(), found, comparisons.scores(found))


def cifar(arguments="", dataset="cifar10", model="BiT-M-R50x1", **fields):
  return run_folders.config(f"model={model},preset=readme_128{arguments}", dataset, **fields)


def test_rows_of_other_models_and_recipes_are_none_of_ours():
  found = collections.Counter(row.source.partition(" (")[0] for row in verdicts.read())
  assert found == {
    "BiT paper Table 2": 12,
    "BiT paper sec 3.4": 2,
    "big_transfer README CIFAR table": 48,
    "big_transfer README ImageNet table": 8,  # R101x3 on all images is none yet
    "big_transfer README VTAB-1k table": 8,
    "big_transfer JAX colab output": 1,
    "big_transfer PyTorch colab output": 1,
  }


def test_a_row():
  (row,) = rows(model="BiT-M-R50x1 [Jax]", dataset="cifar10", shots=1)
  assert (row.checkpoint, row.name, row.value) == ("BiT-M-R50x1", "top1", 54.1)
  assert (row.spread_low, row.spread_high) == (48.4, 66.1)
  assert row.published == "54.1 (48.4 to 66.1)"
  assert (row.label, row.examples, row.network) == ("cifar10", "1-shot", "BiT-M-R50x1, Jax")
  assert row.source == SOURCE
  assert row.group == ""
  assert row.url_or_citation == "https://github.com/google-research/big_transfer README @140de6e"


@pytest.mark.parametrize(
  ("ours", "said"),
  [
    (48.4, "within the published spread"),
    (100 * 0.661, "within the published spread"),
    (48.3, "off by -5.8"),
    (66.2, "off by +12.1"),
  ],
)
def test_verdicts_of_a_row_with_a_spread(ours, said):
  assert verdict(ours, model="BiT-M-R50x1 [Jax]", shots=1) == said


@pytest.mark.parametrize(
  ("ours", "said"),
  [
    (97.3, "within one point"),
    (98.3, "within one point"),
    (96.3, "within one point"),
    (98.31, "off by +1.0"),
    (96.0, "off by -1.3"),
    (12.34, "off by -85.0"),
  ],
)
def test_verdicts_of_a_row_without(ours, said):
  assert verdict(ours, model="BiT-M-R50x1 [Jax]", shots=math.inf) == said


def test_outside_a_narrow_spread_one_point_is_still_one():
  (row,) = rows(model="BiT-M-R101x3 [PyTorch]", dataset="cifar10", shots=math.inf)
  assert (row.value, row.spread_low, row.spread_high) == (98.6, 98.5, 98.6)
  assert verdict(98.0, model=row.model, shots=math.inf) == "within one point"


def test_like_with_like(tmp_path):
  seeds = enumerate((0.531, 0.549, 0.60, 0.50, 0.54))
  found = compared(tmp_path, *((cifar(f",shots=1,seed={s}"), top1) for s, top1 in seeds))
  assert [c.row.model for c in found] == [f"BiT-M-R50x1 [{f}]" for f in ("TF2", "Jax", "PyTorch")]
  assert [c.row.value for c in found] == [54.4, 54.1, 57.9]
  for one in found:
    assert one.differences == ()
    assert (one.ours.median, one.ours.low, one.ours.high) == pytest.approx((54, 50, 60))
    assert one.ours.count == 5
    assert one.verdict == "within the published spread"


def test_one_seed_is_said_to_be_one(tmp_path):
  found = compared(tmp_path, (cifar(",shots=1"), 0.54))
  assert {c.verdict for c in found} == {"within the published spread (one seed only)"}


def differences(tmp_path, config, **more):
  found = compared(tmp_path, (config, 0.55, more))
  assert found
  assert all(c.verdict is None for c in found)
  return {c.row.source.partition(" (")[0]: c.differences for c in found}


README = "big_transfer README CIFAR table"


@pytest.mark.parametrize(
  ("arguments", "fields", "said"),
  [
    ("preset=code", {}, "preset code, theirs readme_128"),
    ("preset=readme_128,protocol=select", {}, "protocol select, theirs final"),
    (
      "preset=readme_128",
      {"batch_size": 512},
      "a departure from the rule: batch_size 512 (rule: 128)",
    ),
    (
      "preset=readme_128",
      {"resize": 64, "crop": 56, "reason": "small"},
      "a departure from the rule (small): resize 64 (rule: 160), crop 56 (rule: 128)",
    ),
    (
      "preset=readme_128,flip=False",
      {},
      "a departure from the rule: random_flip off (rule: on)",
    ),
    (
      "preset=readme_128,weights=mine/model.npz",
      {},
      "starts from mine/model.npz, not from the released BiT-M-R50x1",
    ),
    (
      "preset=readme_128,weights=none",
      {},
      "starts from random initialisation, not from the released BiT-M-R50x1",
    ),
  ],
)
def test_what_is_not_like_with_like_says_so(tmp_path, arguments, fields, said):
  config = run_folders.config(f"model=BiT-M-R50x1,shots=1,{arguments}", **fields)
  assert differences(tmp_path, config)[README] == (said,)


def test_fewer_images_than_there_are(tmp_path):
  config = cifar(",shots=1")
  found = differences(tmp_path, config, result={"num_test": 9_984})
  assert found[README] == ("10 images trained on and 9,984 evaluated, not the whole data set",)


def test_fewer_training_images(tmp_path):
  found = differences(
    tmp_path, cifar(), result={"left_out": {"unreadable": 3}, "num_train": 49_997}
  )
  assert found[README] == ("49,997 images trained on and 10,000 evaluated, not the whole data set",)


def test_an_unknown_hash(tmp_path):
  found = differences(tmp_path, cifar(",shots=1"), environment={"weights_sha256": ""})
  assert found[README] == ("the hash of its checkpoint isn't recorded",)


@pytest.mark.parametrize("loaded", ["R14x0.5-CIFAR100", "mine/BiT-M-R50x1.npz", "none", 5])
def test_a_checkpoint_that_config_and_environment_name_otherwise(tmp_path, loaded):
  found = differences(tmp_path, cifar(",shots=1"), environment={"weights": loaded})
  said = "config.json and environment.json name different checkpoints"
  assert found[README] == (said,)
  assert run_folders.only(tmp_path).warnings == (f"{said}.",)


def test_two_files_of_the_released_name(tmp_path):
  runs = [(cifar(",shots=1"), 0.5, {"sha": c * 64}) for c in "ab"]
  found = compared(tmp_path, *runs)
  assert {c.differences for c in found} == {
    ("several files among these runs are called BiT-M-R50x1",)
  }


def test_other_models_data_and_shots_have_no_row(tmp_path):
  found = compared(
    tmp_path,
    (cifar(",shots=1", model="BiT-M-R101x1"), 0.5),
    (cifar(",shots=10"), 0.5),
    (cifar(dataset="oxford_iiit_pet"), 0.5),
    (run_folders.config("model=R14x0.5"), 0.5),
    (run_folders.config("model=R50x1,weights=mine/model.npz"), 0.5),
    (run_folders.config("model=BiT-M-R50x1", "vtab/cifar100"), 0.5),
  )
  assert found == []


def test_a_bare_architecture_with_the_released_weights_has_rows(tmp_path):
  config = cifar(",shots=1,weights=BiT-M-R50x1", model="R50x1")
  assert {c.differences for c in compared(tmp_path, (config, 0.55))} == {()}


def test_the_paper_s_full_sets_and_its_resolution(tmp_path):
  config = run_folders.config("model=BiT-M-R152x4,preset=paper", "oxford_iiit_pet")
  (one,) = compared(tmp_path / "a", (config, 0.944))
  assert (one.row.source, one.verdict) == ("BiT paper Table 2", "within one point (one seed only)")
  config = run_folders.config("model=BiT-S-R152x4,preset=paper,resolution=code", "imagenet2012")
  (one,) = compared(tmp_path / "b", (config, 0.813))  # 512 -> 480 is the paper's too, for this one
  assert one.differences == ("a departure from the rule: resolution code (rule: paper)",)


def test_the_readme_s_imagenet_is_by_the_code(tmp_path):
  (one,) = compared(
    tmp_path / "a", (run_folders.config("model=BiT-M-R50x1,shots=1", "imagenet2012"), 0.18)
  )
  assert one.verdict == "within one point (one seed only)"
  other = run_folders.config("model=BiT-M-R50x1,shots=1,resolution=paper", "imagenet2012")
  (one,) = compared(tmp_path / "b", (other, 0.18))
  assert one.differences == (
    "a departure from the rule: resolution paper (rule: code)",
    "resize 448 and crop 384, theirs 512 and 480",
  )


def test_top5_is_compared_with_top5(tmp_path):
  config = run_folders.config("model=BiT-M-R152x4,preset=paper", "imagenet2012")
  found = compared(tmp_path, (config, 0.8, {"result": {"top5": 0.977}}))
  verdicts = {(c.row.name, c.row.published.split()[0]): c.verdict for c in found}
  assert verdicts == {
    ("top1", "85.39"): "off by -5.4 (one seed only)",
    ("top5", "97.69"): "within the published spread (one seed only)",
  }


def tasks(names, preset="paper", model="BiT-M-R152x4", seeds=(0, 1, 2), top1=0.71, **fields):
  return [
    (
      run_folders.config(f"model={model},preset={preset},seed={s}", f"vtab/{t}", **fields),
      top1 + s / 100,
    )
    for t in names
    for s in seeds
  ]


def test_the_score_of_all_tasks(tmp_path):
  found = compared(tmp_path, *tasks(vtab.TASKS))
  paper, *readme = found
  assert (paper.row.source, paper.row.value) == ("BiT paper Table 2", 70.64)
  assert (paper.ours.median, paper.ours.low, paper.ours.high) == pytest.approx((72, 71, 73))
  assert (paper.ours.count, paper.differences, paper.verdict) == (3, (), "off by +1.4")
  assert [c.row.dataset for c in readme] == [
    *("vtab-1k all 19", "vtab-1k natural (7)"),
    *("vtab-1k structured (8)", "vtab-1k specialized (4)"),
  ]
  for one in readme:
    assert one.differences == ("the source doesn't state which rule and resolution it used",)
    assert one.verdict is None


def test_a_subset_of_the_tasks_has_no_verdict(tmp_path):
  names = [*comparisons.VTAB_GROUPS["natural"], "dmlab"]
  by_row = {c.row.dataset: c for c in compared(tmp_path, *tasks(names))}
  assert by_row["vtab-1k(19 tasks)"].differences == ("8 of 19 tasks",)
  assert by_row["vtab-1k structured (8)"].differences[0] == "1 of 8 tasks"
  assert not any("tasks" in d for d in by_row["vtab-1k natural (7)"].differences)
  assert "vtab-1k specialized (4)" not in by_row


def test_one_departing_task_takes_the_verdict(tmp_path):
  runs = [*tasks(vtab.TASKS[1:]), *tasks(vtab.TASKS[:1])]
  runs[-1] = (*runs[-1], {"result": {"num_test": 5}})
  paper = compared(tmp_path, *runs)[0]
  assert paper.verdict is None
  assert len(paper.differences) == 1


def test_models_without_a_row(tmp_path):
  compared(tmp_path, (cifar(",shots=1"), 0.5), (run_folders.config("model=R14x0.5"), 0.5))
  found = run_folders.collected(tmp_path).runs
  found_values = verdicts.compare(verdicts.read(), seeds.frame(found), [])
  assert verdicts.unmatched(found, found_values) == ["R14x0.5-CIFAR100"]
