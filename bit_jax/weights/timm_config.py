"""timm's `config.json` beside a file of weights: its classes, and the size of its images."""

import dataclasses
import pathlib
from typing import Any

from bit_jax.runtime import json_text


@dataclasses.dataclass(frozen=True)
class TimmConfig:
  """What the file states, as far as it does.

  Attributes:
    label_names: The names of the classes in the order of the head; () if it states none.
    size: Side in pixels of the square images that the network is evaluated on, or None.
  """

  label_names: tuple[str, ...] = ()
  size: int | None = None


def read(weights: pathlib.Path) -> TimmConfig:
  """Returns what the `config.json` in the folder of a file states; nothing if there is none.

  Source: huggingface/pytorch-image-models 1.0.31, `timm/models/_hub.py` (`_parse_model_cfg`).
  """
  try:
    config = json_text.parse((weights.parent / "config.json").read_text(encoding="utf-8"))
  except (OSError, ValueError):
    return TimmConfig()
  if not isinstance(config, dict) or "architecture" not in config:  # not timm's
    return TimmConfig()
  nested = config.get("pretrained_cfg")
  facts: dict[str, Any] = (nested if isinstance(nested, dict) else {}) | config
  size = None
  match facts.get("input_size"):
    case [3, int(height), int(width)] if height == width > 0:
      size = height
  names = facts.get("label_names")
  is_list = isinstance(names, list) and all(isinstance(name, str) for name in names)
  return TimmConfig(tuple(names) if names and is_list else (), size)
