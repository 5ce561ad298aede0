"""What BiT-HyperRule prescribes for a run, beside what the run used."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from bit_jax import hyperrule
from bit_jax.data import datasets
from bit_jax.report import values
from bit_jax.runtime import errors

# An image size of either kind that the rule distinguishes.
_SMALL, _LARGE = (32, 32), (512, 512)
_FIELDS = {
  "batch_size": "Batch size",
  "base_lr": "Learning rate",
  "total_steps": "Steps",
  "warmup_steps": "Warm-up steps",
  "decay_steps": "Rate x 0.1 after steps",
  "mixup_alpha": "MixUp alpha",
  "resize": "Resize, pixels",
  "crop": "Crop, pixels",
  "test_size": "Test images, pixels",
}


@dataclasses.dataclass(frozen=True)
class Comparison:
  """The fields that the rule decides.

  Attributes:
    regime: 'small', 'medium' or 'large'; '' if the number of training images isn't known.
    examples: The number of training images, None if it isn't known.
    fields: (field, this run's value, the rule's value, what is to be said of the two).
    sizes: Whether the rule's resize and crop are given for small and for large images.
    unknown: Why the rule's values aren't known, or ''.
  """

  regime: str
  examples: int | None
  fields: tuple[tuple[str, str, str, str], ...]
  sizes: bool = False
  unknown: str = ""


def compare(config: Mapping[str, Any], examples: int | None) -> Comparison:
  """Compares a resolved config, as its file holds it, with the rule.

  Args:
    config: {field: value}, perhaps incomplete.
    examples: Number of training images, None if it isn't known.
  """
  present = {name: config[name] for name in _FIELDS if name in config}
  alone = tuple((_FIELDS[name], text(value), "", "") for name, value in present.items())
  if not examples:
    return Comparison("", None, alone, unknown="the number of training images is not on record")
  try:
    fields = {**config, "decay_steps": tuple(config["decay_steps"])}
    regime = hyperrule.regime(examples).name
    size = _image_size(fields)
    differing = hyperrule.departures(fields, examples, size or _LARGE)
    batch = fields["batch_size"] if fields["preset"] == "scaled" else None
    schedule = dataclasses.asdict(hyperrule.schedule(fields["preset"], examples, batch))
  except (errors.UserError, KeyError, TypeError, ValueError, ArithmeticError) as e:
    reason = f"it can't be applied to this config ({errors.reason(e)})"
    return Comparison("", examples, alone, unknown=reason)
  expected = {**schedule, "test_size": fields["crop"]}
  expected |= dict(zip(("resize", "crop"), _resolutions(fields, size), strict=True))
  rows = []
  for name, label in _FIELDS.items():
    said = ""
    if name in differing:
      said = "differs"
    elif expected[name] != fields[name] and name in ("warmup_steps", "decay_steps"):
      said = "same share of the steps"
    rows.append((label, text(fields[name]), text(expected[name]), said))
  return Comparison(regime, examples, tuple(rows), sizes=size is None)


def text(value: Any) -> str:
  """Returns the value of a field as a line of text."""
  if value is None or isinstance(value, bool):
    return {None: "none", True: "on", False: "off"}[value]
  if isinstance(value, tuple | list):
    return values.plain(", ".join(map(text, value))) if value else "none"
  if isinstance(value, float):
    return f"{value:g}"
  return f"{value:,}" if isinstance(value, int) else values.plain(value)


def _image_size(fields: Mapping[str, Any]) -> tuple[int, int] | None:
  """Returns an image size for which the rule says what it says for the run, None if unknown."""
  if fields["dataset"] not in datasets.OWN:
    return datasets.find(fields["dataset"], fields["protocol"]).image_size
  for size in (_SMALL, _LARGE):
    rule = hyperrule.resolution(size, fields["model"], fields["resolution"])
    if rule == (fields["resize"], fields["crop"]):
      return size
  return None


def _resolutions(fields: Mapping[str, Any], size: tuple[int, int] | None) -> tuple[Any, Any]:
  """Returns the rule's resize and crop; both of either where the size of the images isn't known."""
  model, source = fields["model"], fields["resolution"]
  if size is not None:
    return hyperrule.resolution(size, model, source)
  small, large = (hyperrule.resolution(s, model, source) for s in (_SMALL, _LARGE))
  return f"{small[0]} or {large[0]}", f"{small[1]} or {large[1]}"
