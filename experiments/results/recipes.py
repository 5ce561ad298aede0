"""How a run was trained, told by where it differs from what the rule says for its data.

Runs on 10 and on 50,000 images differ in steps and MixUp and yet follow the same rule; so they have
the same recipe. The same values on other data can be another recipe.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

from bit_jax import hyperrule, run_config
from bit_jax.configs import base
from bit_jax.runtime import errors
from experiments.results import fields

# What a run has besides its recipe: its data, its network, its seed; and names.
_OTHER = frozenset(
  (
    *("name", "model", "weights", "seed", "dataset", "data_path", "protocol", "shots"),
    *("preset", "dtype", "resolution", "random_crop", "random_flip"),
    *("deterministic", "on_bad_image", "eval_every"),  # without consequence for the result
  )
)
_BY_RULE = frozenset(
  (
    *("resize", "crop", "test_size", "batch_size", "base_lr", "total_steps"),
    *("warmup_steps", "decay_steps", "mixup_alpha"),
  )
)
_UNKNOWN = "unknown"  # in place of the rule's value
# Of either kind of images that the rule tells apart.
_SIZES = {"smaller than": (32, 32), "of at least": (512, 512)}


@dataclasses.dataclass(frozen=True)
class Facts:
  """What the rule asks of a data set; None where it isn't known.

  Attributes:
    num_examples: Labelled examples that are trained on.
    image_size: (height, width) in pixels.
    crop_safe: Whether random crops keep the labels.
    flip_safe: Whether mirrored images keep their labels.
    resolution: The set's own default of the field `resolution`, if it has one.
  """

  num_examples: int | None = None
  image_size: tuple[int, int] | None = None
  crop_safe: bool | None = None
  flip_safe: bool | None = None
  resolution: str | None = None


@dataclasses.dataclass(frozen=True)
class Recipe:
  """What runs of one panel or one mean have in common.

  Attributes:
    preset: The preset.
    dtype: What convolutions computed in; None if it isn't on record.
    departures: (field, value) of what differs from the rule, sorted. The length is a multiple of
      the rule's.
  """

  preset: str
  dtype: str | None
  departures: tuple[tuple[str, str], ...]

  @property
  def follows_rule(self) -> bool:
    """Whether nothing differs."""
    return not self.departures

  def __str__(self) -> str:
    """Returns e.g. 'preset code; crop 48, total_steps 0.2 of the rule's'."""
    listed = ", ".join(f"{name} {value}" for name, value in self.departures)
    return f"preset {self.preset}; {listed}" if listed else f"preset {self.preset}, as the rule"


def recipe_of(config: Any, facts: Facts, dtype: str | None) -> tuple[Recipe, str]:
  """Returns the recipe of a run, and one sentence on how it relates to the rule.

  Args:
    config: A resolved config; its `decay_steps` is a tuple.
    facts: On its data.
    dtype: What it computed in, if that is known.
  """
  by_rule, unknown = _by_rule(config, facts)
  others = _others(config, facts)
  listed = [f"{n} {_text(v)} (rule: {_text(r)})" for n, (v, r) in {**by_rule, **others}.items()]
  sentence = ", ".join(listed) if listed else "as the rule"
  if unknown:
    sentence = f"unknown ({unknown})" if not listed else f"{sentence}; {unknown}"
  departures = {n: _relative(n, v, r) for n, (v, r) in by_rule.items()}
  departures |= {n: _text(v) for n, (v, _) in others.items()}
  named = {fields.plain(n): value for n, value in departures.items()}
  return Recipe(fields.plain(config.preset), dtype, tuple(sorted(named.items()))), sentence


def _by_rule(config: Any, facts: Facts) -> tuple[dict[str, tuple[Any, Any]], str | None]:
  """Returns {field: (value, the rule's)} of what the rule decides, and what isn't known of it."""
  try:
    if facts.num_examples is None:
      raise errors.UserError("the number of examples isn't on record")
    if facts.image_size is not None:
      return hyperrule.departures(config.to_dict(), facts.num_examples, facts.image_size), None
    for kind, size in _SIZES.items():
      if hyperrule.resolution(size, config.model, config.resolution) == (
        config.resize,
        config.crop,
      ):
        unknown = f"if the images are {kind} 96 x 96 pixels, which isn't on record"
        return hyperrule.departures(config.to_dict(), facts.num_examples, size), unknown
    differing = hyperrule.departures(config.to_dict(), facts.num_examples, _SIZES["of at least"])
    sizes = {n: (getattr(config, n), _UNKNOWN) for n in ("resize", "crop")}
    return {**differing, **sizes}, "the size of the images isn't on record"
  except errors.UserError as e:
    return {n: (getattr(config, n), _UNKNOWN) for n in sorted(_BY_RULE)}, str(e).rstrip(".")


def _others(config: Any, facts: Facts) -> dict[str, tuple[Any, Any]]:
  """Returns {field: (value, the usual one)} of what the data set or the base config decides."""
  resolution = facts.resolution or ("paper" if config.preset == "paper" else "code")
  usual = {
    "resolution": resolution,
    "random_crop": _UNKNOWN if facts.crop_safe is None else facts.crop_safe,
    "random_flip": _UNKNOWN if facts.flip_safe is None else facts.flip_safe,
    **{n: v for n, v in _defaults().items() if n not in _OTHER | _BY_RULE},
  }
  own = run_config.identity(config)
  if config.keep_best or config.patience is not None:  # else evaluations are of no consequence
    usual["eval_every"] = _UNKNOWN
  unusual = {n: (v, usual.get(n)) for n, v in own.items() if n in usual and v != usual[n]}
  strange = {n: (v, _UNKNOWN) for n, v in own.items() if n not in _defaults()}
  return {**unusual, **strange}


@functools.cache
def _defaults() -> Mapping[str, Any]:
  return base.get_config().to_dict()


def _relative(name: str, value: Any, rule: Any) -> str:
  if name == "total_steps" and rule != _UNKNOWN:
    return f"{round(value / rule, 4):g} of the rule's"
  return _text(value)


def _text(value: Any) -> str:
  if value is None:
    return "none"
  if isinstance(value, bool):
    return "on" if value else "off"
  if isinstance(value, float):
    return f"{value:g}"
  if isinstance(value, tuple | list):
    return fields.plain("/".join(map(_text, value)))
  return fields.plain(value)
