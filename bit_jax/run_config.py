"""From a config to a run with nothing left open."""

import hashlib
import json
import os
from collections.abc import Mapping
from typing import Any

import ml_collections

from bit_jax import hyperrule, weights
from bit_jax.data import datasets
from bit_jax.runtime import errors

# Fields without consequence for the result: they may change between two parts of a run.
_INCIDENTAL = frozenset(
  (
    *("checkpoint_every", "data_dir", "decoded_cache", "eval_batch_size", "log_every"),
    *("microbatch", "profile", "reason", "remat", "resident_share"),
  )
)
# Fields of version 0.1, which enter the hash whatever their value. Never add to this list: a field
# that is added to `configs/base.py` enters the hash only where it differs from its default.
_FIRST = frozenset(
  (
    *("base_lr", "batch_size", "checkpoint_every", "crop", "data_dir", "data_path", "dataset"),
    *("decay_steps", "decoded_cache", "deterministic", "dtype", "eval_batch_size", "eval_every"),
    *("head", "keep_best", "log_every", "max_aspect", "microbatch", "min_side", "mixup_alpha"),
    *("model", "momentum", "momentum_dtype", "name", "on_bad_image", "patience", "preset"),
    *("profile", "protocol", "random_crop", "random_flip", "reason", "remat", "resident_share"),
    *("resize", "resolution", "seed", "shots", "shuffle_window", "test_size", "total_steps"),
    *("warmup_steps", "weights"),
  )
)


def resolve(config: Any) -> tuple[Any, datasets.DatasetSpec]:
  """Fills every field that the user left open; needs no data, weights or accelerator.

  Args:
    config: A `ml_collections.ConfigDict` with the fields of `configs/base.py`; one that was added
      since version 0.1 may be absent, and has its default then.

  Returns:
    The resolved copy, and the data set's description.

  Raises:
    UserError: A field has a value that can't be used, or names something unknown.
  """
  _require_fields(config)
  if config.dataset is None:
    raise errors.UserError(
      "The config names no data set: choose a file such as configs/cifar10.py, or set dataset to "
      f"one of {', '.join(datasets.NAMES)}."
    )
  config = _with_later_fields(config)
  spec = datasets.find(config.dataset, config.protocol, config.data_path, val_apart=chooses(config))
  if config.shots is not None:
    hyperrule.at_least("shots", config.shots, 1)
  if config.resolution is None and spec.resolution is not None:
    config = config.copy_and_resolve_references()
    config.resolution = spec.resolution
  resolved = hyperrule.resolve(config, num_examples(config, spec), spec.image_size)
  if resolved.weights is None:
    resolved.weights = weights.default_for(resolved.model)
  if resolved.random_crop is None:
    resolved.random_crop = spec.crop_safe
  if resolved.random_flip is None:
    resolved.random_flip = spec.flip_safe
  return resolved, spec


def num_examples(config: Any, spec: datasets.DatasetSpec) -> int:
  """Returns how many labelled examples are trained on: few-shot, `shots` of each class."""
  return spec.num_train if config.shots is None else config.shots * spec.num_classes


def chooses(config: Any) -> bool:
  """Returns whether a run chooses its weights, or its end, by its evaluations."""
  return config.keep_best or config.patience is not None


def choice_warnings(config: Any, spec: datasets.DatasetSpec) -> list[str]:
  """Returns a sentence if the reported accuracy is that of images that the choice was made on.

  Args:
    config: Resolved.
    spec: The data set.
  """
  if not chooses(config) or spec.num_val or spec.protocol != "final":
    return []
  fields = ("keep_best", config.keep_best), ("patience", config.patience is not None)
  names = " and ".join(name for name, is_set in fields if is_set)
  verb = "choose" if " and " in names else "chooses"
  apart = ", or give the data train, val and test parts" if spec.path is not None else ""
  return [
    f"{names} {verb} on the images that are reported, so their accuracy can be too high: use "
    f"protocol=select to choose{apart}."
  ]


