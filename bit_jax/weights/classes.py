"""Class names of the heads of checkpoints: those of released ones come with this package."""

import contextlib
import functools
import importlib.resources
import json
import os
import pathlib
from collections.abc import Iterator, Sequence

from bit_jax.data import vtab
from bit_jax.data.sources import class_naming
from bit_jax.runtime import json_text, paths
from bit_jax.weights import catalogue, checkpoints, timm_config

METADATA_KEY = "class_names"
SYNSETS = "imagenet1k synsets"  # in the asset, beside the names of data sets
_IMAGENET_21K = 21843  # Google's list of ImageNet-21k, as BiT uses it


def class_names(reference: str | os.PathLike[str], num_classes: int) -> tuple[str, ...]:
  """Returns the names of a checkpoint's classes, all different, one line each.

  The first of these that has `num_classes` names decides:

  1. a `.safetensors` file's own metadata: 'class_names', a list in JSON; or 'label_names' in timm's
     `config.json` beside it;
  2. a checkpoint of the catalogue, by its name or a file called like it: the data set that it was
     trained on, in the order of its head. ImageNet-21k and ILSVRC-2012 have the first WordNet
     lemma of each synset, the others the names of tensorflow-datasets;
  3. 21,843 classes: those of ImageNet-21k, as no other list has this length;
  4. 'class 0', 'class 1' and so on. An unknown file with 1000 classes gets these as well: they may
     not be ImageNet's, or in another order.

  Args:
    reference: A name of the catalogue, or the path of a file.
    num_classes: Outputs of its head.

  Raises:
    UserError: The file is a damaged `.safetensors`.
  """
  path = paths.named(os.fspath(reference))
  known = catalogue.named(os.fspath(reference))
  candidates = (
    *(_stated(path) if path.suffix == ".safetensors" and path.is_file() else []),
    *([_of(known.labels)] if known else []),
    *([_of("imagenet21k")] if num_classes == _IMAGENET_21K else []),
  )
  named = (names for names in candidates if len(names) == num_classes)
  return next(named, unnamed(num_classes))


def unnamed(num_classes: int) -> tuple[str, ...]:
  """Returns 'class 0', 'class 1' and so on, for a head whose classes are unknown."""
  return tuple(f"class {label}" for label in range(num_classes))


def other_names(class_names: Sequence[str]) -> dict[str, int]:
  """Returns {name: class} of further names that a head's classes go by in data sets.

  Those of ILSVRC-2012 are the WordNet synsets, such as 'n01440764', after which its folders are
  named. Unknown classes go by their numbers.

  Args:
    class_names: The names of all classes, in the order of the head.
  """
  names = tuple(class_names)
  others: tuple[str, ...] = ()
  if names == unnamed(len(names)):
    others = tuple(map(str, range(len(names))))
  elif names == _of("imagenet1k"):
    others = _listed()[SYNSETS]
  return {name: label for label, name in enumerate(others)}


def _stated(path: pathlib.Path) -> Iterator[tuple[str, ...]]:
  """Yields the usable class names in the metadata of a file and in timm's config, else ()."""
  with checkpoints.opened(path) as file:
    text = file.metadata.get(METADATA_KEY, "")
  with contextlib.suppress(ValueError):
    names = json_text.parse(text)
    if isinstance(names, list) and all(isinstance(n, str) for n in names):
      yield tuple(names) if class_naming.fault(names) is None else ()
  names = timm_config.read(path).label_names
  yield names if class_naming.fault(names) is None else ()


def _of(labels: str) -> tuple[str, ...]:
  """Returns the class names of a data set, as `Checkpoint.labels` names it."""
  derived = vtab.find(labels).class_names if labels in vtab.TASKS else None
  return derived or _listed()[labels]


@functools.cache
def _listed() -> dict[str, tuple[str, ...]]:
  asset = importlib.resources.files("bit_jax.weights") / "assets" / "class_names.json"
  contents = json.loads(asset.read_text(encoding="utf-8"))
  return {labels: tuple(names) for labels, names in contents.items()}
