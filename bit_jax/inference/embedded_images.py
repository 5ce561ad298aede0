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
    image_size: (height, width) of small images of one size, which the devices resize
      (`outputs.Forward.run`); None of others.
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


def of_files(found: inputs.Found) -> EmbeddedImages:
  """Returns image files without classes; their ids are their paths."""
  files, remarks = found.files, tuple(found.remarks())
  return EmbeddedImages(files, np.array(files.paths), None, (), None, files.fingerprint(), remarks)


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
  resized_here = spec.host_size(selection.test_size) is not None
  digest = hashlib.sha256(used.tobytes()).hexdigest()
  left_out = tuple(f"{n:,} {why} are left out." for why, n in chosen.left_out.items())
  return EmbeddedImages(
    source=stream.Chosen(whole, used),
    ids=used if chosen.paths is None else np.array(chosen.paths),
    labels=pipeline.read_labels(whole)[used],
    class_names=whole.class_names,
    image_size=None if resized_here else spec.image_size,
    fingerprint=f"{whole.fingerprint()} {digest}",
    remarks=(*chosen.warnings, *left_out),
  )
