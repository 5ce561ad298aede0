"""From a config to a run: what is filled, what stays, and the name of the folder."""

import dataclasses
import math
import re

import jax
import ml_collections
import pytest
import resolving

from bit_jax import hyperrule, run_config
from bit_jax.configs import base, cifar10, npz, quickstart
from bit_jax.data import datasets
from bit_jax.runtime import errors

SMALL, LARGE = (32, 32), (224, 224)


def facts(num_examples, image_size):
  found = datasets.find("cifar10", "final")
  return dataclasses.replace(found, num_train=num_examples, image_size=image_size)


def resolve(num_examples=50_000, image_size=SMALL, arg=None, **fields):
  request = base.get_config(arg)
  request.update(fields)
  return run_config.resolve(request, facts(num_examples, image_size))


def test_digits():
  config, spec = resolving.resolve(quickstart.get_config("weights=none"))
  assert (config.random_crop, config.random_flip) == (spec.crop_safe, spec.flip_safe)
  assert not config.random_flip  # mirrored digits are no digits
  open_fields = [k for k, v in config.to_dict().items() if v is None]
  assert sorted(open_fields) == ["data_dir", "data_path", "patience"]
  assert run_config.num_examples(config, spec) == 50


def test_cifar_by_the_rule():
  config, spec = resolving.resolve(cifar10.get_config())
  assert (config.random_crop, config.random_flip) == (True, True)
  assert config.weights == "BiT-M-R50x1"
  assert (config.batch_size, config.total_steps, config.mixup_alpha) == (512, 10_000, 0.1)
  assert run_config.num_examples(config, spec) == 50_000


def test_shots_choose_the_regime():
  config, _ = resolving.resolve(cifar10.get_config("shots=10"))
  assert (config.total_steps, config.mixup_alpha) == (500, 0.0)


def test_what_is_set_stays_and_the_argument_is_not_changed():
  given = cifar10.get_config("weights=none")
  given.random_flip, given.total_steps = False, 70
  before = given.to_dict()
  config, _ = resolving.resolve(given)
  assert (config.weights, config.random_flip, config.total_steps) == ("none", False, 70)
  assert given.to_dict() == before


def test_a_resolved_config_resolves_to_itself():
  config, _ = resolving.resolve(cifar10.get_config())
  assert resolving.resolve(config)[0].to_dict() == config.to_dict()


@pytest.mark.parametrize(
  ("change", "said"),
  [
    ({"dataset": "cifar11"}, "Unknown data set 'cifar11'.* cifar10, cifar100, .*digits, npz"),
    ({"model": "BiT-L-R152x4"}, "never released"),
    ({"model": "R50x1"}, "weights"),
  ],
)
def test_unknown_names(change, said):
  config = cifar10.get_config()
  config.update(change)
  with pytest.raises(errors.UserError, match=said):
    resolving.resolve(config)


def test_no_data_set():
  with pytest.raises(errors.UserError, match=r"names no data set: .*cifar10, cifar100"):
    resolving.resolve(base.get_config())


def test_npz_without_its_path():
  with pytest.raises(errors.UserError, match="path"):
    resolving.resolve(npz.get_config())


def test_the_folder_is_found_again_and_differs_with_any_field():
  def folder(**changes):
    config = cifar10.get_config("shots=5,seed=3,weights=none")
    config.update(changes)
    return run_config.default_workdir(resolving.resolve(config)[0])

  assert re.fullmatch(r"runs/cifar10-BiT-M-R50x1-5shot-s3-[0-9a-f]{8}", folder())
  assert folder() == folder()
  others = {folder(base_lr=0.01), folder(dtype="float32"), folder(seed=4), folder(shots=None)}
  assert len(others | {folder()}) == 5
  assert "-full-" in folder(shots=None)


