"""Tests of bit_jax.hyperrule."""

import math

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bit_jax import hyperrule
from bit_jax.configs import base
from bit_jax.runtime import errors

THRESHOLDS = (1000, 19_999, 20_000, 50_000, 499_999, 500_000, 1_281_167)
SMALL, LARGE = (32, 32), (224, 224)


@pytest.fixture(scope="module")
def hyperrule_reference(shared):
  """What the official `bit_hyperrule.py` returns."""
  with np.load(shared / "golden" / "hyperrule.npz") as file:
    return dict(file)


def resolve(num_examples=50_000, image_size=SMALL, arg=None, **fields):
  config = base.get_config(arg)
  config.update(fields)
  return hyperrule.resolve(config, num_examples, image_size)


@pytest.mark.parametrize(
  ("num_examples", "supports", "mixup_alpha"),
  [
    (1, (100, 200, 300, 400, 500), 0.0),
    (19_999, (100, 200, 300, 400, 500), 0.0),
    (20_000, (500, 3_000, 6_000, 9_000, 10_000), 0.1),
    (499_999, (500, 3_000, 6_000, 9_000, 10_000), 0.1),
    (500_000, (500, 6_000, 12_000, 18_000, 20_000), 0.1),
  ],
)
def test_regimes(num_examples, supports, mixup_alpha):
  rule = hyperrule.schedule("code", num_examples)
  assert (rule.warmup_steps, *rule.decay_steps, rule.total_steps) == supports
  assert (rule.batch_size, rule.base_lr, rule.mixup_alpha) == (512, 0.003, mixup_alpha)


def test_regimes_are_the_official_ones(hyperrule_reference):
  examples = [int(k.removeprefix("mixup/examples")) for k in hyperrule_reference if "mixup" in k]
  assert sorted(examples) == list(THRESHOLDS)
  for n in examples:
    rule = hyperrule.schedule("code", n)
    supports = [rule.warmup_steps, *rule.decay_steps, rule.total_steps]
    assert supports == hyperrule_reference[f"supports/examples{n}"].tolist()
    assert rule.mixup_alpha == hyperrule_reference[f"mixup/examples{n}"]


@pytest.mark.parametrize(
  ("preset", "num_examples", "batch_size", "expected"),
  [
    # The paper: no warm-up, a tenth after 30, 60 and 90 % of the steps.
    ("paper", 1000, None, (512, 0.003, 500, 0, (150, 300, 450), 0.0)),
    ("paper", 50_000, None, (512, 0.003, 10_000, 0, (3_000, 6_000, 9_000), 0.1)),
    ("paper", 1_281_167, None, (512, 0.003, 20_000, 0, (6_000, 12_000, 18_000), 0.1)),
    # The README: batch 128 at 0.001, the steps as they are.
    ("readme_128", 1000, None, (128, 0.001, 500, 100, (200, 300, 400), 0.0)),
    ("readme_128", 50_000, None, (128, 0.001, 10_000, 500, (3_000, 6_000, 9_000), 0.1)),
    ("readme_128", 50_000, 64, (64, 0.001, 10_000, 500, (3_000, 6_000, 9_000), 0.1)),
    # The same images seen: a quarter of the batch takes four times the steps at a quarter the rate.
    ("scaled", 1000, None, (512, 0.003, 500, 100, (200, 300, 400), 0.0)),
    ("scaled", 1000, 128, (128, 0.00075, 2_000, 400, (800, 1_200, 1_600), 0.0)),
    ("scaled", 50_000, 64, (64, 0.000375, 80_000, 4_000, (24_000, 48_000, 72_000), 0.1)),
    ("scaled", 1000, 1024, (1024, 0.006, 250, 50, (100, 150, 200), 0.0)),
    # Only 'scaled' adapts the rest to another batch.
    ("code", 1000, 64, (64, 0.003, 500, 100, (200, 300, 400), 0.0)),
  ],
)
def test_presets(preset, num_examples, batch_size, expected):
  assert hyperrule.schedule(preset, num_examples, batch_size) == hyperrule.Schedule(*expected)


@given(st.integers(1, 2_000_000), st.integers(1, 8192))
def test_scaled_sees_as_many_images(num_examples, batch_size):
  rule = hyperrule.schedule("code", num_examples)
  scaled = hyperrule.schedule("scaled", num_examples, batch_size)
  seen, expected = scaled.total_steps * batch_size, rule.total_steps * 512
  assert abs(seen - expected) <= batch_size / 2
  assert scaled.base_lr / batch_size == pytest.approx(rule.base_lr / 512)


