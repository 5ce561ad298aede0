"""The end of a run: `result.json`, tables, pictures and the printed summary.

A table or picture that can't be written costs a warning. For a table, a full disk stops the run
before its result is written: the same command writes both once there is room.
"""

import functools
import itertools
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bit_jax.data import augmentation, order, pipeline
from bit_jax.run_config import RunConfig
from bit_jax.runs import interval, metrics_log, mistakes, per_class, reporting, run_folder
from bit_jax.runtime import files, phrases, plots

_SHOWN = 16  # images in a picture
AUGMENTED, CURVES, PREDICTIONS = "augmented.png", "curves.png", "predictions.png"
FILES = {  # of a finished run, whichever module writes them
  run_folder.REPORT: "all of it as one page",
  run_folder.WEIGHTS: "the fine-tuned weights, in the official naming",
  CURVES: "loss, accuracy and learning rate",
  AUGMENTED: "training images before and after augmentation",
  PREDICTIONS: "test images with their predictions",
  per_class.PER_CLASS: "accuracy of each class",
  per_class.CONFUSION: "what each class was predicted as",
  per_class.PICTURE: "confusion matrix",
  mistakes.TABLE: "all mistakes, the most confident first",
  mistakes.PICTURE: "the most confident mistakes",
  reporting.METRICS: "all logged metrics",
  run_folder.RESULT: "the result",
  run_folder.CLASSES: "the names of the classes",
  run_folder.SPLIT: "the split of your own images",
}
# Those that not every run has, or that earlier versions did not write.
_OPTIONAL = (
  *(run_folder.REPORT, run_folder.RESULT, run_folder.CLASSES, run_folder.SPLIT),
  *(per_class.PICTURE, mistakes.TABLE, mistakes.PICTURE),
)


def draw_augmented(
  folder: pathlib.Path, config: RunConfig, train: pipeline.Part, say: Callable[[str], None]
) -> None:
  """Draws the first images of the first step, each as it is read and, beside it, augmented.

  MixUp comes after what is drawn.

  Args:
    folder: The run folder.
    config: The config of the run.
    train: The training part.
    say: Gets a warning if the picture can't be drawn.
  """
  with files.optional(AUGMENTED, say):
    indices = order.batch(config.seed, 0, config.batch_size, len(train), train.window)
    images, labels = train.some(indices[:_SHOWN])
    keys = augmentation.example_keys(
      jax.random.key(config.seed), jnp.int32(0), jnp.arange(len(images))
    )
    augment = jax.jit(
      functools.partial(augmentation.augment, resize=config.resize, crop=config.crop)
    )
    augmented = augment(images, keys, flip=config.random_flip, random_crop=config.random_crop)
    pairs = zip(images, np.asarray(augmented), strict=True)
    captions = [t for c in labels for t in (train.class_names[c], "augmented")]
    title = "Training images, each as it is read and after augmentation"
    plots.sheet([*itertools.chain(*pairs)], captions, folder / AUGMENTED, title)


def write(
  folder: pathlib.Path,
  data: pipeline.Loaded,
  result: dict[str, Any],
  predictions: np.ndarray,
  labels: np.ndarray,
  say: Callable[[str], None],
) -> None:
  """Writes the tables per class, as far as they can be written, and then `result.json`.

  Args:
    folder: The run folder.
    data: The data of the run.
    result: The content of `result.json`.
    predictions: [N] int32, of the test images.
    labels: [N] int32, their labels.
    say: Gets warnings.
  """
  per_class.write(folder, data.test.class_names, labels, predictions, data.train.labels, say)
  run_folder.write_json(folder / run_folder.RESULT, result)  # before the pictures, which may fail


def draw(
  folder: pathlib.Path,
  config: RunConfig,
  test: pipeline.Part,
  top1: float,
  predictions: np.ndarray,
  labels: np.ndarray,
  say: Callable[[str], None],
) -> None:
  """Draws curves, predictions and the confusion matrix; warns if one can't be drawn.

  Args:
    folder: The run folder, with its metrics.
    config: The config of the run.
    test: The evaluated part.
    top1: Accuracy in [0, 1].
    predictions: [N] int32.
    labels: [N] int32.
    say: Gets warnings.
  """
  start = pathlib.Path(config.weights).name
  origin = "random initialisation" if config.weights == "none" else start
  title = plots.line(f"{config.name}: {config.model} from {origin}, top-1 {top1:.2%}")
  with files.optional(CURVES, say):
    evaluated = "held-out images" if config.protocol == "select" else "test images"
    metrics_log.draw(folder / reporting.METRICS, folder / CURVES, title, evaluated)
  with files.optional(PREDICTIONS, say):
    indices = np.linspace(0, len(test) - 1, min(_SHOWN, len(test))).astype(int)
    images, truth = test.some(indices)
    names = test.class_names
    captions = [
      names[p] if p == label else f"!{names[p]} ({names[label]})"
      for p, label in zip(predictions[indices], truth, strict=True)
    ]
    heading = f"Predictions (with the label where it differs): {title}"
    plots.sheet(images, captions, folder / PREDICTIONS, heading)
  with files.optional(per_class.PICTURE, say):
    heading = f"{config.name}: top-1 {top1:.2%} on {phrases.counted(len(labels), 'image')}"
    per_class.draw(folder, test.class_names, labels, predictions, heading)


def summary(folder: str, result: dict[str, Any]) -> str:
  """Returns the summary of a finished run: its accuracy, warnings, and the run's files.

  Args:
    folder: The run folder, as the user wrote it.
    result: The content of `result.json`; results of earlier versions lack the means over classes.
  """
  steps = f"{result['steps']:,} steps"
  if "best_step" in result:
    steps = f"step {result['best_step']:,}, the best evaluation of {steps}"
  part, chosen = "images", ""
  if "num_val" in result:
    part = "test images"
    chosen = f" (top-1 on the {result['num_val']:,} validation images: {result['val_top1']:.2%})"
  margin = interval.in_brackets(result["top1"], result["num_test"])
  where = f"on {result['num_test']:,} {part}{margin}"
  lines = [f"Top-1 accuracy {result['top1']:.2%} {where} after {steps}{chosen}."]
  if "balanced_accuracy" in result and "macro_f1" in result:
    lines.append(
      f"Balanced accuracy {result['balanced_accuracy']:.2%}, macro F1 {result['macro_f1']:.2%}."
    )
  lines += [f"Left out: {number:,} {why}." for why, number in result["left_out"].items()]
  lines += [f"warning: {warning}" for warning in result["warnings"]]
  return "\n".join([*lines, *_listing(folder, result)])


def _listing(folder: str, result: dict[str, Any]) -> list[str]:
  """Returns a line for each file of a finished run, and one on files that are missing."""
  path = run_folder.open_folder(folder, create=False)
  present = {file: what for file, what in FILES.items() if (path / file).exists()}
  width = max(map(len, FILES))
  lines = [f"{folder}:" if present else f"{folder} holds none of the run's files."]
  lines += [f"  {file:<{width}}  {what}" for file, what in present.items()]
  if missing := [f for f in FILES if f not in present and f not in _OPTIONAL]:
    lines.append(f"Missing (not written, or deleted since): {', '.join(missing)}.")
  return lines
