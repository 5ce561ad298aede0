"""From a config to a run: what is filled, what stays, and the name of the folder."""

import re

import ml_collections
import pytest

from bit_jax import run_config
from bit_jax.configs import base, cifar10, npz, quickstart
from bit_jax.runtime import errors


def test_digits():
  config, spec = run_config.resolve(quickstart.get_config("weights=none"))
  assert (config.random_crop, config.random_flip) == (spec.crop_safe, spec.flip_safe)
  assert not config.random_flip  # mirrored digits are no digits
  open_fields = [k for k, v in config.to_dict().items() if v is None]
  assert sorted(open_fields) == ["data_dir", "data_path", "patience"]
  assert run_config.num_examples(config, spec) == 50


def test_cifar_by_the_rule():
  config, spec = run_config.resolve(cifar10.get_config())
  assert (config.random_crop, config.random_flip) == (True, True)
  assert config.weights == "BiT-M-R50x1"
  assert (config.batch_size, config.total_steps, config.mixup_alpha) == (512, 10_000, 0.1)
  assert run_config.num_examples(config, spec) == 50_000


def test_shots_choose_the_regime():
  config, _ = run_config.resolve(cifar10.get_config("shots=10"))
  assert (config.total_steps, config.mixup_alpha) == (500, 0.0)


def test_what_is_set_stays_and_the_argument_is_not_changed():
  given = cifar10.get_config("weights=none")
  given.random_flip, given.total_steps = False, 70
  before = given.to_dict()
  config, _ = run_config.resolve(given)
  assert (config.weights, config.random_flip, config.total_steps) == ("none", False, 70)
  assert given.to_dict() == before


def test_a_resolved_config_resolves_to_itself():
  config, _ = run_config.resolve(cifar10.get_config())
  assert run_config.resolve(config)[0].to_dict() == config.to_dict()


@pytest.mark.parametrize(
  ("change", "said"),
  [
    ({"dataset": "cifar11"}, "There is no data set 'cifar11'.* cifar10, cifar100, .*digits, npz"),
    ({"shots": 0}, "shots must be at least 1"),
    ({"model": "BiT-M-R51x1"}, "There is no model"),
    ({"model": "BiT-L-R152x4"}, "never released"),
    ({"model": "R50x1"}, "weights"),
    ({"batch_size": 0}, "batch_size must be at least 1"),
    ({"crop": 200, "resize": 100}, "larger"),
    ({"dtype": "float16"}, "dtype='float16' is not known"),
  ],
)
def test_mistakes(change, said):
  config = cifar10.get_config()
  config.update(change)
  with pytest.raises(errors.UserError, match=said):
    run_config.resolve(config)


def test_no_data_set():
  with pytest.raises(errors.UserError, match=r"names no data set: .*cifar10, cifar100"):
    run_config.resolve(base.get_config())


def test_npz_without_its_path():
  with pytest.raises(errors.UserError, match="path"):
    run_config.resolve(npz.get_config())


def test_the_folder_is_found_again_and_differs_with_any_field():
  def folder(**changes):
    config = cifar10.get_config("shots=5,seed=3,weights=none")
    config.update(changes)
    return run_config.default_workdir(run_config.resolve(config)[0])

  assert re.fullmatch(r"runs/cifar10-BiT-M-R50x1-5shot-s3-[0-9a-f]{8}", folder())
  assert folder() == folder()
  others = {folder(base_lr=0.01), folder(dtype="float32"), folder(seed=4), folder(shots=None)}
  assert len(others | {folder()}) == 5
  assert "-full-" in folder(shots=None)


SCALED = "preset=scaled"


@pytest.mark.parametrize(
  ("arguments", "fields", "num_used", "said"),
  [
    ("", {}, 20_000, None),
    ("", {}, 19_999, "500 steps and MixUp 0, where this run has 10,000 and 0.1;"),
    ("", {"total_steps": 500}, 19_999, "500 steps and MixUp 0, where this run has 500 and 0.1;"),
    ("", {"total_steps": 500, "mixup_alpha": 0.0}, 19_999, None),
    (SCALED, {"batch_size": 64}, 45_000, None),
    (SCALED, {"batch_size": 64}, 9_000, "4,000 steps and MixUp 0, where this run has 80,000 and"),
    (SCALED, {"batch_size": 64, "total_steps": 4_000, "mixup_alpha": 0.0}, 9_000, None),
  ],
)
def test_a_set_of_which_much_is_left_out_is_told_what_the_rule_says(
  arguments, fields, num_used, said
):
  given = cifar10.get_config(arguments)
  given.update(fields)
  config, spec = run_config.resolve(given)
  warnings = run_config.regime_warnings(config, spec, num_used)
  assert len(warnings) == (said is not None)
  for warning in warnings:
    assert warning.startswith(f"Of 50,000 training images {num_used:,} are used")
    assert said in warning


def test_a_request_with_an_unknown_field():
  given = cifar10.get_config()
  with given.unlocked():
    given.lr = 0.1
  with pytest.raises(errors.UserError, match=r"unknown fields \(lr\).* base_lr, "):
    run_config.resolve(given)


def test_a_config_that_somebody_else_wrote_has_a_hash_whatever_its_fields_hold():
  resolved, _ = run_config.resolve(quickstart.get_config())
  hashes = {
    run_config.config_hash(ml_collections.ConfigDict({**resolved.to_dict(), "deterministic": v}))
    for v in (False, {}, {"a": [1]}, [])
  }
  assert len(hashes) == 4


INCIDENTAL = {
  *("checkpoint_every", "data_dir", "decoded_cache", "eval_batch_size", "log_every"),
  *("microbatch", "profile", "reason", "remat", "resident_share"),
}


def test_the_hash_covers_every_field_that_could_change_the_result():
  config, _ = run_config.resolve(quickstart.get_config("weights=none"))
  plain = run_config.default_workdir(config)
  for field in config.to_dict():
    changed = ml_collections.ConfigDict({**config.to_dict(), field: "something else"})
    assert (run_config.default_workdir(changed) == plain) == (field in INCIDENTAL), field


@pytest.mark.parametrize(
  ("arguments", "fields", "said"),
  [
    ("", {"keep_best": True}, "keep_best chooses on the images that are reported"),
    ("", {"patience": 2}, "patience chooses on the images that"),
    ("", {"keep_best": True, "patience": 2}, "keep_best and patience choose on the images that"),
    ("", {}, None),
    ("protocol=select,", {"keep_best": True}, None),
  ],
)
def test_a_choice_on_what_is_reported_is_a_warning(npz_path, arguments, fields, said):
  config = npz.get_config(f"{arguments}path={npz_path}")
  config.update(fields)
  found = run_config.choice_warnings(*run_config.resolve(config))
  assert len(found) == (said is not None)
  for text in found:
    assert text.startswith(said)
    assert "protocol=select" in text
    assert text.endswith("or give the data train, val and test parts.")
