"""Class names of the heads of checkpoints: those of released ones come with this package."""

import functools
import importlib.resources
import json
import os
import pathlib

from bit_jax.data import vtab
from bit_jax.weights import catalogue

_IMAGENET_21K = 21843  # Google's list of ImageNet-21k, which BiT uses; others have another length


def class_names(reference: str | os.PathLike[str], num_classes: int) -> tuple[str, ...]:
  """Returns the names of a checkpoint's classes, all different, one line each.

  A checkpoint of the catalogue, by its name or a file called like it, has those of the data set
  that it was trained on, in the order of its head: ImageNet-21k and ILSVRC-2012 (the first WordNet
  lemma of each synset), or the names of tensorflow-datasets. Any other file with 21,843 outputs
  has those of ImageNet-21k, as no other list of classes has this length. The rest is unknown, a
  file with 1000 outputs as well, and gets 'class 0', 'class 1' and so on.

  Args:
    reference: A name of the catalogue, or the path of a file, which isn't read.
    num_classes: Outputs of its head.

  Returns:
    `num_classes` names.
  """
  name = pathlib.Path(reference).name.removesuffix(".npz")
  known = catalogue.CATALOGUE.get(name)
  labels = known.labels if known else "imagenet21k" if num_classes == _IMAGENET_21K else None
  names = _of(labels) if labels else ()
  return names if len(names) == num_classes else unnamed(num_classes)


def unnamed(num_classes: int) -> tuple[str, ...]:
  """Returns 'class 0', 'class 1' and so on, for a head whose classes are unknown."""
  return tuple(f"class {label}" for label in range(num_classes))


def _of(labels: str) -> tuple[str, ...]:
  """Returns the class names of a data set, as `Checkpoint.labels` names it."""
  derived = vtab.find(labels).class_names if labels in vtab.TASKS else None
  return derived or _listed()[labels]


@functools.cache
def _listed() -> dict[str, tuple[str, ...]]:
  asset = importlib.resources.files("bit_jax.weights") / "assets" / "class_names.json"
  contents = json.loads(asset.read_text(encoding="utf-8"))
  return {labels: tuple(names) for labels, names in contents.items()}
