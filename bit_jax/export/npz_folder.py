"""This project's own files: official names, as the official code and this one load them.

The folder is a run folder without checkpoints, logs and pictures: every command takes it.
"""

import json
import pathlib
import shutil

import numpy as np

from bit_jax import weights
from bit_jax.export import checking, form
from bit_jax.inference import networks
from bit_jax.runs import run_folder

_RECORDS = {
  run_folder.CONFIG: "the config of the run; its images are resized to `test_size` pixels",
  run_folder.ENVIRONMENT: "versions, devices, data and initial weights of the run",
  run_folder.RESULT: "the accuracy",
}


def write(network: networks.Network, folder: pathlib.Path) -> None:
  """Writes `model.npz` and the records of the run; of a checkpoint, the fields that are needed."""
  weights.save(folder / run_folder.WEIGHTS, network.params)
  architecture = network.model.architecture.name
  if network.folder is None:
    config = {"model": architecture, "test_size": network.size, "dtype": "auto"}
    (folder / run_folder.CONFIG).write_text(f"{json.dumps(config, indent=2)}\n", encoding="utf-8")
    return
  for name in _RECORDS:
    if (network.folder / name).is_file():
      shutil.copyfile(network.folder / name, folder / name)
  config = {**(network.config or {}), "test_size": network.size}
  (folder / run_folder.CONFIG).write_text(f"{json.dumps(config, indent=2)}\n", encoding="utf-8")


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
