"""The Python API: `bit_jax.load`, `bit_jax.fine_tune`, and what they return.

import bit_jax

tuned = bit_jax.fine_tune("~/photos", model="R14x0.5")
print(tuned.classifier.predict("cat.jpg")[0].class_name)
"""

import dataclasses
import functools
import math
import os
import pathlib
import warnings
from collections.abc import Iterator, Sequence
from typing import Any, Literal, TypeAlias

import jax
import ml_collections
import numpy as np

from bit_jax import run_config
from bit_jax.configs import base, folder, npz
from bit_jax.data import datasets, pipeline, stream
from bit_jax.data.sources import in_memory
from bit_jax.inference import (
  evaluated_data,
  evaluation,
  evaluation_results,
  given_images,
  inputs,
  networks,
  outputs,
  predictions,
)
from bit_jax.runs import description, metrics_log, per_class, reporting
from bit_jax.runtime import checks, config_flags, devices, errors, exits, paths
from bit_jax.training import fine_tuning

Images: TypeAlias = given_images.Images

_ON_BAD_IMAGE = ("stop", "skip")


@dataclasses.dataclass(frozen=True)
class Prediction:
  """The most probable classes of an image.

  Attributes:
    class_name: The most probable class.
    probability: Its probability, in [0, 1]: the softmax over all classes.
    label: Its place in `Classifier.class_names`.
    top: (class, probability) of the most probable classes, in falling order.
    path: The image file; None for an image in memory.
  """

  class_name: str
  probability: float
  label: int
  top: tuple[tuple[str, float], ...]
  path: str | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Evaluation:
  """The outcome of evaluating a network on labelled images, under the names of `result.json`.

  Attributes:
    top1: The share of images whose most probable class is their label.
    top5: The same for the five most probable classes; None for fewer than 100 classes.
    loss: The mean cross-entropy.
    balanced_accuracy: The mean accuracy of the classes that have images.
    macro_f1: The mean F1 of the classes.
    calibration_error: The expected calibration error, over 15 bins.
    per_class: {class: accuracy} of the classes that have images.
    confusion: [C, C] int64: images of each class (rows) that were predicted as each class.
    labels: [N] int32.
    predictions: [N] int32.
    confidence: [N] float32: the probability of each prediction.
    paths: N paths of the images; None where they have none.
  """

  top1: float
  top5: float | None
  loss: float
  balanced_accuracy: float
  macro_f1: float
  calibration_error: float
  per_class: dict[str, float] = dataclasses.field(repr=False)
  confusion: np.ndarray = dataclasses.field(repr=False)
  labels: np.ndarray = dataclasses.field(repr=False)
  predictions: np.ndarray = dataclasses.field(repr=False)
  confidence: np.ndarray = dataclasses.field(repr=False)
  paths: tuple[str, ...] | None = dataclasses.field(repr=False, default=None)