def test_a_config_file_may_have_fields_of_its_own():
  given = cifar10.get_config()
  plain = resolving.resolve(given)[0]
  with given.unlocked():
    given.group = {"name": "a", "runs": (1, 2)}
  config, _ = resolving.resolve(given)
  assert config.to_dict() == {**plain.to_dict(), "group": {"name": "a", "runs": (1, 2)}}
  assert list(config.to_dict()) == sorted(config.to_dict())
  assert run_config.config_hash(config) != run_config.config_hash(plain)
  assert resolving.resolve(config)[0] == config
  with given.unlocked():
    given.others = {1, 2}
  with pytest.raises(errors.UserError, match=r"field others must be .*, not \{1, 2\}"):
    resolving.resolve(given)


def test_a_config_that_somebody_else_wrote_has_a_hash_whatever_its_fields_hold():
  resolved, _ = resolving.resolve(quickstart.get_config())
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
  config, _ = resolving.resolve(quickstart.get_config("weights=none"))
  plain = run_config.default_workdir(config)
  for field in config.to_dict():
    changed = ml_collections.ConfigDict({**config.to_dict(), field: "something else"})
    assert (run_config.default_workdir(changed) == plain) == (field in INCIDENTAL), field


def test_resolve_fills_what_is_open():
  config = base.get_config()
  c = run_config.resolve(config, facts(50_000, SMALL))
  assert (c.resolution, c.resize, c.crop, c.test_size) == ("code", 160, 128, 128)
  assert (c.batch_size, c.total_steps, c.base_lr, c.warmup_steps) == (512, 10_000, 0.003, 500)
  assert (c.decay_steps, c.mixup_alpha) == ((3_000, 6_000, 9_000), 0.1)
  assert (c.eval_every, c.checkpoint_every, c.log_every) == (2_000, 2_000, 100)
  assert config.total_steps is None  # what came in is as it was
  assert config.resize is None


def test_the_resolution_follows_the_preset_unless_set():
  assert resolve(image_size=LARGE, arg="preset=paper").crop == 384
  assert resolve(image_size=LARGE, arg="preset=paper,resolution=code").crop == 480
  assert resolve(image_size=LARGE, arg="resolution=paper").crop == 384
  assert resolve(image_size=LARGE).crop == 480


@pytest.mark.parametrize(
  "fields",
  [
    {"batch_size": 96},
    {"total_steps": 7},
    {"base_lr": 0.5},
    {"warmup_steps": 0},
    {"decay_steps": (1, 2)},
    {"decay_steps": ()},
    {"mixup_alpha": 0.0},
    {"mixup_alpha": 1.5},
    {"resize": 200, "crop": 200},
    {"test_size": 160},
    {"eval_every": 1, "checkpoint_every": 2, "log_every": 3},
    {"total_steps": 40, "warmup_steps": 3, "decay_steps": (9,), "base_lr": 1.0, "batch_size": 2},
  ],
)
@pytest.mark.parametrize("preset", hyperrule.PRESETS)
def test_what_the_user_set_wins(fields, preset):
  c = resolve(arg=f"preset={preset}", **fields)
  assert {k: getattr(c, k) for k in fields} == fields
  assert None not in [
    getattr(c, k) for k in ("total_steps", "warmup_steps", "decay_steps", "base_lr")
  ]


def test_the_length_alone_stretches_the_schedule():
  c = resolve(1000, total_steps=200)
  assert (c.warmup_steps, c.decay_steps, c.eval_every) == (40, (80, 120, 160), 40)
  c = resolve(1000, total_steps=200, warmup_steps=5)
  assert (c.warmup_steps, c.decay_steps) == (5, (80, 120, 160))


def test_a_batch_for_the_scaled_preset():
  c = resolve(1000, arg="preset=scaled", batch_size=128)
  assert (c.total_steps, c.base_lr, c.warmup_steps) == (2_000, 0.00075, 400)


