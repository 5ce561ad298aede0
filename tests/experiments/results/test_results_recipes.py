"""What makes two runs ones of the same recipe, and how that differs from the rule."""

import dataclasses

import ml_collections
import pytest
import resolving
import run_folders

from bit_jax import run_config
from bit_jax.configs import vtab
from bit_jax.data import datasets
from experiments.results import recipes


def recipe(config, dtype="float32"):
  _, spec = resolving.resolve(config)
  return recipes.recipe_of(config, run_config.num_examples(config, spec), spec, dtype)


@pytest.mark.parametrize("preset", ["code", "paper", "readme_128", "scaled"])
@pytest.mark.parametrize("shots", ["", ",shots=10"])
def test_the_rule_itself_departs_in_nothing(preset, shots):
  found, sentence = recipe(run_folders.config(f"model=R14x0.5,preset={preset}{shots}"))
  assert found.follows_rule
  assert sentence == "as the rule"
  assert str(found) == f"preset {preset}, as the rule"


def test_few_and_all_examples_by_the_reduced_rule_have_the_same_recipe():
  few, of_few = recipe(run_folders.reduced("model=R14x0.5,shots=5"))
  full, of_full = recipe(run_folders.reduced())
  assert few == full
  assert dict(few.departures) == {
    "batch_size": "64",
    "crop": "48",
    "resize": "56",
    "total_steps": "0.2 of the rule's",
  }
  start = "resize 56 (rule: 160), crop 48 (rule: 128), batch_size 64 (rule: 512), "
  assert of_few == f"{start}total_steps 100 (rule: 500)"
  assert of_full == f"{start}total_steps 2000 (rule: 10000)"


def test_mixup_is_a_departure_where_the_rule_says_otherwise():
  few = {m: recipe(run_folders.config("model=R14x0.5,shots=5", mixup_alpha=m)) for m in (0.0, 0.1)}
  full = {m: recipe(run_folders.config("model=R14x0.5", mixup_alpha=m)) for m in (0.0, 0.1)}
  assert few[0.0][0] == full[0.1][0]
  assert few[0.1][1] == "mixup_alpha 0.1 (rule: 0)"
  assert full[0.0][1] == "mixup_alpha 0 (rule: 0.1)"


def test_another_length_is_another_recipe():
  found = {recipe(run_folders.config(length=n))[0] for n in (0.1, 0.2, 1)}
  assert len(found) == 3


def test_vtab_tasks_share_a_recipe_whatever_their_labels_survive():
  tasks = ("svhn", "clevr-count", "dsprites-xpos", "caltech101")
  configs = [vtab.get_config(f"task={task},model=BiT-M-R50x1") for task in tasks]
  found = {recipe(resolving.resolve(c)[0]) for c in configs}
  assert len(found) == 1
  other = vtab.get_config("task=clevr-count,model=BiT-M-R50x1,crop=True")
  assert recipe(resolving.resolve(other)[0])[1] == "random_crop on (rule: off)"
  other = vtab.get_config("task=svhn,model=BiT-M-R50x1,resolution=code")
  assert recipe(resolving.resolve(other)[0])[1] == "resolution code (rule: paper)"


@pytest.mark.parametrize(
  ("fields", "sentence"),
  [
    ({"random_flip": False}, "random_flip off (rule: on)"),
    ({"momentum": 0.8}, "momentum 0.8 (rule: 0.9)"),
    ({"head": "keep"}, "head keep (rule: zero)"),
    ({"decay_steps": (1, 2)}, "decay_steps 1/2 (rule: 3000/6000/9000)"),
    ({"test_size": 160}, "test_size 160 (rule: 128)"),
    ({"keep_best": True}, "eval_every 2000 (rule: unknown), keep_best on (rule: off)"),
    ({"eval_every": 7}, "as the rule"),
    ({"microbatch": 3}, "as the rule"),
    ({"name": "mine"}, "as the rule"),
  ],
)
def test_fields_that_tell(fields, sentence):
  assert recipe(run_folders.config(**fields))[1] == sentence


def test_what_it_computed_in_tells_recipes_apart_and_is_no_departure():
  config = run_folders.config()
  assert recipe(config, "float32")[0] != recipe(config, "bfloat16")[0]
  assert recipe(config, "bfloat16")[0].follows_rule


def test_a_field_that_this_version_does_not_have_tells_too():
  config = ml_collections.ConfigDict({**run_folders.config().to_dict(), "sharpness": 0.5})
  spec = datasets.find("cifar10", "final")
  assert recipes.recipe_of(config, 50_000, spec, None)[1] == "sharpness 0.5 (rule: unknown)"


@pytest.mark.parametrize(
  ("resize", "crop", "kind"), [(160, 128, "smaller than"), (512, 480, "of at least")]
)
def test_images_of_unknown_size_at_a_size_of_the_rule(resize, crop, kind):
  config = dataclasses.replace(run_folders.config(resize=resize, crop=crop), dataset="folder")
  found, sentence = recipes.recipe_of(config, 50_000, None, None)
  assert found.follows_rule
  assert sentence == f"unknown (if the images are {kind} 96 x 96 pixels, which isn't recorded)"


def test_images_of_unknown_size_at_another():
  config = run_folders.reduced("model=R14x0.5,shots=5")
  unknown = dataclasses.replace(config, dataset="folder")
  found, sentence = recipes.recipe_of(unknown, 50, None, None)
  assert found == recipes.Recipe("code", None, recipe(config)[0].departures)
  assert sentence == (
    "resize 56 (rule: unknown), crop 48 (rule: unknown), batch_size 64 (rule: 512), "
    "total_steps 100 (rule: 500); the image size isn't recorded"
  )


def test_a_data_set_that_is_not_known():
  config = dataclasses.replace(run_folders.config(), dataset="imagenet-v3")
  found, sentence = recipes.recipe_of(config, 50_000, None, None)
  assert dict(found.departures) == {"random_crop": "on", "random_flip": "on"}
  assert sentence.startswith("random_crop on (rule: unknown), random_flip on (rule: unknown); ")


def test_an_unknown_preset():
  config = dataclasses.replace(run_folders.config(), preset="mine")
  spec = datasets.find("cifar10", "final")
  found, sentence = recipes.recipe_of(config, 50_000, spec, None)
  assert dict(found.departures)["total_steps"] == "10000"
  assert "preset='mine'" in sentence
