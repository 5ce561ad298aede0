"""Every field of a run, with its default; the other files of this folder change a few of them.

A field that is a placeholder is left open: the rule (`bit_jax/hyperrule.py`) or the data set fills
it once the number of examples and the image size are known. What is set here, in a config file or
on the command line (`--config.batch_size=128`) is never changed by the rule.

A field that is added here leaves the names of earlier runs as they are: it enters a run's name only
where it isn't its default (`bit_jax.run_config.later_fields`).

Arguments, after a colon and separated by commas, set what most runs vary:

    --config=configs/cifar10.py:model=BiT-M-R101x3,shots=5,seed=1,preset=paper,weights=none
"""

from collections.abc import Mapping
from typing import Any

import ml_collections
from ml_collections.config_dict import FieldReference, placeholder

from bit_jax import hyperrule
from bit_jax.data import datasets
from bit_jax.models import architectures
from bit_jax.runtime import arguments

# Arguments whose fields are placeholders: {argument: field}.
_LEFT_OPEN = {
  "weights": "weights",
  "resolution": "resolution",
  "shots": "shots",
  "crop": "random_crop",
  "flip": "random_flip",
  "path": "data_path",
}


def _model(name: str) -> str:
  architectures.find(name)
  return name


def get_config(
  arg: str | None = None,
  *,
  model: str = "BiT-M-R50x1",
  shots: int | None = None,
  path: bool = False,
) -> ml_collections.ConfigDict:
  """Returns the fields with the argument's values filled in.

  Args:
    arg: What follows the colon of `--config=FILE:...`.
    model: Default of the argument `model`.
    shots: Default of the argument `shots`.
    path: Whether there is an argument `path`; it comes last and takes the rest, commas included.

  Raises:
    UserError: The argument is not of the form that `bit_jax.runtime.arguments` reads.
  """
  return get_config_with(arg, {}, model=model, shots=shots, path=path)[0]


def get_config_with(
  arg: str | None,
  extra: Mapping[str, arguments.Argument],
  *,
  model: str = "BiT-M-R50x1",
  shots: int | None = None,
  path: bool = False,
) -> tuple[ml_collections.ConfigDict, dict[str, Any]]:
  """Does what `get_config` does for a file with `extra` arguments; returns their values too."""
  specification = {
    "model": arguments.Argument(model, _model),
    "weights": arguments.Argument(None),
    "preset": arguments.choice("code", hyperrule.PRESETS),
    "resolution": arguments.choice(None, hyperrule.RESOLUTIONS),
    "protocol": arguments.choice("final", datasets.PROTOCOLS),
    "shots": arguments.integer(shots, 1),
    "seed": arguments.integer(0, 0, hyperrule.MAX_SEED),
    "crop": arguments.boolean(),
    "flip": arguments.boolean(),
    "microbatch": arguments.integer_or("auto", 1),
    **extra,
  }
  if path:
    specification["path"] = arguments.Argument(None, takes_rest=True)
  values = arguments.parse(arg, specification)

  config = ml_collections.ConfigDict()
  config.name = "base"  # in the name of the run folder
  _add_task(config, values)
  _add_rule(config, values)
  _add_computation(config, values)
  for name, field in _LEFT_OPEN.items():  # `None` would not be a placeholder
    if values.get(name) is not None:
      config[field] = values[name]
  config.lock()  # a field that isn't there can be set by mistake only
  return config, {name: values[name] for name in extra}


def _text_or_other(value: Any) -> FieldReference:
  """Returns a field that takes a text as well as values of other types."""
  return FieldReference(value, field_type=object)