def test_stretch():
  rule = hyperrule.schedule("code", 1000)
  assert hyperrule.stretch(rule, 200) == hyperrule.Schedule(512, 0.003, 200, 40, (80, 120, 160), 0)
  assert hyperrule.stretch(rule, 500) == rule


@given(st.sampled_from(THRESHOLDS), st.integers(1, 100_000))
def test_a_stretched_schedule_keeps_its_proportions(num_examples, total_steps):
  rule = hyperrule.schedule("code", num_examples)
  stretched = hyperrule.stretch(rule, total_steps)
  for before, after in zip(
    (rule.warmup_steps, *rule.decay_steps),
    (stretched.warmup_steps, *stretched.decay_steps),
    strict=True,
  ):
    assert abs(after / total_steps - before / rule.total_steps) <= 0.5 / total_steps + 1e-12


def test_resolution_is_the_official_one(hyperrule_reference):
  sizes = {k: v for k, v in hyperrule_reference.items() if k.startswith("resolution/")}
  assert len(sizes) == 10
  for key, expected in sizes.items():
    height, width = map(int, key.removeprefix("resolution/").split("x"))
    assert hyperrule.resolution((height, width), "R50x1", "code") == tuple(expected)


@pytest.mark.parametrize(
  ("image_size", "model", "source", "expected"),
  [
    ((8, 8), "R50x1", "code", (160, 128)),
    ((95, 96), "R50x1", "code", (160, 128)),
    ((96, 96), "R50x1", "code", (512, 480)),
    ((90, 102), "R50x1", "code", (160, 128)),  # 9,180 pixels: the area counts, not a side
    ((64, 144), "R50x1", "code", (512, 480)),  # 9,216
    ((32, 32), "BiT-M-R152x4", "paper", (160, 128)),
    ((224, 224), "BiT-M-R101x3", "paper", (448, 384)),
    ((224, 224), "BiT-S-R152x2", "paper", (448, 384)),
    ((224, 224), "BiT-M-R152x4", "paper", (512, 480)),
    ((224, 224), "R152x4", "paper", (512, 480)),
    ((224, 224), "BiT-M-R152x4", "code", (512, 480)),
  ],
)
def test_resolution(image_size, model, source, expected):
  assert hyperrule.resolution(image_size, model, source) == expected


def test_resolve_fills_what_is_open():
  config = base.get_config()
  c = hyperrule.resolve(config, 50_000, SMALL)
  assert (c.resolution, c.resize, c.crop, c.test_size) == ("code", 160, 128, 128)
  assert (c.batch_size, c.total_steps, c.base_lr, c.warmup_steps) == (512, 10_000, 0.003, 500)
  assert (tuple(c.decay_steps), c.mixup_alpha) == ((3_000, 6_000, 9_000), 0.1)
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
  assert {k: c[k] for k in fields} == fields
  assert None not in [c[k] for k in ("total_steps", "warmup_steps", "decay_steps", "base_lr")]


def test_test_images_are_as_large_as_the_crop_unless_set():
  assert resolve(crop=64).test_size == 64
  c = resolve(1000, test_size=160)
  assert (c.resize, c.crop, c.test_size) == (160, 128, 160)
  assert hyperrule.departures(c, 1000, SMALL) == {"test_size": (160, 128)}
  assert "160 -> 128 pixels; test images at 160\n" in hyperrule.describe(c, 1000, SMALL, 1)


def test_the_length_alone_stretches_the_schedule():
  c = resolve(1000, total_steps=200)
  assert (c.warmup_steps, tuple(c.decay_steps), c.eval_every) == (40, (80, 120, 160), 40)
  c = resolve(1000, total_steps=200, warmup_steps=5)
  assert (c.warmup_steps, tuple(c.decay_steps)) == (5, (80, 120, 160))


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
    ({"resize": 100, "crop": 101}, ("101 pixels", "resized to 100", "at least as large")),
    ({"decay_steps": (30, 20)}, ("decay_steps must increase", "(30, 20)")),
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
    ({"max_aspect": 0.5}, ("max_aspect must be at least 1", "or 0 for no limit, not 0.5")),
    ({"resize": 100_000}, ("resize must be at most 16,384, not 100000",)),
    ({"test_size": 10**6}, ("test_size must be at most 16,384",)),
    ({"batch_size": 10**9}, ("batch_size must be at most 1,000,000",)),
    ({"total_steps": 10**12}, ("total_steps must be at most 100,000,000",)),
    ({"shots": 10**10}, ("shots must be at most 2,147,483,647",)),
    (
      {"total_steps": 100, "warmup_steps": 101},
      ("warm-up of 101 steps is longer than the run of 100", "lower warmup_steps or raise total_"),
    ),
    ({"decay_steps": (1, "a")}, ("decay_steps takes whole numbers in brackets", "not (1, 'a')")),
    ({"decay_steps": (1.5,)}, ("decay_steps takes whole numbers", "not (1.5,)")),
    ({"decay_steps": (True,)}, ("decay_steps takes whole numbers", "not (True,)")),
    ({"decay_steps": ((1,),)}, ("decay_steps takes whole numbers", "not ((1,),)")),
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


