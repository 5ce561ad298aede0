"""Recipes: how a run was trained, as its preset and the fields that differ from the rule.

The rule gives 10 and 50,000 images different steps and MixUp; runs that follow it on either have
the same recipe. The same values on other data can be another recipe.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

from bit_jax import hyperrule, run_config
from bit_jax.data import datasets
from bit_jax.report import values
from bit_jax.runtime import errors

# Fields that are no part of the recipe: data, network, seed, and names.
_OTHER = (
  *("name", "model", "weights", "seed", "dataset", "data_path", "protocol", "shots"),
  *("preset", "dtype", "deterministic", "on_bad_image"),  # the last two don't change the result
)
BY_RULE = (
  *("resize", "crop", "test_size", "batch_size", "base_lr", "total_steps"),
  *("warmup_steps", "decay_steps", "mixup_alpha"),
)
_UNKNOWN = "unknown"  # in place of the rule's value
# An image size of either kind that the rule distinguishes.
_SIZES = {"smaller than": (32, 32), "of at least": (512, 512)}


@dataclasses.dataclass(frozen=True)
class Recipe:
  """What the runs of one panel or one mean have in common.

  Attributes:
    preset: The preset.
    dtype: Data type of the convolutions; None if not recorded.
    departures: (field, value) of each difference from the rule, sorted. The length is a multiple
      of the rule's.
  """

  preset: str
  dtype: str | None
  departures: tuple[tuple[str, str], ...]

  @property
  def follows_rule(self) -> bool:
    """Whether nothing differs from the rule."""
    return not self.departures

  def __str__(self) -> str:
    """Returns e.g. 'preset code; crop 48, total_steps 0.2 of the rule's'."""
    listed = ", ".join(f"{name} {value}" for name, value in self.departures)
    return f"preset {self.preset}; {listed}" if listed else f"preset {self.preset}, as the rule"


def recipe_of(
  config: Any, num_examples: int, spec: datasets.DatasetSpec | None, dtype: str | None
) -> tuple[Recipe, str]:
  """Returns the recipe of a run, and how it differs from the rule, as text.

  Args:
    config: A resolved config; its `decay_steps` is a tuple.
    num_examples: Number of labelled training examples.
    spec: The data set, None if it wasn't found.
    dtype: Data type of the convolutions, if recorded.
  """
  by_rule, unknown = _by_rule(config, num_examples, spec)
  fields = by_rule | _others(config, spec)
  sentence = ", ".join(f"{n} {text(v)} (rule: {text(r)})" for n, (v, r) in fields.items())
  if unknown:
    sentence = f"{sentence}; {unknown}" if fields else f"unknown ({unknown})"
  departures = {values.plain(n): text(v) for n, (v, _) in fields.items()}
  steps, of_rule = by_rule.get("total_steps", (None, _UNKNOWN))
  if of_rule != _UNKNOWN:
    departures["total_steps"] = f"{round(steps / of_rule, 4):g} of the rule's"
  recipe = Recipe(values.plain(config.preset), dtype, tuple(sorted(departures.items())))
  return recipe, sentence or "as the rule"


def _by_rule(
  config: Any, num_examples: int, spec: datasets.DatasetSpec | None
) -> tuple[dict[str, tuple[Any, Any]], str]:
  """Returns {field: (value, the rule's)} of the rule's own fields, and what is unknown of it."""
  try:
    if spec is not None:
      return hyperrule.departures(config.to_dict(), num_examples, spec.image_size), ""
    for kind, size in _SIZES.items():
      by_rule = hyperrule.resolution(size, config.model, config.resolution)
      if by_rule == (config.resize, config.crop):
        unknown = f"if the images are {kind} 96 x 96 pixels, which isn't recorded"
        return hyperrule.departures(config.to_dict(), num_examples, size), unknown
    differing = hyperrule.departures(config.to_dict(), num_examples, _SIZES["of at least"])
    sizes = {n: (getattr(config, n), _UNKNOWN) for n in ("resize", "crop")}
    return {**differing, **sizes}, "the image size isn't recorded"
  except errors.UserError as e:
    return {n: (getattr(config, n), _UNKNOWN) for n in sorted(BY_RULE)}, str(e).rstrip(".")


def _others(config: Any, spec: datasets.DatasetSpec | None) -> dict[str, tuple[Any, Any]]:
  """Returns {field: (value, the usual one)} of what the data set or the base config decides."""
  by_preset = "paper" if config.preset == "paper" else "code"
  unknown_safety = True if config.dataset in datasets.OWN else _UNKNOWN
  fields = run_config.identity(config)
  usual = {
    **dict.fromkeys(fields, _UNKNOWN),
    **_defaults(),
    "eval_every": _UNKNOWN,
    "resolution": (spec and spec.resolution) or by_preset,
    "random_crop": spec.crop_safe if spec else unknown_safety,
    "random_flip": spec.flip_safe if spec else unknown_safety,
  }
  # Evaluations don't change the result, unless weights are chosen by them.
  chosen = config.keep_best or config.patience is not None
  apart = {*_OTHER, *BY_RULE, *([] if chosen else ["eval_every"])}
  return {n: (v, usual[n]) for n, v in fields.items() if n not in apart and v != usual[n]}


@functools.cache
def _defaults() -> Mapping[str, Any]:
  return run_config.request().to_dict()


def text(value: Any) -> str:
  """Returns the value of a field as a line of text."""
  if value is None or isinstance(value, bool):
    return {None: "none", True: "on", False: "off"}[value]
  if isinstance(value, tuple | list):
    return values.plain("/".join(map(text, value)))
  return f"{value:g}" if isinstance(value, float) else values.plain(value)
