"""The arguments that all config files take; the other files of this folder change a few fields.

`RunConfig` in `bit_jax/run_config.py` lists every field with its meaning and its default. What a
config file or the command line (`--config.batch_size=128`) sets is never changed by the rule.

Arguments, after a colon and separated by commas, set what most runs vary:

    --config=configs/cifar10.py:model=BiT-M-R101x3,shots=5,seed=1,preset=paper,weights=none
"""

import ml_collections

from bit_jax import hyperrule, run_config
from bit_jax.data import datasets
from bit_jax.models import architectures
from bit_jax.runtime import arguments

# Arguments whose fields have other names: {argument: field}.
_FIELDS = {"crop": "random_crop", "flip": "random_flip", "path": "data_path", "task": "dataset"}


def _model(name: str) -> str:
  architectures.find(name)
  return name


def get_config(
  arg: str | None = None,
  *,
  dataset: str | None = None,
  model: str = "BiT-M-R50x1",
  shots: int | None = None,
  path: bool = False,
  **extra: arguments.Argument,
) -> ml_collections.ConfigDict:
  """Returns the fields with the argument's values filled in.

  Args:
    arg: What follows the colon of `--config=FILE:...`.
    dataset: The data set, and the config's name.
    model: Default of the argument `model`.
    shots: Default of the argument `shots`.
    path: Whether there is an argument `path`; it comes last and takes the rest, commas included.
    **extra: More arguments, or others in place of those that all files take.

  Raises:
    UserError: The argument is not of the form that `bit_jax.runtime.arguments` reads.
  """
  specification = {
    "model": arguments.Argument(model, _model),
    "weights": arguments.Argument(None),
    "preset": arguments.choice("code", hyperrule.PRESETS),
    "resolution": arguments.choice(None, hyperrule.RESOLUTIONS),
    "protocol": arguments.choice("final", datasets.PROTOCOLS),
    "shots": arguments.integer(shots, 1),
    "seed": arguments.integer(0, 0, hyperrule.MAX_SEED),
    "crop": arguments.boolean("; the size in pixels is the field --config.crop"),
    "flip": arguments.boolean(),
    "microbatch": arguments.integer("auto", 1),
    **extra,
  }
  if path:
    specification["path"] = arguments.Argument(None, takes_rest=True)
  config = run_config.request()
  if dataset is not None:
    config.name = config.dataset = dataset
  for name, value in arguments.parse(arg, specification, fields=config.keys()).items():
    if value is not None:
      config[_FIELDS.get(name, name)] = value
  config.lock()  # an unknown field can only be set by mistake
  return config
