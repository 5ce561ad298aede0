"""Every field of a run, with its default; the other files of this folder change a few of them.

A field that is a placeholder is left open: the rule (`bit_jax/hyperrule.py`) or the data set fills
it once the number of examples and the image size are known. What is set here, in a config file or
on the command line (`--config.batch_size=128`) is never changed by the rule.

Arguments, after a colon and separated by commas, set what most runs vary:

    --config=configs/cifar10.py:model=BiT-M-R101x3,shots=5,seed=1,preset=paper,weights=none
"""

import ml_collections
from ml_collections.config_dict import placeholder

from bit_jax import architectures, arguments, hyperrule
from bit_jax.data import datasets


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
    UserError: The argument is not of the form that `bit_jax.arguments` reads.
  """
  specification = {
    "model": arguments.Argument(model, _model),
    "weights": arguments.Argument(None),
    "preset": arguments.choice("code", hyperrule.PRESETS),
    "resolution": arguments.choice(None, hyperrule.RESOLUTIONS),
    "protocol": arguments.choice("final", datasets.PROTOCOLS),
    "shots": arguments.integer(shots, 1),
    "seed": arguments.integer(0, 0),
  }
  if path:
    specification["path"] = arguments.Argument(None, takes_rest=True)
  values = arguments.parse(arg, specification)

  config = ml_collections.ConfigDict()
  config.name = "base"  # in the name of the run folder

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
  config.seed = values["seed"]  # of the subset, the order, crops, flips, MixUp, and random weights

  # The rule, and what it decides.
  config.preset = values["preset"]  # 'code', 'paper', 'readme_128', 'scaled'
  config.resolution = placeholder(str)  # 'code', 'paper'; follows the preset unless set
  config.resize = placeholder(int)  # pixels; images are resized to this square,
  config.crop = placeholder(int)  # pixels; and cropped to this one, which is also the test size
  config.batch_size = placeholder(int)  # over all devices
  config.total_steps = placeholder(int)  # alone, it stretches warm-up and boundaries with it
  config.base_lr = placeholder(float)
  config.warmup_steps = placeholder(int)
  config.decay_steps = placeholder(tuple)  # a tenth of the rate after each
  config.mixup_alpha = placeholder(float)  # 0 turns MixUp off
  config.momentum = 0.9
  config.reason = ""  # why fields are set against the rule; printed where they are

  # Turn these off where the label does not survive them: positions and counts (crop), anything
  # that has a left and a right (flip). Left open, the data set decides.
  config.random_crop = placeholder(bool)
  config.random_flip = placeholder(bool)

  # How it is computed. 'auto' is float32 on CPU and bfloat16 elsewhere; parameters, their updates
  # and norm statistics are float32 in any case. The same seed gives the same run; on a GPU only
  # with `deterministic`, which makes XLA choose reproducible kernels at some cost in speed.
  config.dtype = "auto"
  config.deterministic = False
  config.eval_batch_size = 256  # over all devices; of no consequence for the result

  # In steps. Left open: evaluations and checkpoints five times a run, logs twenty times or more.
  config.eval_every = placeholder(int)
  config.checkpoint_every = placeholder(int)
  config.log_every = placeholder(int)
  config.profile = False  # trace five steps for TensorBoard's profiler

  for name in ("weights", "resolution", "shots"):  # `None` would not be a placeholder
    if values[name] is not None:
      config[name] = values[name]
  if values.get("path") is not None:
    config.data_path = values["path"]
  return config
