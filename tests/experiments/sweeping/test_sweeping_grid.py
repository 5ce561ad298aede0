"""Tests of experiments.sweeping.grid, and of what the sweep files ask for."""

import collections
import csv
import pathlib
import re
import textwrap

import pytest

from bit_jax import hyperrule, run_config
from bit_jax.configs import cifar10, quickstart
from bit_jax.data import vtab
from bit_jax.runtime import errors
from experiments import reduced
from experiments.sweeping import grid

FOLDER = pathlib.Path(grid.__file__).parents[1]
HEAD = """
from bit_jax.configs import cifar10, quickstart
from experiments.sweeping import grid

def digits(arguments="", **fields):
  config = quickstart.get_config(arguments)
  config.update(fields)
  return config

"""


@pytest.fixture
def written(tmp_path):
  """A function that writes a sweep file and returns its path."""

  def write(body, head=HEAD):
    path = tmp_path / "mine.py"
    path.write_text(head + textwrap.dedent(body))
    return str(path)

  return write


def committed(name):
  return grid.load(str(FOLDER / f"{name}.py"))


def test_runs_are_resolved_and_named_as_the_training_command_names_them(written):
  path = written("""
    def get_runs():
      for seed in (0, 1):
        yield grid.Run(digits(f"seed={seed}"), start="in words" if seed else None)
  """)
  first, second = grid.load(path)
  assert (first.config.decay_steps, first.spec.name) == ((40, 60, 80), "digits")
  assert first.name == pathlib.Path(run_config.default_workdir(first.config)).name
  assert first.name.startswith("quickstart-R14x0.5-5shot-s0-")
  assert (first.labels, second.labels) == ({}, {"start": "in words"})
  assert (first.after, first.mistake) == (None, None)


def test_a_config_may_be_changed_for_the_next_run(written):
  path = written("""
    def get_runs():
      config = digits()
      for config.total_steps in (10, 20):
        yield grid.Run(config)
  """)
  steps = [one.config.total_steps for one in grid.load(path)]
  assert steps == [10, 20]


def test_a_field_that_is_not_there_is_a_mistake(written):
  path = written("""
    def get_runs():
      config = digits()
      config.totl_steps = 20
      yield grid.Run(config)
  """)
  with pytest.raises(errors.UserError, match=r"fails in line 13: AttributeError: .*total_steps"):
    grid.load(path)


def test_a_run_that_is_listed_twice_is_one_run_with_the_label_of_either(written):
  path = written("""
    def get_runs():
      yield grid.Run(digits())
      yield grid.Run(digits(), start="in words")
      yield grid.Run(digits())
  """)
  (one,) = grid.load(path)
  assert one.labels == {"start": "in words"}


def test_weights_of_an_earlier_run_are_found_in_its_folder_wherever_that_lies(written):
  path = written("""
    def get_runs():
      first = grid.Run(digits("weights=none"))
      yield first
      yield grid.Run(digits(), initialised_from=first)
  """)
  first, second = grid.load(path)
  assert second.after == first.name
  assert second.config.weights == f"{first.name}/model.npz"
  assert pathlib.Path(run_config.default_workdir(second.config)).name == second.name


@pytest.mark.parametrize(("steps", "checkpoint_every"), [(30, 100), (2_000, 100), (10_000, 500)])
def test_a_run_may_be_scored_at_its_end_alone(steps, checkpoint_every):
  config = quickstart.get_config()
  config.total_steps = steps
  assert grid.scored_at_the_end(config) is config
  assert (config.eval_every, config.checkpoint_every) == (steps, checkpoint_every)


def test_where_the_rule_says_how_long_a_run_is_it_is_scored_at_that_step():
  assert grid.scored_at_the_end(cifar10.get_config("shots=5")).eval_every == 500
  assert grid.scored_at_the_end(cifar10.get_config()).eval_every == 10_000


def test_a_run_that_cannot_be_made_says_why_and_leaves_the_others(written):
  path = written("""
    def get_runs():
      yield grid.Run(digits(dtype="floaty"))
      yield grid.Run(digits(dtype="floaty", crop=40))
      yield grid.Run(digits())
  """)
  wrong, other, right = grid.load(path)
  assert "dtype='floaty' is not known" in wrong.mistake
  assert wrong.spec is None
  assert wrong.name != other.name
  assert right.mistake is None


