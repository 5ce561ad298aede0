"""What a run leaves behind: a picture of its input; at the end its result, tables and pictures.

A table or picture that can't be written costs a warning, not the run.
"""

import functools
import math
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bit_jax.data import augmentation, loading, order
from bit_jax.runs import metrics_log, per_class, reporting, run_folder
from bit_jax.runtime import files, phrases, plots

_SHOWN = 16  # images in a picture
_MANY = 1000  # evaluated images, from which on the accuracy is printed without an interval
_Z = 1.96  # standard deviations of the normal distribution on each side of a 95 % interval
_AUGMENTED, _CURVES, _PREDICTIONS = "augmented.png", "curves.png", "predictions.png"
_AGAIN = f" To get them, delete {run_folder.RESULT} and repeat the command: it evaluates again."
_FILES = {
  "model.npz": "the fine-tuned weights, in the official naming",
  _CURVES: "loss, accuracy and learning rate",
  _AUGMENTED: "training images as they are augmented",
  _PREDICTIONS: "test images and what they were predicted as",
  per_class.PER_CLASS: "accuracy of each class",
  per_class.PICTURE: "which classes are predicted as which (numbers: confusion.csv)",
  reporting.METRICS: "all logged numbers",
  run_folder.RESULT: "the result",
  "classes.txt": "the names of the classes",
  "split.csv": "how your own images were split",
}
_UNLESS_ABSENT = (run_folder.RESULT, "classes.txt", "split.csv")  # listed where they exist


def draw_augmented(
  folder: pathlib.Path, config: Any, train: loading.Part, tell: Callable[[str], None]
) -> None:
  """Draws the first images of the first step as it sees them (before MixUp).

  Args:
    folder: The run folder.
    config: Resolved.
    train: What is trained on.
    tell: Gets a warning if the picture can't be drawn.
  """
  with files.optional(_AUGMENTED, tell):
    indices = order.batch(config.seed, 0, config.batch_size, len(train), train.window)
    images, labels = train.some(indices[:_SHOWN])
    keys = augmentation.example_keys(
      jax.random.key(config.seed), jnp.int32(0), jnp.arange(len(images))
    )
    augment = jax.jit(
      functools.partial(augmentation.augment, resize=config.resize, crop=config.crop)
    )
    augmented = augment(images, keys, flip=config.random_flip, random_crop=config.random_crop)
    captions = [train.class_names[c] for c in labels]
    title = "Training images as they are augmented"
    plots.sheet(np.asarray(augmented), captions, folder / _AUGMENTED, title)


def write(
  folder: pathlib.Path,
  data: loading.Loaded,
  result: dict[str, Any],
  predictions: np.ndarray,
  labels: np.ndarray,
  tell: Callable[[str], None],
) -> None:
  """Writes the tables of each class, as far as they can be written, and then `result.json`.

  Args:
    folder: The run folder.
    data: Of the run.
    result: What `result.json` is to hold.
    predictions: [N] int32, of the test images.
    labels: [N] int32, their labels.
    tell: Gets warnings.
  """
  per_class.write(folder, data.test.class_names, labels, predictions, data.train.labels, tell)
  run_folder.write_json(folder / run_folder.RESULT, result)  # before the pictures, which may fail


def draw(
  folder: pathlib.Path,
  config: Any,
  test: loading.Part,
  top1: float,
  predictions: np.ndarray,
  labels: np.ndarray,
  tell: Callable[[str], None],
) -> None:
  """Draws curves, predictions and confusions; a picture that can't be drawn costs a warning.

  Args:
    folder: The run folder, with its metrics.
    config: Resolved.
    test: What was evaluated.
    top1: Accuracy in [0, 1].
    predictions: [N] int32.
    labels: [N] int32.
    tell: Gets warnings.
  """
  origin = "random initialisation" if config.weights == "none" else _base(config.weights)
  title = plots.line(f"{config.name}: {config.model} from {origin}, top-1 {top1:.2%}")
  with files.optional(_CURVES, tell):
    evaluated = "held-out images" if config.protocol == "select" else "test images"
    metrics_log.draw(folder / reporting.METRICS, folder / _CURVES, title, evaluated)
  with files.optional(_PREDICTIONS, tell):
    _draw_predictions(folder, test, predictions, title)
  with files.optional(per_class.PICTURE, tell):
    heading = f"{config.name}: top-1 {top1:.2%} on {phrases.counted(len(labels), 'image')}"
    per_class.draw(folder, test.class_names, labels, predictions, heading)


