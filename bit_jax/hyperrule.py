"""BiT-HyperRule: from the number of examples and the image size to all hyper-parameters.

Two sources disagree in places, so a preset says which is followed: 'code' is what the released code
does (google-research/big_transfer, `bit_hyperrule.py`), 'paper' what the text says (arXiv
1912.11370, 3.3), 'readme_128' the setting behind the README's CIFAR numbers (batch 128, learning
rate 0.001, the same steps), and 'scaled' keeps the number of images seen when the batch is not 512
(steps and boundaries times 512 / batch, learning rate times batch / 512).
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from bit_jax.models import architectures
from bit_jax.runtime import checks, errors

PRESETS = ("code", "paper", "readme_128", "scaled")
RESOLUTIONS = ("code", "paper")
AUTO = "auto"

RULE_BATCH_SIZE = 512
RULE_LEARNING_RATE = 0.003
DECAY_FACTOR = 0.1
MAX_SEED = 2**32 - 1  # of a larger seed, JAX's keys take the lower 32 bits
MAX_SIDE, MAX_BATCH = 16_384, 10**6  # beyond any memory
SMALL_AREA = 96 * 96  # images below this many pixels are resized to 160, not to 512
_RESIZES = {128: 160, 480: 512, 384: 448}  # by the crop
MIXUP_ALPHA = 0.1


@dataclasses.dataclass(frozen=True)
class Regime:
  """What the rule says for a range of training set sizes.

  Attributes:
    name: 'small', 'medium' or 'large'.
    max_examples: The regime holds for fewer examples than this.
    total_steps: Length of training.
    warmup_steps: Linear warm-up from 0; in the released code only.
    decay_steps: Boundaries of the released code; the rate falls after each.
    mixup_alpha: Parameter of MixUp's Beta distribution; 0 turns MixUp off.
  """

  name: str
  max_examples: float
  total_steps: int
  warmup_steps: int
  decay_steps: tuple[int, int, int]
  mixup_alpha: float


REGIMES = (
  Regime("small", 20_000, 500, 100, (200, 300, 400), 0.0),
  Regime("medium", 500_000, 10_000, 500, (3_000, 6_000, 9_000), MIXUP_ALPHA),
  Regime("large", math.inf, 20_000, 500, (6_000, 12_000, 18_000), MIXUP_ALPHA),
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
    mixup_alpha: Parameter of MixUp's Beta distribution; 0 turns MixUp off.
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
  checks.one_of("resolution", source, RESOLUTIONS)
  if image_size[0] * image_size[1] < SMALL_AREA:
    crop = 128
  elif source == "code" or architectures.find(model).name == "R152x4":
    crop = 480
  else:
    crop = 384
  return resize_for(crop), crop


def resize_for(crop: int) -> int:
  """Returns the rule's resize for a crop, both in pixels; 16/15 of it for a crop of your own."""
  return _RESIZES.get(crop, crop * 16 // 15)


def schedule(preset: str, num_examples: int, batch_size: int | None = None) -> Schedule:
  """Returns a preset's schedule.

  Args:
    preset: One of `PRESETS`.
    num_examples: Labelled examples that are really used for training.
    batch_size: If given, the batch in place of the preset's own; only 'scaled' adapts the rest.

  Raises:
    UserError: An unknown preset, no examples, or a batch below 1.
  """
  checks.one_of("preset", preset, PRESETS)
  r = regime(num_examples)
  if batch_size is None:
    batch_size = 128 if preset == "readme_128" else RULE_BATCH_SIZE
  checks.at_least("batch_size", batch_size, 1)
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
  """Returns the schedule at another length, warm-up and boundaries at the same fractions of it."""
  factor = total_steps / rule.total_steps
  return dataclasses.replace(
    rule,
    total_steps=total_steps,
    warmup_steps=round(rule.warmup_steps * factor),
    decay_steps=tuple(round(s * factor) for s in rule.decay_steps),
  )


def departures(
  fields: Mapping[str, Any], num_examples: int, image_size: tuple[int, int]
) -> dict[str, tuple[Any, Any]]:
  """Returns {field: (its value, the rule's)} where a resolved config differs from its preset.

  Warm-up and boundaries that only keep their place in another length don't differ.

  Args:
    fields: {field: value} of the resolved config; `decay_steps` is a tuple.
    num_examples: Labelled training examples.
    image_size: (height, width) of the data set's images in pixels.
  """
  preset = fields["preset"]
  resize, crop = resolution(image_size, fields["model"], fields["resolution"])
  rule = schedule(preset, num_examples, fields["batch_size"] if preset == "scaled" else None)
  expected = {
    "resize": resize,
    "crop": crop,
    "test_size": fields["crop"],
    **dataclasses.asdict(stretch(rule, fields["total_steps"])),
    "total_steps": rule.total_steps,
  }
  return {n: (fields[n], value) for n, value in expected.items() if fields[n] != value}
