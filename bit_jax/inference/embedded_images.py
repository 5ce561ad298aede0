"""The images that `embed` computes features of, with their ids and labels."""

import dataclasses
import hashlib

import numpy as np

from bit_jax.data import datasets, opening, pipeline, stream
from bit_jax.inference import inputs


@dataclasses.dataclass(frozen=True)
class EmbeddedImages:
  """Images, none of which is read yet.

  Attributes:
    source: N images.
    ids: [N] paths as text, or indices of the examples in their part of a data set, int64.
    labels: [N] int32; None of images without classes.
    class_names: The names of the classes, in the order of their labels.
    image_size: As in `outputs.Forward.run`.
    fingerprint: A text that changes with the images or their order.
    remarks: Sentences on them for the user.
  """

  source: stream.Source
  ids: np.ndarray
  labels: np.ndarray | None
  class_names: tuple[str, ...]
  image_size: tuple[int, int] | None
  fingerprint: str
  remarks: tuple[str, ...] = ()


def of_files(found: inputs.Found, size: int) -> EmbeddedImages:
  """Returns image files without classes; their ids are their paths.

  Args:
    found: The files.
    size: Side in pixels of the square that they are resized to.
  """
  files = found.files
  return EmbeddedImages(
    source=files,
    ids=np.array(files.paths),
    labels=None,
    class_names=(),
    image_size=files.kept_size(size),
    fingerprint=files.fingerprint(),
    remarks=tuple(found.remarks()),
  )


def of_part(
  data: opening.Opened, selection: datasets.Selection, part: str = "test"
) -> EmbeddedImages:
  """Returns the examples of one part of a data set; image files have their paths as ids.

  Args:
    data: The data set.
    selection: Which examples are used, and at which size.
    part: 'test', 'train' or 'val'.

  Raises:
    UserError: The set doesn't exist or is faulty, or has no such part.
  """
  # Images that can't be read are left out when their turn comes.
  selection = dataclasses.replace(selection, on_bad_image="stop")
  chosen = pipeline.choose_part(data, selection, part)
  whole, used, spec = chosen.whole, chosen.used, data.spec
  digest = hashlib.sha256(used.tobytes()).hexdigest()
  left_out = tuple(f"{n:,} {why} are left out." for why, n in chosen.left_out.items())
  return EmbeddedImages(
    source=stream.Chosen(whole, used),
    ids=used if chosen.paths is None else np.array(chosen.paths),
    labels=pipeline.read_labels(whole)[used],
    class_names=whole.class_names,
    image_size=spec.kept_size(selection.test_size),
    fingerprint=f"{whole.fingerprint()} {digest}",
    remarks=(*chosen.warnings, *left_out),
  )
