"""BiT-HyperRule: from the number of examples and the image size to all hyper-parameters.

Two sources disagree in places, so a preset says which is followed: 'code' is what the released code
does (google-research/big_transfer, `bit_hyperrule.py`), 'paper' what the text says (arXiv
1912.11370, 3.3), 'readme_128' the setting behind the README's CIFAR numbers (batch 128, learning
rate 0.001, the same steps), and 'scaled' keeps the number of images seen when the batch is not 512
(steps and boundaries times 512 / batch, learning rate times batch / 512).
"""

import dataclasses
import math
from collections import Counter
from typing import Any

from bit_jax.models import architectures
from bit_jax.runtime import errors

PRESETS = ("code", "paper", "readme_128", "scaled")
RESOLUTIONS = ("code", "paper")
DTYPES = ("auto", "float32", "bfloat16")
MOMENTUM_DTYPES = ("float32", "bfloat16")
AUTO = "auto"
HEADS = ("zero", "keep")
ON_BAD_IMAGE = ("stop", "skip")

RULE_BATCH_SIZE = 512
RULE_LEARNING_RATE = 0.003
DECAY_FACTOR = 0.1
MAX_SEED = 2**32 - 1  # of a larger seed, JAX's keys take the lower 32 bits
MAX_SIDE, MAX_BATCH, _MAX_STEPS = 16_384, 10**6, 10**8  # beyond any memory
_MAX_INT, _MAX_FLOAT = 2**31 - 1, 1e30
# The least and largest values of fields: whole numbers, and others.
_WHOLE: dict[str, tuple[float, float]] = {
  "total_steps": (1, _MAX_STEPS),  # first, as others follow from it
  **dict.fromkeys(("resize", "crop", "test_size"), (1, MAX_SIDE)),
  **dict.fromkeys(("batch_size", "eval_batch_size"), (1, MAX_BATCH)),
  **dict.fromkeys(("eval_every", "checkpoint_every", "log_every"), (1, _MAX_INT)),
  "shuffle_window": (1, _MAX_INT),
  "warmup_steps": (0, _MAX_STEPS),
  "seed": (0, MAX_SEED),
  "min_side": (0, _MAX_INT),
}
_NUMBERS: dict[str, tuple[float, float]] = {
  "base_lr": (0, _MAX_FLOAT),
  "mixup_alpha": (0, _MAX_FLOAT),
  "momentum": (0, _MAX_FLOAT),
  "max_aspect": (0, _MAX_FLOAT),
  "resident_share": (0, 1),
}
SMALL_AREA = 96 * 96  # images below this many pixels are resized to 160, not to 512
MIXUP_ALPHA = 0.1


@dataclasses.dataclass(frozen=True)
class Regime:
  """What the rule says for a range of training set sizes.

  Attributes:
    max_examples: The regime holds for fewer examples than this.
    total_steps: Length of training.
    warmup_steps: Linear warm-up from 0; in the released code only.
    decay_steps: Boundaries of the released code; the rate falls after each.
    mixup_alpha: Of MixUp's Beta distribution; 0 turns MixUp off.
  """

  max_examples: float
  total_steps: int
  warmup_steps: int
  decay_steps: tuple[int, int, int]
  mixup_alpha: float


REGIMES = (
  Regime(20_000, 500, 100, (200, 300, 400), 0.0),
  Regime(500_000, 10_000, 500, (3_000, 6_000, 9_000), MIXUP_ALPHA),
  Regime(math.inf, 20_000, 500, (6_000, 12_000, 18_000), MIXUP_ALPHA),
)


@dataclasses.dataclass(frozen=True)
class Schedule:
  """Learning rate and length of a run.

  Attributes:
    batch_size: Examples in a step, over all devices.
    base_lr: Learning rate after warm-up.
    total_steps: Length of the run.
    warmup_steps: Steps of linear warm-up from 0.
    decay_steps: After each of these steps the rate falls by `DECAY_FACTOR`.
    mixup_alpha: Of MixUp's Beta distribution; 0 turns MixUp off.
  """

  batch_size: int
  base_lr: float
  total_steps: int
  warmup_steps: int
  decay_steps: tuple[int, ...]
  mixup_alpha: float


