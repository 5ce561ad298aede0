"""Tests of bit_jax.hyperrule."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bit_jax import hyperrule
from bit_jax.runtime import errors

THRESHOLDS = (1000, 19_999, 20_000, 50_000, 499_999, 500_000, 1_281_167)
SMALL, LARGE = (32, 32), (224, 224)


@pytest.fixture(scope="module")
def hyperrule_reference(shared):
  """What the official `bit_hyperrule.py` returns."""
  with np.load(shared / "golden" / "hyperrule.npz") as file:
    return dict(file)


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


def test_no_examples():
  with pytest.raises(errors.UserError, match="at least one training example, not 0"):
    hyperrule.schedule("code", 0)


@pytest.mark.parametrize("batch_size", [0, -128])
@pytest.mark.parametrize("preset", hyperrule.PRESETS)
def test_a_batch_of_nothing(preset, batch_size):
  with pytest.raises(errors.UserError, match=f"batch_size must be at least 1, not {batch_size}"):
    hyperrule.schedule(preset, 1000, batch_size)


@pytest.mark.parametrize(("crop", "resize"), [(128, 160), (480, 512), (384, 448), (240, 256)])
def test_the_resize_of_a_crop(crop, resize):
  assert hyperrule.resize_for(crop) == resize
