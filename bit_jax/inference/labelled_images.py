"""Labelled images at a path, or of a data set, with their labels as classes of a network."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from bit_jax.data import datasets, opening
from bit_jax.data.sources import arrays, class_naming, folder, scan
from bit_jax.inference import class_matching
from bit_jax.runtime import errors, paths, phrases
from bit_jax.weights.classes import unnamed

_ASSUMED = (
  "The network doesn't state its classes. They are taken to be those of {}, in its order ({}): if "
  "they are others, or in another order, the accuracy is meaningless."
)
_PARTS = ("test", "val", "train")  # in the order in which one is chosen


@dataclasses.dataclass(frozen=True)
class Classes:
  """The classes of a network.

  Attributes:
    names: C names, in the order of the head.
    other_names: {name: class} of further names that they go by.
  """

  names: tuple[str, ...]
  other_names: Mapping[str, int]


class AtPath(opening.Opened):
  """Labelled images of a folder, a CSV or an npz file, as the test part of a data set.

  A folder needs no training images. Where it has parts, one of them is taken.

  Attributes:
    part: 'test', 'val' or 'train'; None where the images have no parts, and all are taken.
  """

  def __init__(
    self,
    path: str,
    part: str | None,
    classes: Classes | None,
    found: scan.Scan | None = None,
  ):
    """Opens the images; of files, only headers are read.

    Args:
      path: A folder or CSV as in `folder.find`, or an `.npz` file with `test_images` and
        `test_labels`, or with another part.
      part: The wanted part; None: test where there is one, else val, else all.
      classes: The classes of the network, which those of the images are matched with; None: the
        images keep their own.
      found: What `folder.find` has returned for the path; None: it is scanned here.

    Raises:
      UserError: The path can't be used, has no such part, or has a class that the network hasn't.
    """
    self.part: str | None
    if datasets.kind_of(path) == "npz":
      self.part, examples = arrays.read_npz_part(path, part)
      present = np.unique(examples.labels)
      names = [examples.class_names[i] for i in present.tolist()]
      classes = classes or Classes(tuple(names), {})
      new = class_matching.match(names, classes.names, path, classes.other_names)
      labels = new[np.searchsorted(present, examples.labels)]
      self._source: arrays.Examples | folder.Files
      self._source = arrays.Examples(examples.images, labels, classes.names)
      image_size, fixed_size = examples.images.shape[1:3], True
    else:
      found = found or folder.find(path)
      for fault in scan.faults(found, to_train=False):
        raise errors.UserError(fault)
      self.part = self._taken(found, part)
      if self.part is not None:
        found = found.only(self.part)
      names = list(class_naming.in_order({e.label for e in found.entries}))
      classes = classes or Classes(tuple(names), {})
      new = class_matching.match(names, classes.names, found.source, classes.other_names)
      numbers = dict(zip(names, new.tolist(), strict=True))
      labels = np.array([numbers[e.label] for e in found.entries], np.int32)
      self._source = folder.files(found, classes.names, labels)
      image_size, fixed_size = self._source.common_size()
      self.origin = " ".join([*found.notes, *folder.left_out(found)]) or None
      self.warnings = tuple(found.warnings)
    self.spec = datasets.DatasetSpec(
      name=paths.named(path).name,
      protocol="final",
      train_split="",
      test_split=self.part or "",
      num_train=0,
      num_test=len(self._source),
      num_classes=len(classes.names),
      image_size=image_size,
      fixed_size=fixed_size,
      class_names=classes.names,
    )

  @staticmethod
  def _taken(found: scan.Scan, part: str | None) -> str | None:
    """Returns the part of a scan that is taken, None if it has none."""
    there = [p for p in _PARTS if any(e.part == p for e in found.entries)]
    if part is None:
      return there[0] if there else None
    if part in there:
      return part
    has = f"has the parts {', '.join(there)}" if there else "has no parts: leave out --split"
    raise errors.UserError(f"{found.source} has no {part} part; it {has}.")

  def sources(self, *, test_only: bool = False) -> opening.Sources:
    """Returns the images as every part."""
    source, listing = self._source, None
    if isinstance(source, folder.Files):
      names = (source.class_names[label] for label in source.labels.tolist())
      listing = tuple((path, name, "test") for path, name in zip(source.paths, names, strict=True))
    return opening.Sources(source, source, self.spec.name, listing=listing)


class OfDataSet(opening.Opened):
  """A data set whose labels are changed to the classes of a network.

  Where those are unknown ('class 0' and so on), they are taken to be the data set's, in its order.
  """

  def __init__(self, data: opening.Opened, classes: Classes):
    """Takes the data set; its classes are matched when its sources are opened."""
    self._data, self._classes = data, classes
    self.spec = dataclasses.replace(data.spec, num_classes=len(classes.names))
    self.origin, self.warnings = data.origin, data.warnings

  def sources(self, *, test_only: bool = False) -> opening.Sources:
    """Returns the parts of the set, with the network's classes.

    Raises:
      UserError: As for the data set; or it has classes that the network hasn't.
    """
    sources = self._data.sources(test_only=test_only)
    spec, names = self._data.spec, self._classes.names
    self.spec = dataclasses.replace(spec, num_classes=len(names))
    found = sources.test.class_names
    if found == names:
      return sources
    if names == unnamed(len(names)):
      if len(found) == len(names):
        self.warnings = (*self._data.warnings, _ASSUMED.format(spec.name, phrases.some(found)))
        return sources
      raise errors.UserError(
        f"The network has {len(names):,} classes, which have no names, and {spec.name} has "
        f"{len(found):,}: it can't be evaluated on them."
      )
    new = class_matching.match(found, names, spec.name, self._classes.other_names)
    return dataclasses.replace(
      sources,
      train=_relabelled(sources.train, new, names),
      test=_relabelled(sources.test, new, names),
      val=None if sources.val is None else _relabelled(sources.val, new, names),
    )


def _relabelled(
  source: opening.Source, new: np.ndarray, class_names: tuple[str, ...]
) -> opening.Source:
  """Returns a source with label i changed to `new[i]`, a class of `class_names`."""
  if isinstance(source, arrays.Examples):
    return arrays.Examples(source.images, new[source.labels], class_names)
  if isinstance(source, folder.Files):
    return dataclasses.replace(source, labels=new[source.labels], class_names=class_names)
  return _Relabelled(source, new, class_names)


class _Relabelled:
  """A split of tensorflow-datasets with other labels; an `opening.Source`."""

  def __init__(self, source: Any, new: np.ndarray, class_names: tuple[str, ...]):
    self._source, self._new, self.class_names = source, new, class_names

  def __len__(self) -> int:
    return len(self._source)

  def read(self, index: int) -> tuple[np.ndarray, int]:
    image, label = self._source.read(index)
    return image, int(self._new[label])

  def read_labels(self) -> np.ndarray:
    labels: np.ndarray = self._new[self._source.read_labels()]
    return labels

  def read_sizes(self) -> np.ndarray:
    sizes: np.ndarray = self._source.read_sizes()
    return sizes

  def fingerprint(self) -> str:
    return f"{self._source.fingerprint()} {self._new.tolist()}"

  def load(self, size: int | None) -> arrays.Examples:
    examples: arrays.Examples = self._source.load(size)
    return arrays.Examples(examples.images, self._new[examples.labels], self.class_names)
