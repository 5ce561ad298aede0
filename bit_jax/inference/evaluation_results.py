"""The results of evaluating a network: a table, a JSON object, and files."""

import dataclasses
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from bit_jax.data import pipeline
from bit_jax.inference import calibration
from bit_jax.inference.evaluation import Evaluation
from bit_jax.inference.networks import Network
from bit_jax.runs import interval, mistakes, per_class, run_folder
from bit_jax.runtime import files, phrases, plots

PREDICTIONS = "predictions.csv"
_LISTED = 30  # classes in the table
_PERCENT = ("top1", "top5", "balanced_accuracy", "macro_f1", "calibration_error")
_NAMES = {
  "loss": "loss",
  "top1": "top-1",
  "top5": "top-5",
  "balanced_accuracy": "balanced accuracy",
  "macro_f1": "macro F1",
  "calibration_error": "calibration error",
}


@dataclasses.dataclass(frozen=True)
class Results:
  """The outcome of evaluating a network on some images.

  Attributes:
    network: The network.
    size: Side in pixels of the square that images were resized to.
    title: A phrase that names the images.
    loaded: The images.
    evaluation: Predictions, and means over images.
  """

  network: Network
  size: int
  title: str
  loaded: pipeline.LoadedPart
  evaluation: Evaluation

  @property
  def class_names(self) -> tuple[str, ...]:
    """The names of all classes of the network."""
    return self.loaded.part.class_names

  def scores(self) -> dict[str, float]:
    """Returns the means over images and over classes, and the calibration error."""
    found = self.evaluation
    return {
      **found.means,
      **per_class.means(found.labels, found.predictions),
      "calibration_error": calibration.calibration_error(
        found.confidence, found.labels == found.predictions
      ),
    }

  def absent(self) -> list[str]:
    """Returns the classes of the network that no image has."""
    there = set(self.evaluation.labels.tolist())
    return [name for label, name in enumerate(self.class_names) if label not in there]

  def _totals_and_hits(self) -> np.ndarray:
    found = self.evaluation
    return per_class.totals_and_hits(found.labels, found.predictions, len(self.class_names))

  def table(self) -> Iterator[str]:
    """Yields the lines of a table for people."""
    found, network = self.evaluation, self.network
    count = len(found.labels)
    yield (
      f"{network.name} ({network.model.architecture.name}, {self.size} pixels, "
      f"{network.model.dtype.name}) on {self.title}: {phrases.counted(count, 'image')}"
    )
    confidence = f"{found.confidence.mean():.2%}"
    more = {
      "top1": interval.in_brackets(found.means["top1"], count),
      "calibration_error": f" ({calibration.BINS} bins; mean confidence {confidence})",
    }
    for name, value in self.scores().items():
      text = f"{value:.2%}" if name in _PERCENT else f"{value:.4f}"
      yield f"  {_NAMES[name]:<18} {text:>8}{more.get(name, '')}"
    yield from self._classes()
    if absent := self.absent():
      classes = phrases.counted(len(absent), "class", "classes")
      have = "has" if len(absent) == 1 else "have"
      yield f"{classes} of the network {have} no images here: {phrases.some(absent)}."

  def _classes(self) -> Iterator[str]:
    """Yields a table of the classes that have images; of many, those of lowest accuracy."""
    found = self.evaluation
    totals, hits = self._totals_and_hits()
    wrong = per_class.largest_confusions(found.labels, found.predictions, len(found.labels))
    most: dict[int, str] = {}
    for label, predicted, times in wrong.tolist():
      most.setdefault(label, f"{self.class_names[predicted]} ({times:,})")
    shown = np.flatnonzero(totals)
    yield ""
    if len(shown) > _LISTED:
      yield f"  the {_LISTED} classes of lowest accuracy; all are in {per_class.PER_CLASS}"
      shown = shown[np.argsort((hits / np.maximum(totals, 1))[shown], kind="stable")][:_LISTED]
    width = max(len("class"), *(len(plots.line(self.class_names[i])) for i in shown.tolist()))
    yield f"  {'class':<{width}}  {'images':>7}  {'top-1':>7}  most often confused with"
    for i in shown.tolist():
      name, share = plots.line(self.class_names[i]), hits[i] / totals[i]
      yield f"  {name:<{width}}  {totals[i]:>7,}  {share:>7.2%}  {most.get(i, '-')}"

  def as_json(self) -> dict[str, Any]:
    """Returns the results as a JSON object: those of `result.json` under the same names."""
    found, network = self.evaluation, self.network
    totals, hits = self._totals_and_hits().tolist()
    return {
      "network": network.name,
      "architecture": network.model.architecture.name,
      "sha256": network.sha256,
      "size": self.size,
      "dtype": network.model.dtype.name,
      "images": self.title,
      "data": self.loaded.version,
      "num_test": len(found.labels),
      **self.scores(),
      "mean_confidence": float(found.confidence.mean()),
      "classes": [
        {"class": name, "images": total, "top1": right / total if total else None}
        for name, total, right in zip(self.class_names, totals, hits, strict=True)
      ],
      "absent_classes": self.absent(),
      "left_out": self.loaded.left_out,
    }

  def write(self, folder: pathlib.Path, say: Callable[[str], None]) -> None:
    """Writes the tables and pictures; warns of those that can't be written."""
    found, names = self.evaluation, self.class_names
    outcome = found.labels, found.predictions
    per_class.write(folder, names, *outcome, None, say)
    images = self.loaded.paths
    with files.optional(PREDICTIONS, say), files.replacing(folder / PREDICTIONS) as temporary:
      everything = np.arange(len(found.labels))
      rows = mistakes.rows(everything, names, *outcome, found.confidence, images)
      run_folder.write_csv(temporary, rows)
    mistakes.write(folder, names, *outcome, found.confidence, images, say)
    top1 = f"top-1 {found.means['top1']:.2%}"
    name = (self.network.folder or pathlib.Path(self.network.name)).absolute().name
    with files.optional(per_class.PICTURE, say):
      count = phrases.counted(len(found.labels), "image")
      per_class.draw(folder, names, *outcome, f"{name}: {top1} on {count} ({self.title})")
    title = f"{name} on {self.title}: {top1}"
    mistakes.draw(folder, self.loaded.part, *outcome, found.confidence, title, say)

  def listing(self, folder: pathlib.Path) -> Iterator[str]:
    """Yields a line for each file that was written."""
    what = {
      PREDICTIONS: "every image with its label, prediction and confidence",
      mistakes.TABLE: f"the mistakes, most confident first. {mistakes.ADVICE}",
      mistakes.PICTURE: "the first of them",
      per_class.PER_CLASS: "accuracy of each class",
      per_class.CONFUSION: "what each class was predicted as",
      per_class.PICTURE: "the same as a picture",
    }
    yield f"{folder}:"
    width = max(map(len, what))
    for file, text in what.items():
      if (folder / file).exists():
        yield f"  {file:<{width}}  {text}"