class Classifier:
  """A network that classifies images; `load` returns one.

  Images are prepared as in the evaluation of a run: resized to a square of `size` pixels. Those of
  one call that all have one size, not larger than this square, are resized exactly, and others to
  whole grey levels: so a small image may have slightly other results among larger ones.

  Attributes:
    network: Its parameters and where they come from.
  """

  def __init__(self, network: networks.Network, batch_size: int | None = None):
    """Takes a network, and how many images are computed at once, as in `load`."""
    self.network, self._chosen_batch_size = network, batch_size
    self._batch_size = outputs.BATCH_SIZE if batch_size is None else batch_size

  @property
  def class_names(self) -> tuple[str, ...]:
    """The names of the classes, in the order of the head."""
    return self.network.class_names

  @property
  def size(self) -> int:
    """Side in pixels of the square that images are resized to."""
    return self.network.size

  def __repr__(self) -> str:
    """Returns the name, the network, the number of classes and the size."""
    network = self.network
    return (
      f"Classifier({network.name!r}: {network.model.architecture.name}, {len(self.class_names)} "
      f"classes, {self.size} pixels)"
    )

  def predict(
    self, images: Images, *, top: int = 5, on_bad_image: Literal["stop", "skip"] = "stop"
  ) -> list[Prediction]:
    """Returns the most probable classes of each image, in order.

    Args:
      images: A file, a folder (images at any depth) or a pattern such as `photos/**/*.jpg`; a
        series of files; an array [h, w, 3] or [N, h, w, 3] uint8; an image of Pillow; or a
        series of arrays or of Pillow's images, of any sizes. A series may be any iterable.
      top: Classes in `Prediction.top`.
      on_bad_image: Images that can't be read 'stop' the call with their list, or are left out
        ('skip').

    Raises:
      UserError: A folder or a pattern has no images, or an image can't be read.
    """
    checks.whole("top", top, 1)
    checks.one_of("on_bad_image", on_bad_image, _ON_BAD_IMAGE)
    source = given_images.source(images)
    found, files = [], getattr(source, "paths", [None] * len(source))
    for batch in self._outputs(source, "Predicting", skip=on_bad_image == "skip"):
      rows = zip(batch.indices.tolist(), *predictions.top(batch, top), strict=True)
      for index, labels, probabilities in rows:
        names = [self.class_names[label] for label in labels.tolist()]
        pairs = tuple(zip(names, probabilities.tolist(), strict=True))
        found.append(Prediction(*pairs[0], int(labels[0]), pairs, files[index]))
    return found

  def features(
    self, images: Images, *, on_bad_image: Literal["stop", "skip"] = "stop"
  ) -> np.ndarray:
    """Returns the features of each image, [N, F] float32: the pre-logits, which the head takes.

    Args:
      images: As for `predict`.
      on_bad_image: Likewise; without images that are left out, the rows are those of the others.

    Raises:
      UserError: A folder or a pattern has no images, or an image can't be read.
    """
    checks.one_of("on_bad_image", on_bad_image, _ON_BAD_IMAGE)
    skip = on_bad_image == "skip"
    batches = self._outputs(given_images.source(images), "Computing features", skip=skip)
    found = [batch.features for batch in batches]
    width = self.network.model.architecture.num_features
    return np.concatenate([np.empty((0, width), np.float32), *found])

  def evaluate(
    self,
    images: Images | None = None,
    labels: in_memory.Labels | None = None,
    *,
    part: str | None = None,
    on_bad_image: Literal["stop", "skip"] = "stop",
  ) -> Evaluation:
    """Evaluates the network on labelled images; each is used once.

    Args:
      images: A folder of `<class>/*` or `<split>/<class>/*`, a CSV or an `.npz` file, whose classes
        are matched by name; with `labels`, images as for `predict`. None: a run's own images.
      labels: [N] places in `class_names`, or class names.
      part: 'test', 'train' or 'val' of images that have parts; None: test.
      on_bad_image: Files that can't be read 'stop' the call, or are left out ('skip').

    Raises:
      UserError: There are no such images, one can't be read, or a class is unknown.
    """
    checks.one_of("on_bad_image", on_bad_image, _ON_BAD_IMAGE)
    skip = on_bad_image == "skip"
    if labels is None:
      loaded, remarks, batch_size = self._own_or_at_path(images, part, skip=skip)
    elif images is None or part is not None:
      raise errors.UserError("labels go with images, and part with a folder, a file or a run.")
    else:
      classes, batch_size = self.class_names, self._batch_size
      loaded, remarks = given_images.labelled(images, labels, classes, self.size, skip=skip)
    for text in remarks:
      warnings.warn(text, stacklevel=2)
    self.__dict__.pop("_forward", None)  # or the parameters would be on the devices twice
    found = evaluation.evaluate_part(
      self.network.model, self.network.params, self.size, loaded, batch_size
    )
    return _evaluation(self.network, loaded, found)

  def _own_or_at_path(
    self, images: Images | None, part: str | None, *, skip: bool
  ) -> tuple[pipeline.LoadedPart, list[str], int]:
    """Returns images that have labels, remarks on them, and the batch size to evaluate them at."""
    network = self.network
    if images is not None and not isinstance(images, str | os.PathLike):
      raise errors.UserError("Images in memory and lists of paths need labels.")
    if images is None and network.config is None:
      raise errors.UserError(
        f"{network.name} is a checkpoint, which has no images of its own: give a folder, or images "
        f"and labels."
      )
    path = None if images is None else os.fspath(images)
    chosen = evaluated_data.choose(network, split=part, path=path)
    loaded, unreadable = chosen.load()
    if not skip:
      total = len(loaded.part) + len(unreadable)
      stream.require_readable(unreadable, total, given_images.ADVICE)
    remarks = [*loaded.warnings, *unreadable]
    if trained := evaluated_data.trained_on(network, chosen):
      remarks.append(trained)
    return loaded, remarks, self._chosen_batch_size or chosen.batch_size

  def _outputs(
    self, source: "inputs.Files | in_memory.Pictures", what: str, *, skip: bool = False
  ) -> Iterator[outputs.Outputs]:
    """Yields the outputs of all images; raises a `UserError` on unreadable ones unless skipped."""
    unreadable: dict[int, str] = {}
    with stream.progress(what, len(source), hidden=len(source) <= self._batch_size) as bar:
      yield from self._forward.run(
        source, unreadable, image_size=source.kept_size(self.size), report=bar.update
      )
    if not skip:
      stream.require_readable(list(unreadable.values()), len(source), given_images.ADVICE)
    for reason in unreadable.values():
      warnings.warn(reason, stacklevel=3)

  @functools.cached_property
  def _forward(self) -> outputs.Forward:
    return outputs.Forward(self.network, self._batch_size)