def test_mistakes_are_one_only_where_the_whole_config_is(written):
  path = written("""
    def get_runs():
      for value in (-1, "many", -1):
        yield grid.Run(digits(microbatch=value))
      yield grid.Run(digits(resident_share=2.0))
  """)
  first, second, third = grid.load(path)
  assert "not -1" in first.mistake
  assert "not 'many'" in second.mistake
  assert "resident_share" in third.mistake


@pytest.mark.parametrize(
  ("change", "mistake"),
  [
    ("del config.dataset", "The config has no dataset: "),
    ("del config.name", "The config has no name: "),
    ("del config.deterministic", "The config has no deterministic: "),
    ("del config.weights", "The config has no weights: "),
    ("config.more = {1, 2}", r"The config field more must be a text, .*not \{1, 2\}"),
    ("config.data_dir = sys", r"data_dir=<module 'sys' .* must be of type str"),
    ("config.microbatch = {1}", r"microbatch must be 'auto' or .* not \{1\}"),
    ("config.crop = 'wide'", "crop='wide' can't be used: it must be of type int"),
    ("config.weights = 3", "weights=3 can't be used: it must be of type str"),
    ("config.decay_steps = (1, 'x')", "decay_steps must be a tuple"),
    ("config.name = 3", "name=3 can't be used: it must be of type str"),
    ("config.name = None", "name=None can't be used: it must be of type str"),
  ],
)
def test_whatever_is_wrong_with_a_config_leaves_the_other_runs(written, change, mistake):
  path = written(f"""
    import sys

    def get_runs():
      import ml_collections

      yield grid.Run(digits())
      config = ml_collections.ConfigDict(digits().to_dict())
      with config.unlocked(), config.ignore_type():
        {change}
      yield grid.Run(config)
  """)
  right, wrong = grid.load(path)
  assert (right.mistake, wrong.spec) == (None, None)
  assert re.match(mistake, wrong.mistake)


def test_weights_of_an_earlier_run_need_their_field(written):
  path = written("""
    def get_runs():
      first = grid.Run(digits())
      yield first
      config = digits()
      with config.unlocked():
        del config.weights
      yield grid.Run(config, initialised_from=first)
  """)
  _, second = grid.load(path)
  assert "weights" in second.mistake


def test_only_takes_what_matches_and_what_that_waits_for(written):
  path = written("""
    def get_runs():
      first = grid.Run(digits("shots=3"))
      second = grid.Run(digits("shots=4"), initialised_from=first)
      yield from (first, second)
      yield grid.Run(digits("shots=5"), initialised_from=second)
      yield grid.Run(digits("shots=6"))
  """)
  shots = [one.config.shots for one in grid.load(path, "*-5shot-*")]
  assert shots == [3, 4, 5]
  assert [one.config.shots for one in grid.load(path, "*-6shot-*")] == [6]
  with pytest.raises(errors.UserError, match=r"yields no run .*'7'"):
    grid.load(path, "7")


@pytest.mark.parametrize(
  ("body", "fact"),
  [
    ("", "it has no function get_runs"),
    ("def get_runs(): return []", r"yields no run\.$"),
    ("def get_runs(): pass", r"yields no run\.$"),
    ("def get_runs(): yield digits()", "type ConfigDict: .*grid.Run"),
    ("x = 1 / 0", r"fails in line 10: ZeroDivisionError: division by zero"),
    ("def get_runs():\n  yield grid.Run(digits(crop='wide'))", r"fails in line 7: TypeError"),
    ("def get_runs(:\n  pass", r"fails in line 10: SyntaxError"),
    (
      "def get_runs(): yield grid.Run(digits('shots=no'))",
      r"can't be used \(line \d+\): .*shots=no can't be used",
    ),
    (
      "def get_runs():\n  yield grid.Run(digits(), initialised_from=grid.Run(digits('seed=1')))",
      "initialised_from takes a grid.Run",
    ),
  ],
)
def test_a_mistake_in_the_file_is_reported_in_a_sentence(written, body, fact):
  with pytest.raises(errors.UserError, match=fact) as caught:
    grid.load(written(body))
  assert "mine.py" in str(caught.value)


def test_a_missing_file_is_reported():
  with pytest.raises(errors.UserError, match="There is no sweep file"):
    grid.load("nowhere.py")


