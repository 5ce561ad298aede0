"""The features of a data set's training and test images, computed once and kept in the cache."""

import dataclasses
import functools
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from bit_jax.data import datasets, doubts, fewshot, opening, pipeline, resizing, stream
from bit_jax.inference import embedding, networks
from bit_jax.runtime import cache, paths
from bit_jax.weights import catalogue

RESIZE, CROP = 256, 224  # pixels, of big_vision's few-shot evaluator
_IN_CATALOGUE = {"imagenet1k": "imagenet2012"}  # labels there: the data set


@dataclasses.dataclass(frozen=True)
class Features:
  """The features of a data set, of the images that can be read.

  Attributes:
    train: [N', F] float32, of training images that subsets need.
    train_labels: [N] integer, of all training images, which subsets are drawn from.
    rows: [N] integer: the row in `train` of each of them, where it is needed.
    test: [M, F] float32.
    test_labels: [M] integer.
    class_names: The names of the classes.
    version: What identifies the data (`opening.Sources`).
    unreadable: Why the others can't be read, each with its name.
    warnings: Sentences, each on a possible mistake in the data.
  """

  train: np.ndarray
  train_labels: np.ndarray
  rows: np.ndarray
  test: np.ndarray
  test_labels: np.ndarray
  class_names: tuple[str, ...]
  version: str
  unreadable: list[str]
  warnings: list[str]

  @property
  def available(self) -> np.ndarray:
    """Returns the number of training images of each class."""
    return np.bincount(self.train_labels, minlength=len(self.class_names))


def open_set(reference: str, data_dir: str | None = None) -> opening.Opened:
  """Opens the data set of a name as in configs, or a folder, a CSV or an `.npz` file of images.

  Raises:
    UserError: It doesn't exist, or is faulty.
  """
  request = datasets.named(reference, "use the data set from another folder")
  return opening.open_set(dataclasses.replace(request, data_dir=data_dir))


def has_trained_on(network: networks.Network, data: opening.Opened, reference: str) -> bool:
  """Returns whether a network, a run's or a released one, was trained with this set's labels."""
  config: Mapping[str, Any] = network.config or {}
  if data.spec.name not in datasets.OWN:
    return _labels(data.spec) in map(_labels, _trained_on(network))
  if config.get("dataset") != data.spec.name:
    return False
  path = config.get("data_path")
  return isinstance(path, str) and paths.named(path).resolve() == paths.named(reference).resolve()


def _labels(spec: datasets.DatasetSpec) -> tuple[str, str]:
  """Returns what a set's labels are of: a task of VTAB-1k is a part of another set."""
  return (spec.tfds_name or spec.name).partition("/")[0], spec.label


def _trained_on(network: networks.Network) -> Iterator[datasets.DatasetSpec]:
  """Yields the known data sets that a network, or the checkpoint it started from, has seen."""
  config: Mapping[str, Any] = network.config or {}
  released = catalogue.of_file(network.file)
  if network.config is not None:
    released = catalogue.CATALOGUE.get(config.get("weights", ""))
  names = [config.get("dataset")]
  if released is not None:
    names += [_IN_CATALOGUE.get(released.labels, released.labels), f"vtab/{released.labels}"]
  for name in names:
    if name in datasets.NAMES and name not in datasets.OWN:
      yield datasets.find(name, "final")