def _add_task(config: ml_collections.ConfigDict, values: Mapping[str, Any]) -> None:
  # What is fine-tuned. `weights` is a name (python -m bit_jax.weights list), a path, or 'none' for
  # random initialisation; left open, it is the checkpoint that the model is named after.
  config.model = values["model"]
  config.weights = placeholder(str)
  config.head = "zero"  # 'zero': a new head; 'keep': the checkpoint's own

  # On what. `data_dir` is where tfds keeps prepared sets, by default $TFDS_DATA_DIR or
  # ~/tensorflow_datasets. 'final' trains on all of train and scores the test set; 'select' holds
  # out a part of train and scores that.
  config.dataset = placeholder(str)
  config.data_path = placeholder(str)
  config.data_dir = placeholder(str)
  config.protocol = values["protocol"]
  config.shots = placeholder(int)  # images of each class; left open: all
  # Of the subset, the order, crops, flips, MixUp, and random weights: from 0 to 2**32 - 1.
  config.seed = values["seed"]

  # Which images are left out, of training and test alike.
  config.min_side = 0  # pixels; images with a shorter side are
  config.max_aspect = 0.0  # longer side / shorter side; images above it are; 0: none
  config.on_bad_image = "stop"  # unreadable ones 'stop' the run with their list, or: 'skip'


def _add_rule(config: ml_collections.ConfigDict, values: Mapping[str, Any]) -> None:
  # The rule, and what it decides.
  config.preset = values["preset"]  # 'code', 'paper', 'readme_128', 'scaled'
  config.resolution = placeholder(str)  # 'code', 'paper'; follows preset and data set unless set
  config.resize = placeholder(int)  # pixels; images are resized to this square,
  config.crop = placeholder(int)  # pixels; and cropped to this one
  config.test_size = placeholder(int)  # pixels; test images are resized to it; left open: crop
  config.batch_size = placeholder(int)  # over all devices
  config.total_steps = placeholder(int)  # alone, it stretches warm-up and boundaries with it
  config.base_lr = placeholder(float)
  config.warmup_steps = placeholder(int)
  config.decay_steps = placeholder(tuple)  # a tenth of the rate after each
  config.mixup_alpha = placeholder(float)  # 0 turns MixUp off
  config.momentum = 0.9
  config.reason = ""  # why fields are set against the rule; printed where they are

  # Turn these off where the label does not survive them: crop for counts and positions, flip for
  # positions and anything that has a left and a right. Left open, the data set decides.
  config.random_crop = placeholder(bool)
  config.random_flip = placeholder(bool)

  # The rule takes the last weights. `keep_best` exports those of the best evaluation instead, and
  # `patience` ends the run after so many evaluations without a better one. Where your own images
  # have train, val and test parts, both choose on val, the run trains on train alone, and the
  # result is that of test. Other sets have no such part: both choose on the images that the result
  # is of, so choose with protocol=select for an accuracy to report.
  config.keep_best = False
  config.patience = placeholder(int)


def _add_computation(config: ml_collections.ConfigDict, values: Mapping[str, Any]) -> None:
  # How it is computed. 'auto' is float32 on CPU and bfloat16 elsewhere; parameters, their updates
  # and norm statistics are float32 in any case. The same seed gives the same run; on a GPU only
  # with `deterministic`, which makes XLA choose reproducible kernels at some cost in speed.
  config.dtype = "auto"
  config.deterministic = False
  config.eval_batch_size = 256  # over all devices; of no consequence for the result

  # Memory. Images of one pass forward and backward on each device: a number, or 'auto' for as many
  # as fit. Gradients of several passes are added up, which is the same step up to rounding. `remat`
  # computes activations again in the backward pass instead of keeping them, at a third more
  # computation: True, False, or 'auto', only where nothing fits without. It has no effect on CPU.
  # What fits depends on what else is in memory: who wants the same rounding again sets a number.
  # In bfloat16, momentum takes half the memory; updates are then a little less exact.
  config.microbatch = _text_or_other(values["microbatch"])
  config.remat = _text_or_other("auto")
  config.momentum_dtype = "float32"

  # A set that takes at most this share of a device's memory lives decoded on the devices; a larger
  # one is read as it is needed (0: every set is). Each epoch permutes all training examples. Only
  # a whole set prepared by tfds with more than `shuffle_window` examples is permuted in windows of
  # so many, whose records lie close together on disk.
  config.resident_share = 0.4
  config.shuffle_window = 65_536
  # Keeps what was read and decoded once as files below $BIT_JAX_CACHE, for later epochs and runs.
  config.decoded_cache = False

  # In steps. Left open: evaluations and checkpoints five times a run, logs twenty times or more.
  config.eval_every = placeholder(int)
  config.checkpoint_every = placeholder(int)
  config.log_every = placeholder(int)
  config.profile = False  # trace five steps for TensorBoard's profiler
