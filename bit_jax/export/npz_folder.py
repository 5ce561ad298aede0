"""This project's own files: official names, as the official code and this one load them.

The folder is a run folder without checkpoints, logs and pictures: every command takes it. That of a
checkpoint states its origin in the config, and is a checkpoint to every command.
"""

import dataclasses
import json
import pathlib
import shutil
from typing import Any

import numpy as np

from bit_jax import weights
from bit_jax.export import checking, form
from bit_jax.inference import networks
from bit_jax.runs import run_folder

_RECORDS = {
  run_folder.CONFIG: "the config; images are resized to `test_size` pixels",
  run_folder.ENVIRONMENT: "versions, devices, data and initial weights of the run",
  run_folder.RESULT: "the accuracy at `test_size` pixels",
}


def write(network: networks.Network, folder: pathlib.Path) -> None:
  """Writes `model.npz` and the records of the run; of a checkpoint, what it is.

  A result is left out if it was measured at another size.
  """
  weights.save(folder / run_folder.WEIGHTS, network.params)
  config = _checkpoint(network) if network.config is None else dict(network.config)
  same_size = config.get("test_size") == network.size
  config["test_size"] = network.size
  (folder / run_folder.CONFIG).write_text(f"{json.dumps(config, indent=2)}\n", encoding="utf-8")
  if network.folder is None:
    return
  for name in (run_folder.ENVIRONMENT, *([run_folder.RESULT] if same_size else [])):
    if (network.folder / name).is_file():
      shutil.copyfile(network.folder / name, folder / name)


def _checkpoint(network: networks.Network) -> dict[str, Any]:
  """Returns the config of a checkpoint's export: what loads it, and where it comes from."""
  return {
    "model": network.model.architecture.name,
    "dtype": "auto",
    "checkpoint": dataclasses.asdict(network.source),
  }


def _classify(folder: pathlib.Path, network: networks.Network, images: np.ndarray) -> np.ndarray:
  read = networks.load(str(folder), dtype="float32")
  return checking.logits(read, images)


def _example(network: networks.Network) -> str:
  return """import bit_jax

classifier = bit_jax.load(".")
(prediction,) = classifier.predict("photo.jpg")
print(prediction.class_name, prediction.probability)"""


FORM = form.Form(
  name="npz",
  library="bit_jax",
  files={run_folder.WEIGHTS: "the weights, named as in the released BiT checkpoints", **_RECORDS},
  write=write,
  classify=_classify,
  runtime="bit_jax",
  example=_example,
  remarks=(
    "The commands of bit_jax take the folder, such as `python -m bit_jax.predict . photo.jpg`. "
    "It resizes on the host and rounds to whole grey levels."
  ),
)