def compute(
  network: networks.Network,
  data: opening.Opened,
  *,
  shots: Sequence[int] | None,
  seeds: Sequence[int],
  cropped: bool,
  batch_size: int,
  check: Callable[[np.ndarray, Sequence[str]], object] = lambda *_: None,
) -> Features:
  """Computes the features that few-shot subsets need, or reads them from the cache.

  Of sets that tfds prepared, whose images can all be read, only those of the subsets are computed.

  Args:
    network: The network.
    data: The data set.
    shots: Examples per class of the subsets; None: all images may be needed.
    seeds: Of the subsets.
    cropped: Whether images are resized to `RESIZE` and cropped to `CROP` pixels, the network's
      size, rather than prepared as in evaluation.
    batch_size: Images at once over all devices.
    check: Called before anything is computed, with the number of training images of each class and
      the names of the classes; raises a `UserError` if they are too few.

  Raises:
    UserError: The data set isn't prepared or is faulty, a device has too little memory, or another
      process computes the same features.
  """
  sources, spec = data.sources(), data.spec
  names, labels = sources.train.class_names, pipeline.read_labels(sources.train)
  check(np.bincount(labels, minlength=len(names)), names)
  needed = np.arange(len(labels))
  if sources.prepared and shots is not None:
    needed = _in_subsets(labels, names, shots, seeds)
  image_size = None if cropped else spec.kept_size(network.size)
  of = functools.partial(
    _computed, network, cropped=cropped, image_size=image_size, batch_size=batch_size
  )
  train = of("training", sources.train, needed)
  test_labels = pipeline.read_labels(sources.test)
  test = of("test", sources.test, np.arange(len(test_labels)))
  # Where only some are needed, all can be read.
  pool = train.indices if len(needed) == len(labels) else np.arange(len(labels))
  return Features(
    train=train.values,
    train_labels=labels[pool],
    rows=np.searchsorted(needed[train.indices], pool),
    test=test.values,
    test_labels=test_labels[test.indices],
    class_names=names,
    version=sources.version,
    unreadable=[*train.unreadable.values(), *test.unreadable.values()],
    warnings=doubts.warnings(
      {"training": sources.train, "test": sources.test},
      {"training": needed[train.indices], "test": test.indices},
    ),
  )


def _in_subsets(
  labels: np.ndarray, names: Sequence[str], shots: Sequence[int], seeds: Sequence[int]
) -> np.ndarray:
  """Returns the indices of the images in the largest possible subset of each seed, ascending."""
  least = np.bincount(labels, minlength=len(names)).min()
  largest = max((n for n in shots if n <= least), default=0)
  subsets = [fewshot.select(labels, largest, seed, names) for seed in seeds if largest]
  return np.unique(np.concatenate([np.arange(0), *subsets]))


def _computed(
  network: networks.Network,
  name: str,
  source: opening.Source,
  indices: np.ndarray,
  *,
  cropped: bool,
  image_size: tuple[int, int] | None,
  batch_size: int,
) -> embedding.Features:
  """Computes the features of some images of a part, or reads them from the cache.

  Args:
    network: As in `compute`.
    name: The part, in the text of the progress bar.
    source: The part.
    indices: [M] integer.
    cropped: As in `compute`.
    image_size: As in `embedding.features`.
    batch_size: As in `compute`.
  """
  images: stream.Source = stream.Chosen(source, indices)
  fingerprint = f"{source.fingerprint()} {hashlib.sha256(indices.tobytes()).hexdigest()}"
  if cropped:
    images, fingerprint = _Cropped(images), f"{fingerprint} cropped"
  key = f"{network.sha256} {network.size} {network.model.dtype} {batch_size} {fingerprint}"
  folder = cache.directory() / "features" / hashlib.sha256(key.encode()).hexdigest()[:32]
  with stream.progress(f"Features of the {name} images", len(indices)) as bar:
    return embedding.features(
      network,
      images,
      batch_size=batch_size,
      image_size=image_size,
      folder=folder,
      fingerprint=fingerprint,
      report=bar.update,
    )


class _Cropped:
  """Images as in big_vision's evaluator: a square of `RESIZE` pixels, of which the centre is left.

  The aspect ratio isn't kept.
  """

  def __init__(self, source: stream.Source):
    self._source = source

  def __len__(self) -> int:
    return len(self._source)

  def read(self, index: int) -> tuple[np.ndarray, int]:
    """Returns an image, [CROP, CROP, 3] uint8, and its label."""
    image, label = self._source.read(index)
    start = (RESIZE - CROP) // 2
    return resizing.resize(image, RESIZE)[start : start + CROP, start : start + CROP], label