def _draw_predictions(
  folder: pathlib.Path, test: loading.Part, predictions: np.ndarray, title: str
) -> None:
  indices = np.linspace(0, len(test) - 1, min(_SHOWN, len(test))).astype(int)
  images, labels = test.some(indices)
  names = test.class_names
  captions = [
    names[p] if p == label else f"!{names[p]} ({names[label]})"
    for p, label in zip(predictions[indices], labels, strict=True)
  ]
  plots.sheet(
    images,
    captions,
    folder / _PREDICTIONS,
    f"Predictions (and the label, where they differ): {title}",
  )


def summary(folder: str, result: dict[str, Any]) -> str:
  """Returns what a finished run says: its accuracy, what to know of it, and its files.

  Args:
    folder: The run folder, as the user named it.
    result: What `result.json` holds.
  """
  steps = f"{result['steps']:,} steps"
  if "best_step" in result:
    steps = f"step {result['best_step']:,}, the best evaluation of {steps}"
  chosen = ""
  if "num_val" in result:
    chosen = f" (top-1 on the {result['num_val']:,} validation images: {result['val_top1']:.2%})"
  part = "test images" if chosen else "images"
  where = f"on {result['num_test']:,} {part}{_interval(result['top1'], result['num_test'])}"
  lines = [f"Top-1 accuracy {result['top1']:.2%} {where} after {steps}{chosen}."]
  lines += [f"Left out: {number:,} {why}." for why, number in result["left_out"].items()]
  lines += [f"warning: {warning}" for warning in result["warnings"]]
  there = run_folder.open_folder(folder, create=False)
  described = dict(_FILES)
  if per_class.has_list(there):
    del described[per_class.PICTURE]
    described[per_class.CONFUSION] = "the most frequent confusions"
  absent = [file for file in described if not (there / file).exists()]
  listed = {file: what for file, what in described.items() if file not in absent}
  width = max(map(len, described))
  lines.append(f"{folder}:" if listed else f"{folder} holds none of the run's files.")
  lines += [f"  {file:<{width}}  {what}" for file, what in listed.items()]
  if missing := [file for file in absent if file not in _UNLESS_ABSENT]:
    again = _AGAIN if _can_end_again(there, result) and missing != [_AUGMENTED] else ""
    lines.append(f"Missing (not written, or removed since): {', '.join(missing)}.{again}")
  return "\n".join(lines)


def _interval(share: float, number: int) -> str:
  """Returns Wilson's 95 % interval of a share of few images as text, '' for many or none."""
  if not 0 < number < _MANY:
    return ""
  scale = 1 + _Z**2 / number
  centre = (share + _Z**2 / (2 * number)) / scale
  half = _Z * math.sqrt(share * (1 - share) / number + (_Z / (2 * number)) ** 2) / scale
  return f" (95% interval {max(0.0, centre - half):.0%} to {min(1.0, centre + half):.0%})"


def _can_end_again(folder: pathlib.Path, result: dict[str, Any]) -> bool:
  """Returns whether a run without its result would only evaluate and write it."""
  whole = "best_step" not in result  # whose weights are only in model.npz
  return whole and (folder / run_folder.CHECKPOINTS / str(result["steps"])).exists()


def _base(weights: str) -> str:
  return pathlib.Path(weights).name
