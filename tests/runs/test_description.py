"""Tests of bit_jax.runs.description: what is printed before a run."""

import dataclasses

import pytest
import resolving

from bit_jax import run_config
from bit_jax.configs import base, cifar10, npz
from bit_jax.data import datasets
from bit_jax.runs import description


def described(num_examples=50_000, num_devices=1, arg=None, **fields):
  request = base.get_config(arg)
  request.update(fields)
  spec = dataclasses.replace(datasets.find("cifar10", "final"), num_train=num_examples)
  return description.rule(run_config.resolve(request, spec), spec, num_devices)


def test_the_size_of_test_images_is_described():
  assert "160 -> 128 pixels; test images at 160\n" in described(1000, test_size=160)


def test_describe():
  text = described(50_000, 4, arg="preset=readme_128", random_crop=True, random_flip=False)
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
  assert "overrides" not in text
  text = described(arg="preset=readme_128", batch_size=8, total_steps=3, decay_steps=(1, 1, 2))
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
  words = " ".join(described(1000, **fields).split())
  steps = fields["total_steps"]
  warning = f"the run ends after {steps} steps, before the learning rate falls after {beyond}:"
  assert (warning in words, "warning" in words) == 2 * (beyond is not None,)


def test_describe_what_is_off_or_otherwise():
  off = {"decay_steps": (), "random_crop": False, "random_flip": False}
  words = " ".join(described(1000, base_lr=0.5, **off).split())
  for fact in ("100 steps, no decay", "MixUp off", "augmentation none", "base_lr 0.5 (the rule: 0"):
    assert fact in words


SCALED = "preset=scaled"


@pytest.mark.parametrize(
  ("arguments", "fields", "num_used", "said"),
  [
    ("", {}, 20_000, None),
    ("", {}, 19_999, "500 steps and MixUp 0, this run uses 10,000 and 0.1;"),
    ("", {"total_steps": 500}, 19_999, "500 steps and MixUp 0, this run uses 500 and 0.1;"),
    ("", {"total_steps": 500, "mixup_alpha": 0.0}, 19_999, None),
    (SCALED, {"batch_size": 64}, 45_000, None),
    (SCALED, {"batch_size": 64}, 9_000, "4,000 steps and MixUp 0, this run uses 80,000 and"),
    (SCALED, {"batch_size": 64, "total_steps": 4_000, "mixup_alpha": 0.0}, 9_000, None),
  ],
)
def test_a_set_of_which_much_is_left_out_is_told_what_the_rule_says(
  arguments, fields, num_used, said
):
  given = cifar10.get_config(arguments)
  given.update(fields)
  config, spec = resolving.resolve(given)
  warnings = description.regime_warnings(config, spec, num_used)
  assert len(warnings) == (said is not None)
  for warning in warnings:
    assert warning.startswith(f"Of 50,000 training images {num_used:,} are used")
    assert said in warning


@pytest.mark.parametrize(
  ("arguments", "fields", "said"),
  [
    ("", {"keep_best": True}, "keep_best or patience chooses on the images that are reported"),
    ("", {"patience": 2}, "keep_best or patience chooses on the images that"),
    ("", {"keep_best": True, "patience": 2}, "keep_best or patience chooses on the images that"),
    ("", {}, None),
    ("protocol=select,", {"keep_best": True}, None),
  ],
)
def test_a_choice_on_what_is_reported_is_a_warning(npz_path, arguments, fields, said):
  config = npz.get_config(f"{arguments}path={npz_path}")
  config.update(fields)
  found = description.choice_warnings(*resolving.resolve(config))
  assert len(found) == (said is not None)
  for text in found:
    assert text.startswith(said)
    assert "protocol=select" in text
    assert text.endswith("or give the data train, val and test parts.")