def regime_warnings(config: Any, spec: datasets.DatasetSpec, num_used: int) -> list[str]:
  """Returns a sentence if the images that were left out would have changed what the rule says.

  Args:
    config: Resolved.
    spec: The data set.
    num_used: Training examples that are left.
  """
  total = num_examples(config, spec)
  batch_size = config.batch_size if config.preset == "scaled" else None
  expected, used = (hyperrule.schedule(config.preset, n, batch_size) for n in (total, num_used))
  does = (config.total_steps, config.mixup_alpha)
  if expected == used or does == (used.total_steps, used.mixup_alpha):
    return []
  return [
    f"Of {total:,} training images {num_used:,} are used, for which the rule says "
    f"{used.total_steps:,} steps and MixUp {used.mixup_alpha:g}, where this run has {does[0]:,} "
    f"and {does[1]:g}; set total_steps and mixup_alpha to follow it."
  ]


def identity(config: Mapping[str, Any]) -> dict[str, Any]:
  """Returns the fields of a resolved config that make it this run and no other.

  A field that was added since version 0.1 is left out where it has its default: runs that were
  begun before keep their names, and can be resumed.

  Args:
    config: A `ml_collections.ConfigDict`, or what `config.json` holds.
  """
  plain = config.to_dict() if isinstance(config, ml_collections.ConfigDict) else config
  fields = {k: v for k, v in plain.items() if k not in _INCIDENTAL}
  if fields.keys() <= _FIRST:
    return fields
  later = later_fields()
  return {k: v for k, v in fields.items() if k not in later or not _same(v, later[k])}


def later_fields() -> dict[str, Any]:
  """Returns {field: default} of the fields that `configs/base.py` has gained since version 0.1.

  A default must not change: it stands for the field in the runs that were begun without it. The
  rule must not fill such a field either, as its name would then depend on what was filled.
  """
  return {k: v for k, v in _defaults().items() if k not in _FIRST}


def _defaults() -> Any:
  """Returns the config of `configs/base.py`; an empty one where there is none of this project."""
  try:
    from bit_jax.configs import base

    config = base.get_config()
    ours = set(config) >= _FIRST
  except (ImportError, AttributeError, TypeError):
    ours = False
  return config if ours else ml_collections.ConfigDict()


def _require_fields(config: Any) -> None:
  """Raises a `UserError` if a field isn't there, is of another type, or can't be written down.

  Fields that were added since version 0.1 may be absent, as in a config of an earlier run.
  """
  if lacking := sorted(name for name in _FIRST if name not in config):
    more = f" and {len(lacking) - 5} more" if len(lacking) > 5 else ""
    raise errors.UserError(
      f"The config has no {', '.join(lacking[:5])}{more}: begin with that of a file such as "
      f"configs/cifar10.py."
    )
  fields, defaults = config.to_dict(), _defaults()
  for name, default in defaults.items():
    kind, value = defaults.get_type(name), fields.get(name, default)
    accepted = {float: (float, int), tuple: (tuple, list)}.get(kind, kind)
    if not (value is None and default is None) and not isinstance(value, accepted):
      raise errors.UserError(f"{name}={value!r} can't be used: it must be of type {kind.__name__}.")
  for name, value in fields.items():
    try:
      json.dumps(value)
    except (TypeError, ValueError) as e:
      raise errors.UserError(
        f"{name}={value!r} can't be written as JSON: fields are texts, numbers, True, False, None, "
        f"or tuples of them."
      ) from e


def _with_later_fields(config: Any) -> Any:
  """Returns the config, or a copy with the later fields that it lacks."""
  lacking = {k: v for k, v in later_fields().items() if k not in config}
  if not lacking:
    return config
  config = config.copy_and_resolve_references()
  with config.unlocked():
    config.update(lacking)
  return config


def _same(value: Any, default: Any) -> bool:
  """Returns whether two values are the same in `config.json`, which knows no tuples."""
  return json.loads(json.dumps(value)) == json.loads(json.dumps(default))


def config_hash(config: Any) -> str:
  """Returns eight hexadecimal digits that stand for the identity of a resolved config."""
  text = json.dumps(identity(config), sort_keys=True)
  return hashlib.sha256(text.encode()).hexdigest()[:8]


def default_workdir(config: Any) -> str:
  """Returns the run folder of a resolved config: the same command finds it again.

  `runs/<config>-<model>-<shots>-s<seed>-<hash>`, where the hash covers its identity.
  """
  shots = "full" if config.shots is None else f"{config.shots}shot"
  name = f"{config.name}-{config.model}-{shots}-s{config.seed}-{config_hash(config)}"
  return os.path.join("runs", name)