def test_no_examples():
  with pytest.raises(errors.UserError, match="at least one training example, not 0"):
    hyperrule.schedule("code", 0)


@pytest.mark.parametrize("batch_size", [0, -128])
@pytest.mark.parametrize("preset", hyperrule.PRESETS)
def test_a_batch_of_nothing(preset, batch_size):
  with pytest.raises(errors.UserError, match=f"batch_size must be at least 1, not {batch_size}"):
    hyperrule.schedule(preset, 1000, batch_size)


def test_what_differs_from_the_rule():
  assert hyperrule.departures(resolve(1000), 1000, SMALL) == {}
  c = resolve(1000, total_steps=200, batch_size=64, crop=120)
  assert hyperrule.departures(c, 1000, SMALL) == {
    "resize": (150, 160),
    "crop": (120, 128),
    "batch_size": (64, 512),
    "total_steps": (200, 500),  # warm-up and boundaries keep their places in it
  }
  c = resolve(1000, arg="preset=scaled", batch_size=64, decay_steps=(5,))
  assert hyperrule.departures(c, 1000, SMALL) == {"decay_steps": ((5,), (1_600, 2_400, 3_200))}


def test_describe():
  c = resolve(arg="preset=readme_128", random_crop=True, random_flip=False)
  text = hyperrule.describe(c, 50_000, SMALL, 4)
  for fact in (
    "readme_128 (resolution: code)",
    "50,000",
    "160 -> 128 pixels",
    "random crop\n",
    "128 (32 on each of 4 devices)",
    "10,000 (25.6 epochs)",
    "0.001, warm-up 500 steps, x 0.1 after 3,000, 6,000, 9,000",
    "alpha 0.1",
  ):
    assert fact in text
  assert "set otherwise" not in text
  c = resolve(arg="preset=readme_128", batch_size=8, total_steps=3, decay_steps=(1, 1, 2))
  text = hyperrule.describe(c, 50_000, SMALL, 4)
  assert "3 (0.0005 epochs)" in text
  assert "x 0.1 after 1 (2 times), 2\n" in text


@pytest.mark.parametrize(
  ("fields", "beyond"),
  [
    ({"decay_steps": (30, 100, 200), "total_steps": 100}, "100, 200"),
    ({"decay_steps": (30, 99), "total_steps": 100}, None),
    ({"total_steps": 1}, None),  # the rule's own boundaries are rounded
  ],
)
def test_a_boundary_that_the_run_never_reaches_is_a_warning(fields, beyond):
  words = " ".join(hyperrule.describe(resolve(1000, **fields), 1000, SMALL, 1).split())
  steps = fields["total_steps"]
  warning = f"the run ends after {steps} steps, before the learning rate falls after {beyond}:"
  assert (warning in words, "warning" in words) == 2 * (beyond is not None,)


def test_every_seed_that_is_allowed_gives_its_own_keys():
  largest = hyperrule.MAX_SEED
  assert resolve(seed=largest).seed == largest
  keys = {tuple(map(int, jax.random.key_data(jax.random.key(s)))) for s in (0, 1, largest)}
  assert len(keys) == 3
  beyond = jax.random.key_data(jax.random.key(largest + 1))
  assert tuple(map(int, beyond)) in keys  # the reason for the limit
  with pytest.raises(errors.UserError, match="seed=4294967296 can't be used: it takes a whole nu"):
    resolve(arg=f"seed={largest + 1}")


def test_describe_what_is_off_or_otherwise():
  c = resolve(1000, base_lr=0.5, decay_steps=(), random_crop=False, random_flip=False)
  words = " ".join(hyperrule.describe(c, 1000, SMALL, 1).split())
  for fact in ("100 steps, no decay", "MixUp off", "augmentation none", "base_lr 0.5 (the rule: 0"):
    assert fact in words
