"""The images that a program gives: files, folders, arrays and Pillow's images, also with labels."""

import dataclasses
import os
from collections.abc import Iterable
from typing import TypeAlias

import numpy as np
from PIL import Image

from bit_jax.data import pipeline, stream
from bit_jax.data.sources import in_memory
from bit_jax.inference import class_matching, inputs
from bit_jax.runtime import errors, paths

Images: TypeAlias = (
  in_memory.Path | Image.Image | np.ndarray | Iterable[np.ndarray | Image.Image | in_memory.Path]
)
ADVICE = "with on_bad_image='skip'."  # on images that can't be read


def source(images: Images) -> inputs.Files | in_memory.Pictures:
  """Returns images as a source in which every label is 0.

  Args:
    images: As for `bit_jax.Classifier.predict`.

  Raises:
    UserError: A folder or a pattern has no images, or the images have another form.
  """
  if isinstance(images, str | os.PathLike):
    found = inputs.find([os.fspath(images)])
    if found.faults:
      raise errors.UserError(" ".join(found.faults))
    return found.files
  if not isinstance(images, np.ndarray | Image.Image):
    if not isinstance(images, Iterable):
      raise errors.UserError(f"Images must be files, arrays or images of Pillow, not {images!r}.")
    images = list(images)
    texts = [os.fspath(image) for image in images if isinstance(image, str | os.PathLike)]
    if texts and len(texts) < len(images):
      raise errors.UserError("Give all images as paths, or all as arrays or images of Pillow.")
    if texts:
      return inputs.Files(tuple(map(paths.expanded, texts)))
  return in_memory.pictures(images)


def labelled(
  images: Images,
  labels: in_memory.Labels,
  class_names: tuple[str, ...],
  size: int,
  *,
  skip: bool,
) -> tuple[pipeline.LoadedPart, list[str]]:
  """Returns images with labels as a streamed part of a data set.

  Args:
    images: N images, as for `source`.
    labels: [N] places in `class_names`, or class names.
    class_names: The classes of a network.
    size: Side in pixels of the square that images are resized to.
    skip: Whether files that can't be read are left out.

  Returns:
    The part, and why files are left out.

  Raises:
    UserError: There are no images or not as many labels, a label is no class, or files can't be
      read.
  """
  whole = source(images)
  if len(whole) != len(labels):
    raise errors.UserError(f"There are {len(whole)} images but {len(labels)} labels.")
  if not len(whole):
    raise errors.UserError("There are no images to evaluate.")
  numbers = _numbers(labels, class_names)
  paths = whole.paths if isinstance(whole, inputs.Files) else None
  bad = {} if paths is None else stream.unreadable(whole, "Checking the images")
  if not skip:
    stream.require_readable(list(bad.values()), len(whole), ADVICE)
  stream.require_some_readable(bad, len(whole))
  kept = np.setdiff1d(np.arange(len(whole)), list(bad))
  image_size = whole.kept_size(size)
  part = pipeline.Part(
    source=_Labelled(stream.Chosen(whole, kept), numbers[kept]),
    size=size if image_size is None else None,
    class_names=class_names,
    examples=None,
    labels=numbers[kept],
  )
  loaded = pipeline.LoadedPart(
    part=part,
    image_size=image_size or (size, size),
    version="",
    left_out={},
    warnings=[],
    paths=None if paths is None else [paths[i] for i in kept.tolist()],
  )
  return loaded, list(bad.values())


def _numbers(labels: in_memory.Labels, class_names: tuple[str, ...]) -> np.ndarray:
  """Returns labels as places in `class_names`, [N] int32."""
  given = in_memory.plain(labels)
  if given.dtype.kind == "U":
    names, places = np.unique(given, return_inverse=True)
    return class_matching.match(names.tolist(), class_names, "labels")[places]
  if given.ndim != 1 or given.dtype.kind not in "iu":
    raise errors.UserError(
      f"labels must be [N] whole numbers or class names, not {list(given.shape)} {given.dtype}."
    )
  if given.min() < 0 or given.max() >= len(class_names):
    raise errors.UserError(
      f"labels must be from 0 to {len(class_names) - 1}, places in class_names, but go from "
      f"{given.min()} to {given.max()}."
    )
  return given.astype(np.int32)


@dataclasses.dataclass(frozen=True)
class _Labelled:
  """Images with labels; a `stream.Source`."""

  source: stream.Source
  labels: np.ndarray

  def __len__(self) -> int:
    return len(self.labels)

  def read(self, index: int) -> tuple[np.ndarray, int]:
    return self.source.read(index)[0], int(self.labels[index])