@pytest.mark.parametrize(
  ("image_size", "fields", "expected"),
  [
    (SMALL, {"resize": 80}, (80, 64)),
    (SMALL, {"crop": 64}, (80, 64)),
    (LARGE, {"crop": 240}, (256, 240)),
    (LARGE, {"resize": 256}, (256, 240)),
    (LARGE, {"resize": 256, "crop": 224}, (256, 224)),
  ],
)
def test_one_size_gives_the_other(image_size, fields, expected):
  c = resolve(image_size=image_size, **fields)
  assert (c.resize, c.crop) == expected


@pytest.mark.parametrize(
  ("fields", "facts"),
  [
    ({"preset": "blog"}, ("preset='blog'", *hyperrule.PRESETS)),
    ({"resolution": "blog"}, ("resolution='blog'", "code", "paper")),
    ({"dtype": "float16"}, ("dtype='float16'", "auto", "float32", "bfloat16")),
    ({"head": "none"}, ("head='none'", "zero", "keep")),
    ({"model": "R50x9"}, ("'R50x9'", "R50x1")),
    ({"batch_size": 0}, ("batch_size must be at least 1, not 0",)),
    ({"batch_size": -5, "preset": "scaled"}, ("batch_size must be at least 1, not -5",)),
    ({"eval_batch_size": 0}, ("eval_batch_size must be at least 1, not 0",)),
    ({"total_steps": 0}, ("total_steps must be at least 1, not 0",)),
    ({"crop": 0}, ("crop must be at least 1, not 0",)),
    ({"eval_every": 0}, ("eval_every must be at least 1",)),
    ({"checkpoint_every": -1}, ("checkpoint_every must be at least 1",)),
    ({"log_every": 0}, ("log_every must be at least 1",)),
    ({"test_size": 0}, ("test_size must be at least 1, not 0",)),
    ({"shuffle_window": 0}, ("shuffle_window must be at least 1, not 0",)),
    ({"shots": 0}, ("shots must be at least 1, not 0",)),
    ({"patience": 0}, ("patience must be at least 1, not 0",)),
    ({"min_side": -1}, ("min_side must be at least 0, not -1",)),
    ({"max_aspect": -0.5}, ("max_aspect must be at least 0, not -0.5",)),
    ({"resident_share": -0.1}, ("resident_share must be at least 0, not -0.1",)),
    ({"resident_share": 1.01}, ("resident_share must be at most 1, not 1.01",)),
    ({"on_bad_image": "mend"}, ("on_bad_image='mend'", "stop", "skip")),
    ({"base_lr": -0.1}, ("base_lr must be at least 0, not -0.1",)),
    ({"base_lr": math.nan}, ("base_lr must be at least 0, not nan",)),
    ({"warmup_steps": -1}, ("warmup_steps must be at least 0, not -1",)),
    ({"mixup_alpha": -0.1}, ("mixup_alpha must be at least 0, not -0.1",)),
    ({"momentum": -0.9}, ("momentum must be at least 0, not -0.9",)),
    ({"seed": -1}, ("seed must be at least 0, not -1",)),
    ({"resize": 100, "crop": 101}, ("crop=101", "resize=100")),
    ({"decay_steps": (30, 20)}, ("decay_steps must be a tuple", "(30, 20)")),
    ({"microbatch": 0}, ("microbatch must be 'auto' or a whole number of at least 1, not 0",)),
    ({"microbatch": "all"}, ("microbatch must be 'auto'", "not 'all'")),
    ({"microbatch": True}, ("microbatch must be 'auto'", "not True")),
    ({"remat": 1}, ("remat must be 'auto', True or False, not 1",)),
    ({"momentum_dtype": "float16"}, ("momentum_dtype='float16' is not known", "bfloat16")),
    ({"seed": 2**32}, ("seed must be at most 4,294,967,295, not 4294967296",)),
    ({"seed": 2**63}, ("seed must be at most 4,294,967,295",)),
    ({"momentum": 1.0}, ("momentum must be below 1, not 1.0",)),
    ({"momentum": 2.0}, ("momentum must be below 1, not 2.0",)),
    ({"momentum": math.nan}, ("momentum must be at least 0, not nan",)),
    ({"base_lr": math.inf}, ("base_lr must be at most 1e+30, not inf",)),
    ({"mixup_alpha": math.inf}, ("mixup_alpha must be at most 1e+30, not inf",)),
    ({"max_aspect": math.inf}, ("max_aspect must be at most 1e+30, not inf",)),
    ({"max_aspect": 0.5}, ("max_aspect must be 0 (no limit) or at least 1", "not 0.5")),
    ({"resize": 100_000}, ("resize must be at most 16,384, not 100000",)),
    ({"test_size": 10**6}, ("test_size must be at most 16,384",)),
    ({"batch_size": 10**9}, ("batch_size must be at most 1,000,000",)),
    ({"total_steps": 10**12}, ("total_steps must be at most 100,000,000",)),
    ({"shots": 10**10}, ("shots must be at most 2,147,483,647",)),
    (
      {"total_steps": 100, "warmup_steps": 101},
      ("warm-up of 101 steps is longer than the run of 100", "lower warmup_steps or raise total_"),
    ),
    ({"decay_steps": (1, "a")}, ("decay_steps must be a tuple", "not (1, 'a')")),
    ({"decay_steps": (1.5,)}, ("decay_steps must be a tuple", "not (1.5,)")),
    ({"decay_steps": (True,)}, ("decay_steps must be a tuple", "not (True,)")),
    ({"decay_steps": ((1,),)}, ("decay_steps must be a tuple", "not ((1,),)")),
    ({"decay_steps": (-1, 2)}, ("decay_steps must be at least 0, not -1",)),
    ({"decay_steps": (1, 2**63)}, ("decay_steps must be at most 2,147,483,647",)),
    ({"name": "a/b"}, ("name='a/b' can't be a part of the run folder's name",)),
    ({"name": ""}, ("name='' can't be",)),
  ],
)
def test_mistakes(fields, facts):
  with pytest.raises(errors.UserError) as e:
    resolve(**fields)
  message = str(e.value)
  assert all(fact in message for fact in facts)
  assert "\n" not in message


