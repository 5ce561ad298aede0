"""The Python API: `bit_jax.load`, `bit_jax.fine_tune`, and what they return.

import bit_jax

tuned = bit_jax.fine_tune("~/photos", model="R14x0.5")
for prediction in tuned.classifier.predict("~/new_photos"):
  print(prediction.path, prediction.class_name, prediction.probability)
"""

import dataclasses
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import ml_collections
import numpy as np

from bit_jax import run_config
from bit_jax.configs import base, folder, npz
from bit_jax.data import datasets
from bit_jax.data.sources import in_memory
from bit_jax.runs import description, metrics_log, reporting
from bit_jax.runtime import config_flags, devices, errors, exits
from bit_jax.training import loop


@dataclasses.dataclass(frozen=True)
class FineTuned:
  """A finished run.

  Attributes:
    result: The content of `result.json`: 'top1', 'balanced_accuracy', 'macro_f1', 'loss' and more.
    folder: The run folder.
    config: Every field of the run.
  """

  result: dict[str, Any]
  folder: pathlib.Path
  config: run_config.RunConfig = dataclasses.field(repr=False)

  def history(self, kind: str = "train") -> dict[str, list[float]]:
    """Returns the logged numbers by name: 'step', 'loss', 'top1' and more, a list of each.

    Args:
      kind: 'train'; 'eval', of the test images; or 'val', of a validation part.
    """
    rows = [r for r in metrics_log.read(self.folder / reporting.METRICS)[0] if r["kind"] == kind]
    names = [name for name in (rows[0] if rows else ()) if name != "kind"]
    return {name: [row[name] for row in rows if name in row] for name in names}


def fine_tune(
  images: in_memory.Images | in_memory.Path,
  labels: in_memory.Labels | None = None,
  *,
  test: tuple[in_memory.Images, in_memory.Labels] | None = None,
  class_names: Sequence[str] | None = None,
  model: str = "BiT-M-R50x1",
  shots: int | None = None,
  seed: int = 0,
  workdir: in_memory.Path | None = None,
  **fields: Any,
) -> FineTuned:
  """Fine-tunes a checkpoint by BiT-HyperRule: the same run as `python -m bit_jax.train`.

  A run that was interrupted is resumed, and the result of a finished one is returned, as for the
  command. Progress is printed.

  Args:
    images: A folder of `<class>/*` or `<split>/<class>/*`, a CSV file, or an `.npz` file, as
      configs/folder.py and configs/npz.py read them; or the name of a data set. With `labels`:
      images in memory, an array [N, h, w, 3] or [N, h, w] uint8 or a sequence of arrays or of
      Pillow's images, all of one size; or a sequence of paths.
    labels: [N] whole numbers from 0, or class names. Such images are written to a file in the cache
      directory, which the run reads.
    test: The images to evaluate and their labels, of the same form. Without them, a fifth of each
      class is held out. A folder or a file has its own test part.
    class_names: The names of the classes, in the order of numeric labels.
    model: A released model, such as 'BiT-M-R50x1'; 'R14x0.5' is small, and in this package.
    shots: Training images of each class; None: all.
    seed: Of the subset, the order of the images and the augmentation.
    workdir: The run folder; None: a folder below `runs` that is named after the config.
    **fields: Any other field of `bit_jax.run_config.RunConfig`, such as `batch_size=128`.

  Raises:
    UserError: An argument, an image or the run folder can't be used; the message says what to do.
    KeyboardInterrupt: The run was interrupted; its state is saved.
  """
  request = _request(images, labels, test, class_names)
  for name in ("dataset", "data_path"):
    if name in fields:
      raise errors.UserError(f"{name} follows from the first argument: leave it out.")
  given = {"model": model, "shots": shots, "seed": seed, **fields}
  config_flags.override(request, {name: _plain(value) for name, value in given.items()})
  config, data = run_config.prepare(request)
  devices.require()
  print(f"{config.name}: {config.model}, weights {config.weights}, head {config.head}")
  print(description.rule(config, data.spec, jax.device_count()), flush=True)
  where = os.fspath(workdir) if workdir is not None else run_config.default_workdir(config)
  try:
    result = loop.run(config, data, where)
  except exits.Interrupted as e:
    raise KeyboardInterrupt(str(e)) from None
  return FineTuned(result, pathlib.Path(where).expanduser().absolute(), config)


def _request(
  images: in_memory.Images | in_memory.Path,
  labels: in_memory.Labels | None,
  test: tuple[in_memory.Images, in_memory.Labels] | None,
  class_names: Sequence[str] | None,
) -> ml_collections.ConfigDict:
  """Returns the config of the file that the images are in, with all other fields open."""
  if labels is not None:
    if isinstance(images, str | os.PathLike):
      raise errors.UserError(
        f"{os.fspath(images)!r} takes no labels: a folder, a CSV and an npz file have their own. "
        f"For labelled files, give a list of paths."
      )
    images = in_memory.written((images, labels), test, class_names)
  elif not isinstance(images, str | os.PathLike):
    raise errors.UserError("Images in memory and paths need labels: fine_tune(images, labels).")
  elif test is not None or class_names is not None:
    raise errors.UserError(
      f"test and class_names go with images and labels; {os.fspath(images)!r} has its own."
    )
  text = os.fspath(images)
  if isinstance(images, str) and text in datasets.NAMES and text not in datasets.OWN:
    if os.path.exists(text):
      raise errors.UserError(
        f"{text!r} is the name of a data set and of a file here: give './{text}' for the file, or "
        f"call fine_tune in another folder."
      )
    request = base.get_config(dataset=text)
    request.name = text.replace("/", "-")
    return request
  config = npz if text.lower().endswith(".npz") else folder
  return config.get_config(f"path={text}")


def _plain(value: Any) -> Any:
  """Returns numpy's numbers as Python's, and paths as texts."""
  if isinstance(value, np.generic):
    return value.item()
  return os.fspath(value) if isinstance(value, os.PathLike) else value
