"""Labelled images of a program, written to a file that a run reads: an npz file or a CSV.

The file is in the cache directory and named after its content. So the same images give the same
run, which can be resumed, and evaluated by other programs.
"""

import csv
import dataclasses
import hashlib
import io
import itertools
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from PIL import Image

from bit_jax.data import datasets, fewshot
from bit_jax.data import images as decoding
from bit_jax.data.sources import arrays, class_naming, folder
from bit_jax.runtime import cache, errors, files, paths, phrases

Path: TypeAlias = str | os.PathLike[str]
Images: TypeAlias = np.ndarray | Sequence[np.ndarray | Image.Image | Path]
Labels: TypeAlias = np.ndarray | Sequence[int] | Sequence[str]

_FOLDER = "images"  # below the cache directory


def written(
  train: tuple[Images, Labels],
  test: tuple[Images, Labels] | None,
  class_names: Sequence[str] | None,
) -> pathlib.Path:
  """Writes images and labels to a file, unless it exists.

  Args:
    train: Images, as an array or a sequence of arrays or of Pillow's images, all of one size and
      uint8, or as a sequence of paths; and a label of each, a number from 0 or a class name.
    test: The evaluated ones likewise; None: a fifth of each class of `train`, always the same one.
    class_names: The names of the classes, in the order of numeric labels; None: the labels.

  Returns:
    An npz file with the arrays, or a CSV with the paths.

  Raises:
    UserError: Images or labels have another form, or there is no cache directory.
  """
  given = {"train": train, **({} if test is None else {"test": test})}
  for part, (of_part, labels) in given.items():
    if len(of_part) != len(labels):
      raise errors.UserError(f"There are {len(of_part)} {part} images but {len(labels)} labels.")
    if not len(of_part):
      raise errors.UserError(f"There are no {part} images.")
  images = {part: of_part for part, (of_part, _) in given.items()}
  numbers = {part: plain(labels) for part, (_, labels) in given.items()}
  names = None if class_names is None else tuple(class_names)
  if names is None and numbers["train"].dtype.kind == "U":
    names = class_naming.in_order(set(numbers["train"].tolist()))
  if names is not None:
    numbers = {part: _numbers(labels, names) for part, labels in numbers.items()}
  kinds = {
    isinstance(image, str | os.PathLike)
    for of_part in images.values()
    for image in (of_part[:1] if isinstance(of_part, np.ndarray) else of_part)
  }
  if len(kinds) > 1:
    raise errors.UserError("Give all images as paths, or all as arrays or images of Pillow.")
  return (_csv if True in kinds else _npz)(images, numbers, names)


@dataclasses.dataclass(frozen=True, eq=False)
class Pictures:
  """Images of a program, of any sizes; a `stream.Source` in which every label is 0.

  Attributes:
    images: N arrays, [h, w, 3] uint8.
  """

  images: Sequence[np.ndarray]

  def __len__(self) -> int:
    """Returns N."""
    return len(self.images)

  def read(self, index: int) -> tuple[np.ndarray, int]:
    """Returns image `index`, and 0."""
    return self.images[index], 0

  def kept_size(self, side: int) -> tuple[int, int] | None:
    """Returns `datasets.kept_size` of the images."""
    return datasets.kept_size(((i.shape[0], i.shape[1]) for i in self.images), side)


def pictures(images: Image.Image | Images) -> Pictures:
  """Returns images as a source.

  Args:
    images: uint8: an array [h, w, 3] or grey [h, w], or [N, h, w, 3] or grey [N, h, w] where w is
      neither 1 nor 3; an image of Pillow; or a sequence of these, an image each.

  Raises:
    UserError: An array has another form.
  """
  if isinstance(images, Image.Image):
    images = [images]
  if isinstance(images, np.ndarray):
    one = images.ndim == 2 or (images.ndim == 3 and images.shape[-1] in (1, 3))
    images = images[None] if one else images
    if images.ndim in (3, 4) and images.dtype == np.uint8 and images.shape[-1] in (1, 3):
      images = arrays.as_rgb(images)  # at once
  return Pictures([_colour(pixels(image)) for image in images])


def _colour(image: np.ndarray) -> np.ndarray:
  """Returns an image as [h, w, 3] uint8."""
  wrong = image.dtype != np.uint8 or image.ndim not in (2, 3) or 0 in image.shape
  if wrong or (image.ndim == 3 and image.shape[-1] not in (1, 3)):
    raise errors.UserError(
      f"An image in memory must be [h, w, 3] or [h, w] uint8, 0 to 255, not {list(image.shape)} "
      f"{image.dtype}."
    )
  found: np.ndarray = arrays.as_rgb(image[None])[0]
  return found


def pixels(image: Any) -> np.ndarray:
  """Returns an array as it is, and an image of Pillow as [h, w, 3] uint8.

  Raises:
    Unreadable: It was opened from a file that is damaged.
  """
  return decoding.pixels(image) if isinstance(image, Image.Image) else np.asarray(image)