def test_test_images_are_as_large_as_the_crop_unless_set():
  assert resolve(crop=64).test_size == 64
  c = resolve(1000, test_size=160)
  assert (c.resize, c.crop, c.test_size) == (160, 128, 160)
  assert hyperrule.departures(c.to_dict(), 1000, SMALL) == {"test_size": (160, 128)}


def test_what_differs_from_the_rule():
  assert hyperrule.departures(resolve(1000).to_dict(), 1000, SMALL) == {}
  c = resolve(1000, total_steps=200, batch_size=64, crop=120)
  assert hyperrule.departures(c.to_dict(), 1000, SMALL) == {
    "resize": (150, 160),
    "crop": (120, 128),
    "batch_size": (64, 512),
    "total_steps": (200, 500),  # warm-up and boundaries keep their places in it
  }
  c = resolve(1000, arg="preset=scaled", batch_size=64, decay_steps=(5,))
  assert hyperrule.departures(c.to_dict(), 1000, SMALL) == {
    "decay_steps": ((5,), (1_600, 2_400, 3_200))
  }


def test_every_seed_that_is_allowed_gives_its_own_keys():
  largest = hyperrule.MAX_SEED
  assert resolve(seed=largest).seed == largest
  keys = {tuple(map(int, jax.random.key_data(jax.random.key(s)))) for s in (0, 1, largest)}
  assert len(keys) == 3
  beyond = jax.random.key_data(jax.random.key(largest + 1))
  assert tuple(map(int, beyond)) in keys  # the reason for the limit
  with pytest.raises(errors.UserError, match="seed=4294967296 can't be used: it takes a whole nu"):
    resolve(arg=f"seed={largest + 1}")