def regime(num_examples: int) -> Regime:
  """Returns the regime of a training set of `num_examples` labelled images.

  Raises:
    UserError: There are no examples.
  """
  if num_examples < 1:
    raise errors.UserError(f"The rule needs at least one training example, not {num_examples}.")
  return next(r for r in REGIMES if num_examples < r.max_examples)


def resolution(image_size: tuple[int, int], model: str, source: str) -> tuple[int, int]:
  """Returns (resize, crop) in pixels: the square an image is resized to, and the crop of it.

  Args:
    image_size: (height, width) of the data set's images in pixels; typical ones where they vary.
    model: Model name; the paper gives its largest network larger images.
    source: 'code' or 'paper', which differ for large images.

  Raises:
    UserError: An unknown model or source.
  """
  one_of("resolution", source, RESOLUTIONS)
  if image_size[0] * image_size[1] < SMALL_AREA:
    return 160, 128
  if source == "code" or architectures.find(model).name == "R152x4":
    return 512, 480
  return 448, 384


def schedule(preset: str, num_examples: int, batch_size: int | None = None) -> Schedule:
  """Returns a preset's schedule.

  Args:
    preset: One of `PRESETS`.
    num_examples: Labelled examples that are really used for training.
    batch_size: If given, the batch in place of the preset's own; only 'scaled' adapts the rest.

  Raises:
    UserError: An unknown preset, no examples, or a batch below 1.
  """
  one_of("preset", preset, PRESETS)
  r = regime(num_examples)
  if batch_size is None:
    batch_size = 128 if preset == "readme_128" else RULE_BATCH_SIZE
  at_least("batch_size", batch_size, 1)
  base_lr = 0.001 if preset == "readme_128" else RULE_LEARNING_RATE
  rule = Schedule(batch_size, base_lr, r.total_steps, r.warmup_steps, r.decay_steps, r.mixup_alpha)
  if preset == "paper":
    decay_steps = tuple(r.total_steps * tenths // 10 for tenths in (3, 6, 9))
    return dataclasses.replace(rule, warmup_steps=0, decay_steps=decay_steps)
  if preset == "scaled":
    factor = batch_size / RULE_BATCH_SIZE
    stretched = stretch(rule, round(r.total_steps / factor))
    return dataclasses.replace(stretched, base_lr=base_lr * factor)
  return rule


def stretch(rule: Schedule, total_steps: int) -> Schedule:
  """Returns the schedule at another length, warm-up and boundaries at the same fractions of it.

  Raises:
    UserError: The length is below 1.
  """
  at_least("total_steps", total_steps, 1)
  factor = total_steps / rule.total_steps
  return dataclasses.replace(
    rule,
    total_steps=total_steps,
    warmup_steps=round(rule.warmup_steps * factor),
    decay_steps=tuple(round(s * factor) for s in rule.decay_steps),
  )


def resolve(config: Any, num_examples: int, image_size: tuple[int, int]) -> Any:
  """Returns a copy of the config in which the rule has filled every field that was left open.

  A field that the user set stays as it is. Where only `total_steps` was set, warm-up and boundaries
  keep their place relative to it.

  Args:
    config: A `ml_collections.ConfigDict` with the fields of `configs/base.py`.
    num_examples: Labelled examples that are really used for training.
    image_size: (height, width) of the data set's images in pixels.

  Raises:
    UserError: A field has a value that can't be used.
  """
  architectures.find(config.model)
  resolved = config.copy_and_resolve_references()
  _fill(resolved, "resolution", "paper" if config.preset == "paper" else "code")
  resize, crop = resolution(image_size, config.model, resolved.resolution)
  _fill_resolution(resolved, resize, crop)
  rule = schedule(config.preset, num_examples, config.batch_size)
  if config.total_steps is not None:
    rule = stretch(rule, config.total_steps)
  for field in dataclasses.fields(rule):
    _fill(resolved, field.name, getattr(rule, field.name))
  _fill(resolved, "test_size", resolved.crop)
  _fill(resolved, "eval_every", max(1, resolved.total_steps // 5))
  _fill(resolved, "checkpoint_every", resolved.eval_every)
  _fill(resolved, "log_every", min(100, max(1, resolved.total_steps // 20)))
  _check(resolved)
  return resolved


def departures(
  config: Any, num_examples: int, image_size: tuple[int, int]
) -> dict[str, tuple[Any, Any]]:
  """Returns {field: (its value, the rule's)} where a resolved config differs from its preset.

  Warm-up and boundaries that only keep their place in another length don't differ.
  """
  resize, crop = resolution(image_size, config.model, config.resolution)
  batch_size = config.batch_size if config.preset == "scaled" else None
  of_preset = schedule(config.preset, num_examples, batch_size)
  placed = stretch(of_preset, config.total_steps)
  expected = {
    "resize": resize,
    "crop": crop,
    "test_size": config.crop,
    **dataclasses.asdict(placed),
    "total_steps": of_preset.total_steps,
  }
  values = {name: getattr(config, name) for name in expected}
  return {n: (values[n], rule) for n, rule in expected.items() if values[n] != rule}


def describe(config: Any, num_examples: int, image_size: tuple[int, int], num_devices: int) -> str:
  """Returns a resolved config's rule as a few lines of text, as it is printed before training."""
  boundaries = ", ".join(
    f"{step:,}" if times == 1 else f"{step:,} ({times} times)"
    for step, times in Counter(config.decay_steps).items()
  )
  decays = f"x {DECAY_FACTOR:g} after {boundaries}" if boundaries else "no decay"
  warm_up = "1 step" if config.warmup_steps == 1 else f"{config.warmup_steps:,} steps"
  mixup = f"alpha {config.mixup_alpha:g}" if config.mixup_alpha else "off"
  epochs = config.total_steps * config.batch_size / num_examples
  per_device = config.batch_size / num_devices
  devices = "device" if num_devices == 1 else "devices"
  augmentation = [n for n, on in (("crop", config.random_crop), ("flip", config.random_flip)) if on]
  rows = {
    "preset": f"{config.preset} (resolution: {config.resolution})",
    "examples": f"{num_examples:,}",
    "resize -> crop": f"{config.resize} -> {config.crop} pixels; test images at {config.test_size}",
    "augmentation": f"random {' and '.join(augmentation)}" if augmentation else "none",
    "batch": f"{config.batch_size} ({per_device:g} on each of {num_devices} {devices})",
    "steps": f"{config.total_steps:,} ({_epochs(epochs)})",
    "learning rate": f"{config.base_lr:g}, warm-up {warm_up}, {decays}",
    "MixUp": mixup,
  }
  if differing := departures(config, num_examples, image_size):
    texts = [f"{name} {value} (the rule: {rule})" for name, (value, rule) in differing.items()]
    rows["set otherwise"] = ", ".join(texts)
    if config.reason:
      rows["why"] = config.reason
    if "decay_steps" in differing and (beyond := _boundaries_beyond(config)):
      rows["warning"] = (
        f"the run ends after {config.total_steps:,} steps, before the learning rate falls after "
        f"{beyond}: change decay_steps or total_steps if that isn't meant"
      )
  return "\n".join(f"  {name:<16}{text}" for name, text in rows.items())


def _epochs(number: float) -> str:
  """Returns a number of epochs as text, without rounding a part of one to 0."""
  text = f"{number:,.1f}" if number >= 0.1 else f"{number:.1g}"
  return "1 epoch" if text == "1.0" else f"{text} epochs"


def _boundaries_beyond(config: Any) -> str:
  """Returns the boundaries after which no step comes, as a text."""
  return ", ".join(f"{s:,}" for s in config.decay_steps if s >= config.total_steps)


def one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
  """Raises a `UserError` that names the allowed values unless `value` is one of them."""
  if value not in allowed:
    raise errors.UserError(f"{name}={value!r} is not known; it is one of {', '.join(allowed)}.")


def at_least(name: str, value: float, minimum: float) -> None:
  """Raises a `UserError` unless `value` is a number of at least `minimum`."""
  if not value >= minimum:
    raise errors.UserError(f"{name} must be at least {minimum:g}, not {value!r}.")


def in_range(name: str, value: Any, minimum: float, maximum: float) -> None:
  """Raises a `UserError` unless `value` is a number from `minimum` to `maximum`."""
  at_least(name, value, minimum)
  if value > maximum:
    limit = f"{maximum:,}" if type(maximum) is int else f"{maximum:g}"
    raise errors.UserError(f"{name} must be at most {limit}, not {value!r}.")


def _fill(config: Any, name: str, value: Any) -> None:
  if config[name] is None:
    config[name] = value


def _fill_resolution(config: Any, resize: int, crop: int) -> None:
  """Fills the sizes; one alone that was set gives the other, in the rule's proportion."""
  for name in ("resize", "crop"):  # the sentence is on the one that was set
    if config[name] is not None:
      in_range(name, config[name], *_WHOLE[name])
  if config.resize is not None and config.crop is None:
    config.crop = round(config.resize * crop / resize)
  elif config.crop is not None and config.resize is None:
    config.resize = round(config.crop * resize / crop)
  _fill(config, "resize", resize)
  _fill(config, "crop", crop)


def _short(value: Any) -> str:
  """Returns a value of a field of any type as a text of one line."""
  return " ".join(repr(value).split())


def _check(config: Any) -> None:
  one_of("dtype", config.dtype, DTYPES)
  one_of("momentum_dtype", config.momentum_dtype, MOMENTUM_DTYPES)
  if config.microbatch != AUTO and (type(config.microbatch) is not int or config.microbatch < 1):
    raise errors.UserError(
      f"microbatch must be 'auto' or a whole number of at least 1, not {_short(config.microbatch)}."
    )
  if config.remat != AUTO and type(config.remat) is not bool:
    raise errors.UserError(f"remat must be 'auto', True or False, not {_short(config.remat)}.")
  one_of("head", config.head, HEADS)
  one_of("on_bad_image", config.on_bad_image, ON_BAD_IMAGE)
  _check_numbers(config)
  if config.crop > config.resize:
    raise errors.UserError(
      f"The crop of {config.crop} pixels is larger than the image, which is resized to "
      f"{config.resize}: make resize at least as large as crop."
    )
  _check_schedule(config)
  if not config.name.isprintable() or not config.name or "/" in config.name:
    raise errors.UserError(
      f"name={config.name!r} can't be a part of the run folder's name: use letters, digits, '-', "
      f"'_' and '.'."
    )


def _check_numbers(config: Any) -> None:
  given = [n for n in ("patience", "shots") if config[n] is not None]
  for name, limits in {**_WHOLE, **dict.fromkeys(given, (1, _MAX_INT))}.items():
    if type(config[name]) is not int:
      raise errors.UserError(f"{name} must be a whole number, not {config[name]!r}.")
    in_range(name, config[name], *limits)
  for name, limits in _NUMBERS.items():
    if type(config[name]) not in (int, float):
      raise errors.UserError(f"{name} must be a number, not {config[name]!r}.")
    in_range(name, config[name], *limits)
  if config.momentum >= 1:
    raise errors.UserError(
      f"momentum must be below 1, not {config.momentum!r}: at 1 and above, updates only grow."
    )
  if 0 < config.max_aspect < 1:
    raise errors.UserError(
      f"max_aspect must be at least 1, as the longer side is divided by the shorter one, or 0 for "
      f"no limit, not {config.max_aspect!r}."
    )


def _check_schedule(config: Any) -> None:
  if config.warmup_steps > config.total_steps:
    raise errors.UserError(
      f"The warm-up of {config.warmup_steps:,} steps is longer than the run of "
      f"{config.total_steps:,}: lower warmup_steps or raise total_steps."
    )
  boundaries = config.decay_steps
  if not isinstance(boundaries, (tuple, list)) or any(type(s) is not int for s in boundaries):
    raise errors.UserError(
      f"decay_steps takes whole numbers in brackets, such as (200,300,400), not {boundaries!r}."
    )
  if boundaries and boundaries[0] < 0:
    raise errors.UserError(f"decay_steps must be at least 0, not {boundaries[0]}.")
  if boundaries and max(boundaries) > _MAX_INT:
    raise errors.UserError(f"decay_steps must be at most {_MAX_INT:,}, not {max(boundaries)}.")
  if list(boundaries) != sorted(boundaries):
    raise errors.UserError(f"decay_steps must increase, not {tuple(boundaries)}.")