def stacked(images: Sequence[Any]) -> np.ndarray:
  """Returns N >= 1 arrays or images of Pillow of one size as one array, [N, h, w, 3] or [N, h, w].

  Raises:
    UserError: Their sizes differ.
  """
  found = [pixels(image) for image in images]
  if len(shapes := sorted({image.shape for image in found})) > 1:
    raise errors.UserError(
      f"Images in memory must have one size, but {shapes[0]} and {shapes[-1]} were found: resize "
      f"them, or save them as files and give the paths."
    )
  return np.stack(found)


def plain(labels: Labels) -> np.ndarray:
  """Returns labels as an array, of dtype `str_` where they are texts."""
  found = np.asarray(labels)
  is_text = found.dtype.kind == "O" and all(isinstance(label, str) for label in found)
  return found.astype(np.str_) if is_text else found


def _numbers(labels: np.ndarray, names: tuple[str, ...]) -> np.ndarray:
  """Returns labels that are class names as numbers, others unchanged."""
  if labels.dtype.kind != "U":
    return labels
  places = {name: i for i, name in enumerate(names)}
  if unknown := sorted(set(labels.tolist()) - places.keys()):
    raise errors.UserError(
      f"Labels that are not class names: {phrases.some(unknown)}. The class names are "
      f"{phrases.some(names)}."
    )
  return np.array([places[label] for label in labels.tolist()], np.int32)


def _npz(
  images: Mapping[str, Images], labels: Mapping[str, np.ndarray], names: tuple[str, ...] | None
) -> pathlib.Path:
  held: dict[str, Any] = {} if names is None else {"class_names": np.array(names)}
  for part, of_part in images.items():
    held[f"{part}_images"] = of_part if isinstance(of_part, np.ndarray) else stacked(of_part)
    held[f"{part}_labels"] = labels[part]
  if "test" not in images:
    whole = {kind: held[f"train_{kind}"] for kind in ("images", "labels")}
    arrays.require_usable(held | {f"test_{kind}": array for kind, array in whole.items()})
    parts = dict(zip(("train", "test"), _fifth(whole["labels"]), strict=True))
    held |= {f"{part}_{kind}": whole[kind][i] for part, i in parts.items() for kind in whole}
  arrays.require_usable(held)
  digest = hashlib.sha256()
  for key in sorted(held):
    digest.update(f"{key} {held[key].shape} {held[key].dtype.str} ".encode())
    digest.update(held[key].tobytes())
  path = _path(f"{digest.hexdigest()[:16]}.npz")
  if not path.exists():
    with files.replacing(path) as temporary, temporary.open("wb") as file:
      np.savez(file, **held)
  return path


def _fifth(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Returns the indices of four fifths of each class, and of the held-out fifth."""
  flat = labels.reshape(-1).astype(np.int64)
  counts = folder.quotas(flat, int(flat.max()) + 1)
  if not counts.any():
    raise errors.UserError(
      "No class has 2 images, so none can be held out for evaluation: add images, or give test=."
    )
  return fewshot.hold_out(flat, counts, arrays.SPLIT_SEED)


def _csv(
  images: Mapping[str, Images], labels: Mapping[str, np.ndarray], names: tuple[str, ...] | None
) -> pathlib.Path:
  rows: list[tuple[str, str, str]] = []
  for part, of_part in images.items():
    texts = [os.fspath(path) for path in of_part if isinstance(path, str | os.PathLike)]
    listed = [str(paths.named(text).absolute()) for text in texts]
    if missing := [path for path in listed if not os.path.isfile(path)]:
      raise errors.UserError(f"Files not found: {phrases.some(missing)}.")
    of_class = [_name(label, names) for label in labels[part].tolist()]
    rows += zip(listed, of_class, itertools.repeat(part))
  columns = 3 if "test" in images else 2  # without a split, reading the CSV holds out a fifth
  text = io.StringIO(newline="")
  csv.writer(text).writerows(row[:columns] for row in (("path", "label", "split"), *rows))
  content = text.getvalue().encode("utf-8", "surrogateescape")
  path = _path(f"images-{hashlib.sha256(content).hexdigest()[:16]}.csv")
  if not path.exists():
    with files.replacing(path) as temporary:
      temporary.write_bytes(content)
  return path


def _name(label: Any, names: tuple[str, ...] | None) -> str:
  if not isinstance(label, int):
    raise errors.UserError(f"A label must be a whole number or a class name, not {label!r}.")
  if names is None:
    return str(label)
  if not 0 <= label < len(names):
    raise errors.UserError(f"The label {label} has none of the {len(names)} class names.")
  return names[label]


def _path(name: str) -> pathlib.Path:
  """Returns the path of a file in the cache, whose folder exists."""
  path = cache.directory() / _FOLDER / name
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
  except OSError as e:
    raise errors.UserError(
      f"The folder {path.parent} can't be written ({e.strerror}): set "
      f"${cache.ENVIRONMENT_VARIABLE} to a writable folder."
    ) from e
  return path
