"""What a run leaves behind: a picture of its input, and figures and pictures when it is done."""

import functools
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bit_jax import classwise, pictures, reporting, runs
from bit_jax.data import device, loading, order

_SHOWN = 16  # images in a picture
_FILES = {
  "model.npz": "the fine-tuned weights, in the official naming",
  "curves.png": "loss, accuracy and learning rate",
  "augmented.png": "training images as they are augmented",
  "predictions.png": "test images and what they were taken for",
  "per_class.csv": "accuracy of each class",
  "confusion.png": "which classes are taken for which (numbers: confusion.csv)",
  "metrics.jsonl": "all logged numbers",
}


def draw_augmented(folder: pathlib.Path, config: Any, train: loading.Part) -> None:
  """Draws the first images of the first step as it sees them (before MixUp)."""
  indices = order.batch(config.seed, 0, config.batch_size, len(train), train.window)
  images, labels = train.some(indices[:_SHOWN])
  keys = device.example_keys(jax.random.key(config.seed), jnp.int32(0), jnp.arange(len(images)))
  augment = jax.jit(functools.partial(device.augment, resize=config.resize, crop=config.crop))
  augmented = augment(images, keys, flip=config.random_flip, random_crop=config.random_crop)
  captions = [train.class_names[c] for c in labels]
  title = "Training images as they are augmented"
  pictures.sheet(np.asarray(augmented), captions, folder / "augmented.png", title)


def draw_curves_and_predictions(
  folder: pathlib.Path, config: Any, test: loading.Part, top1: float, predictions: np.ndarray
) -> None:
  """Draws `curves.png`, and some test images with what they were taken for.

  Args:
    folder: The run folder, with its metrics.
    config: Resolved.
    test: What was scored.
    top1: Accuracy in [0, 1].
    predictions: [N] int32.
  """
  origin = "random initialisation" if config.weights == "none" else _base(config.weights)
  title = f"{config.name}: {config.model} from {origin}, top-1 {top1:.2%}"
  pictures.curves(folder / reporting.METRICS, folder / "curves.png", title)
  indices = np.linspace(0, len(test) - 1, min(_SHOWN, len(test))).astype(int)
  images, labels = test.some(indices)
  names = test.class_names
  captions = [
    names[p] if p == label else f"!{names[p]} ({names[label]})"
    for p, label in zip(predictions[indices], labels, strict=True)
  ]
  pictures.sheet(
    images,
    captions,
    folder / "predictions.png",
    f"Predictions (and the label, where they differ): {title}",
  )


def write(
  folder: pathlib.Path,
  config: Any,
  data: loading.Loaded,
  result: dict[str, Any],
  predictions: np.ndarray,
  labels: np.ndarray,
) -> None:
  """Writes figures of each class, pictures, and last of all `result.json`.

  Args:
    folder: The run folder.
    config: Resolved.
    data: Of the run.
    result: What `result.json` is to hold.
    predictions: [N] int32, of the test images.
    labels: [N] int32, their labels.
  """
  classwise.write(folder, data.test.class_names, labels, predictions, data.train.labels)
  draw_curves_and_predictions(folder, config, data.test, result["top1"], predictions)
  runs.write_json(folder / runs.RESULT, result)  # last: it says that all else is there


def summary(folder: str, result: dict[str, Any]) -> str:
  """Returns what a finished run says: its accuracy, what to know of it, and its files.

  Args:
    folder: The run folder, as the user named it.
    result: What `result.json` holds.
  """
  steps = f"{result['steps']:,} steps"
  if "best_step" in result:
    steps = f"step {result['best_step']:,}, the best evaluation of {steps}"
  lines = [f"Top-1 accuracy {result['top1']:.2%} on {result['num_test']:,} images after {steps}."]
  lines += [f"Left out: {number:,} {why}." for why, number in result["left_out"].items()]
  lines += [f"warning: {warning}" for warning in result["warnings"]]
  lines += [f"  {pathlib.Path(folder) / file!s:<60} {what}" for file, what in _FILES.items()]
  return "\n".join(lines)


def _base(weights: str) -> str:
  return pathlib.Path(weights).name