def test_the_fewshot_sweep_has_five_subsets_of_every_size_and_all_images_once():
  planned = committed("fewshot")
  assert all(one.mistake is None for one in planned)
  counts = collections.Counter(
    (c.dataset, c.preset, c.shots) for c in (one.config for one in planned)
  )
  assert {shots for name, _, shots in counts if name == "cifar10"} == {1, 5, 10, 25, 100, None}
  assert {shots for name, _, shots in counts if name == "oxford_flowers102"} == {1, 5, 10, None}
  assert {n for (_, _, shots), n in counts.items() if shots is not None} == {2 * 5}
  assert {n for (_, _, shots), n in counts.items() if shots is None} == {2}
  assert all(one.config.eval_every == one.config.total_steps for one in planned)


def test_the_vtab_sweep_has_three_runs_of_each_task():
  planned = committed("vtab1k")
  counts = collections.Counter((one.config.model, one.config.dataset) for one in planned)
  assert set(counts.values()) == {3}
  assert {d for _, d in counts} == {f"vtab/{task}" for task in vtab.TASKS}
  assert {one.config.crop for one in planned if one.config.model == "BiT-M-R152x4"} == {128, 480}
  assert {one.config.crop for one in planned if one.config.model == "BiT-M-R50x1"} == {128, 384}


def test_the_sizes_sweep_has_all_six_architectures():
  models = {one.config.model for one in committed("sizes")}
  sizes = ("R50x1", "R101x1", "R50x3", "R101x3", "R152x2", "R152x4")
  assert models == {f"BiT-M-{size}" for size in sizes}


def test_the_hyperrule_sweep_scores_val200_and_holds_the_rule_itself():
  planned = committed("hyperrule")
  assert {(one.spec.num_train, one.spec.num_test) for one in planned} == {(800, 200)}
  settings = {(one.config.base_lr, one.config.total_steps) for one in planned}
  assert (0.003, 500) in settings
  assert len(settings) == 12


def test_the_offline_sweep_is_the_one_whose_results_are_committed():
  with (FOLDER / "offline_results" / "results.csv").open(newline="") as file:
    made = {row["run"] for row in csv.DictReader(file)}
  assert {one.name for one in committed("offline")} == made


def test_the_offline_sweep_follows_the_reduced_rule_but_where_it_asks_about_it():
  pretraining, *planned = committed("offline")
  assert pretraining.config.dataset == "cifar100"
  c = pretraining.config
  assert (c.shots, c.total_steps, c.warmup_steps, c.decay_steps) == (
    250,
    2340,
    117,
    (780, 1560, 2080),
  )
  for one in planned:
    c = one.config
    assert (c.resize, c.crop, c.batch_size) == (56, 48, 64)
    rule = hyperrule.schedule(c.preset, run_config.num_examples(c, one.spec), c.batch_size)
    is_a_fifth = c.total_steps * 5 == rule.total_steps
    assert c.reason == (reduced.REASON if is_a_fifth else reduced.OTHER_LENGTH)
  assert reduced.REASON == "reduced rule: 56 -> 48 pixels, batch 64, a fifth of the steps"
  assert sum(one.config.reason == reduced.OTHER_LENGTH for one in planned) == 4 * 2 * 2
  small = [one.config for one in planned if one.config.shots == 1]
  assert {(c.total_steps, c.warmup_steps, c.decay_steps) for c in small} == {
    (100, 20, (40, 60, 80))
  }
  whole = [one for one in planned if one.config.dataset == "cifar10" and not one.config.shots]
  with_mixup = [one for one in whole if one.config.mixup_alpha == hyperrule.MIXUP_ALPHA]
  assert {one.config.total_steps for one in whole} == {2000}
  assert len(whole) - len(with_mixup) == 2
  counts = collections.Counter(
    (one.labels["start"], one.config.shots) for one in planned if one.config.shots in (1, 5, 10, 25)
  )
  assert set(counts.values()) == {5}
  assert len(counts) == 3 * 4
  assert {one.after for one in planned} - {None} <= {one.name for one in [pretraining, *planned]}


def test_the_bfloat16_sweep_has_the_same_subsets_in_both_formats():
  runs = committed("bfloat16")
  assert [(one.config.dtype, one.config.seed) for one in runs] == [
    (dtype, seed) for dtype in ("float32", "bfloat16") for seed in range(3)
  ]