def _evaluation(
  network: networks.Network, loaded: pipeline.LoadedPart, found: evaluation.Evaluation
) -> Evaluation:
  """Returns the outcome of an evaluation as the API has it."""
  results = evaluation_results.Results(network, network.size, "", loaded, found)
  confusion = per_class.confusion(found.labels, found.predictions, len(network.class_names))
  totals = confusion.sum(axis=1)
  shares = confusion.diagonal() / np.maximum(totals, 1)
  of_classes = zip(network.class_names, shares, totals, strict=True)
  scores: dict[str, Any] = {"top5": None, **results.scores()}
  return Evaluation(
    **scores,
    per_class={name: float(share) for name, share, total in of_classes if total},
    confusion=confusion,
    labels=found.labels,
    predictions=found.predictions,
    confidence=found.confidence,
    paths=None if loaded.paths is None else tuple(loaded.paths),
  )


def load(
  reference: in_memory.Path,
  *,
  size: int | None = None,
  dtype: str = "auto",
  batch_size: int | None = None,
) -> Classifier:
  """Loads a network with its head.

  Args:
    reference: A run folder, a checkpoint file, or the name of a released checkpoint, which is
      downloaded unless it is in the cache. 'R14x0.5-CIFAR100' comes with the package.
    size: Side in pixels of the square that images are resized to; None: the run's, or that of the
      checkpoint's training.
    dtype: Of the computation: 'float32', 'bfloat16' or 'auto', the run's, by default bfloat16 on
      accelerators that have it natively and float32 elsewhere.
    batch_size: Images at once over all devices; fewer if they don't fit. It changes no prediction.
      None: 64, and to evaluate a run's own images as many as the run did.

  Raises:
    UserError: It doesn't exist, is damaged, is an unfinished run, or has no head.
  """
  for name, value in (("size", size), ("batch_size", batch_size)):
    if value is not None:
      checks.whole(name, value, 1)
  network = networks.load(os.fspath(reference), size=size, dtype=dtype)
  for text in network.remarks:
    warnings.warn(text, stacklevel=2)
  return Classifier(network, batch_size)


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

  @functools.cached_property
  def classifier(self) -> Classifier:
    """The fine-tuned network, loaded from the run folder."""
    return load(self.folder)

  def history(self, kind: str = "train") -> dict[str, list[float]]:
    """Returns the logged numbers by name: 'step', 'loss', 'top1' and more, a list of each.

    All lists have the length of 'step'; a number that a row doesn't have is NaN.

    Args:
      kind: 'train'; 'eval', of the test images; or 'val', of a validation part.
    """
    rows = [r for r in metrics_log.read(self.folder / reporting.METRICS)[0] if r["kind"] == kind]
    names = dict.fromkeys(name for row in rows for name in row if name != "kind")
    return {name: [row.get(name, math.nan) for row in rows] for name in names}


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
  if workdir is not None:
    paths.named(os.fspath(workdir))  # a mistake is reported before data is scanned
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
    result = fine_tuning.run(config, data, where)
  except exits.Interrupted as e:
    raise KeyboardInterrupt(str(e)) from None
  return FineTuned(result, paths.named(where).absolute(), config)


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
  if isinstance(images, str):
    named = datasets.named(images, "call fine_tune in another folder")
    if named.path is None:
      request = base.get_config(dataset=named.name)
      request.name = named.name.replace("/", "-")
      return request
  path = os.fspath(images)
  config = {"npz": npz, "folder": folder}[datasets.kind_of(path)]
  return config.get_config(f"path={path}")


def _plain(value: Any) -> Any:
  """Returns numpy's numbers as Python's, and paths as texts."""
  if isinstance(value, np.generic):
    return value.item()
  return os.fspath(value) if isinstance(value, os.PathLike) else value
