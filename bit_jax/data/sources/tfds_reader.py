"""Splits of prepared sets of tensorflow-datasets: random access, or a whole split at once.

Importing this imports TensorFlow (about 8 s), so import it only for a set of tfds. Nothing here
uses the network.
"""

import functools
import hashlib
import io
import pathlib
import shlex
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from PIL import Image

from bit_jax.data import datasets, images, labels, resizing, stream
from bit_jax.data.sources import arrays, tfds_builders, tfrecords
from bit_jax.data.sources.tfds_builders import tf, tfds
from bit_jax.runtime import errors

_READ_BATCH = 256  # images per update of the progress bar; without effect on the result
_DAMAGED = (
  tf.errors.NotFoundError,
  tf.errors.DataLossError,
  tf.errors.InvalidArgumentError,
  tf.errors.FailedPreconditionError,  # fewer records than in the metadata
)


class Split:
  """A split of a prepared set; a `stream.Source`."""

  def __init__(self, spec: datasets.DatasetSpec, split: str, data_dir: str | None = None):
    """Finds the split; reads no example.

    Args:
      spec: Of a set of tensorflow-datasets, from `datasets.find`.
      split: The split in tfds' notation, such as 'train[:98%]'.
      data_dir: The data directory, as in `tfds_builders.find`.

    Raises:
      UserError: The set isn't prepared or has no such split, or its examples have no image or lack
        a feature for the label of `spec`.
    """
    self._spec, self._split = spec, split
    self._builder = tfds_builders.find(str(spec.tfds_name), data_dir)
    if not self._builder.is_prepared():
      folder = f" --data_dir={shlex.quote(data_dir)}" if data_dir else ""
      raise errors.UserError(
        f"The data set {spec.tfds_name} {self._builder.version} is not prepared in "
        f"{self._builder.data_dir}. Set TFDS_DATA_DIR to the folder of a prepared copy, or prepare "
        f"it: python -m bit_jax.data doctor {spec.name} --download{folder} downloads it or lists "
        f"the manual steps."
      )
    features = dict(self._builder.info.features.items())
    self._derivation = labels.DERIVATIONS[spec.label]
    if missing := [n for n in (*self._derivation.features, "image") if n not in features]:
      raise errors.UserError(f"The examples of {spec.tfds_name} have no feature {missing[0]!r}.")
    self.class_names = spec.class_names or tuple(features["label"].names)
    self.version = f"{spec.tfds_name} {self._builder.version}"
    self.shuffled = not self._builder.info.disable_shuffling
    try:
      self._instructions = self._builder.info.splits[split].file_instructions
    except ValueError as e:
      raise errors.UserError(
        f"{spec.tfds_name} has no split {split!r}: {errors.first_line(e)}."
      ) from None
    self._records = tfrecords.Records(
      tfrecords.Stretch(i.filename, i.skip, i.take if i.take >= 0 else i.examples_in_shard - i.skip)
      for i in self._instructions
    )
    partial = tfds.decode.PartialDecoding({"image": True, **self._derivation.features})
    self._features = partial.extract_features(self._builder.info.features)
    self._parse = tf.function(self._deserialize, [tf.TensorSpec((), tf.string)])

  def __len__(self) -> int:
    """Returns the number of examples."""
    return len(self._records)

  def read(self, index: int) -> tuple[np.ndarray, int]:
    """Returns the image, [h, w, 3] uint8, and the label of a record.

    Raises:
      UserError: The file is missing or damaged.
    """
    record = self._records.read(index)
    try:
      image, label = self._parse(record)
    except _DAMAGED as e:
      raise self._damaged(e) from None
    return np.asarray(image), int(self._checked(np.asarray(label)))

  def read_labels(self) -> np.ndarray:
    """Returns all labels, [N] int32, without decoding an image.

    Raises:
      UserError: A file is missing or damaged, or a label is not one of the classes.
    """
    dataset = tfds_builders.read(self._builder, self._split, self._derivation.features).map(
      self._label, tf.data.AUTOTUNE
    )
    found = np.empty(len(self), np.int32)
    for start, batch in self._batches(dataset, "labels"):
      found[start : start + len(batch)] = batch
    return self._checked(found)

  def read_sizes(self) -> np.ndarray:
    """Returns height and width of every image in pixels, [N, 2] int32, from the images' headers.

    Raises:
      UserError: A file is missing or damaged.
    """
    dataset = tfds_builders.read(
      self._builder, self._split, {"image": True}, {"image": tfds.decode.SkipDecoding()}
    )
    found = np.empty((len(self), 2), np.int32)
    for start, batch in self._batches(dataset.map(lambda e: e["image"]), "sizes"):
      found[start : start + len(batch)] = list(map(self._size, batch))
    return found

  def load(self, size: int | None) -> arrays.Examples:
    """Returns the whole split in memory, decoded once.

    Args:
      size: Side in pixels of the square that images are resized to; None keeps the size that `spec`
        states.

    Raises:
      UserError: A file is missing or damaged, a label is not one of the classes, or `size` is None
        and an image has another size than `spec` states.
    """
    height, width = self._spec.image_size if size is None else (size, size)

    def prepare(example: dict[str, Any]) -> tuple[Any, Any]:
      image = self._image(example)
      if size is not None:
        resize = functools.partial(resizing.resize, size=size)
        image = tf.numpy_function(resize, [image], tf.uint8, stateful=False)
      return tf.ensure_shape(image, (height, width, 3)), self._label(example)

    pixels = np.empty((len(self), height, width, 3), np.uint8)
    found = np.empty(len(self), np.int32)
    dataset = tfds_builders.read(
      self._builder, self._split, {"image": True, **self._derivation.features}
    )
    for start, batch in self._batches(dataset.map(prepare, tf.data.AUTOTUNE), "images"):
      stop = start + len(batch[1])
      pixels[start:stop], found[start:stop] = batch
    return arrays.Examples(pixels, self._checked(found), self.class_names)

  def fingerprint(self) -> str:
    """Returns a text that identifies images and labels, including the names and times of the files.

    Raises:
      UserError: A file is missing.
    """
    parts = [self.version, self._split, self._spec.label, str(self._spec.pixel_scale)]
    for path in sorted({i.filename for i in self._instructions}):
      try:
        state = pathlib.Path(path).stat()
      except OSError as e:
        raise self._damaged(e) from None
      parts.append(f"{path} {state.st_size} {state.st_mtime_ns}")
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()

  def _size(self, encoded: bytes) -> tuple[int, int]:
    """Returns height and width of an encoded image, as it is stored."""
    try:
      width, height = Image.open(io.BytesIO(encoded), formats=images.FORMATS).size
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as e:
      raise self._damaged(e) from None
    return height, width

  def _deserialize(self, record: Any) -> tuple[Any, Any]:
    example = self._features.deserialize_example(record)
    return self._image(example), self._label(example)

  def _image(self, example: Mapping[str, Any]) -> Any:
    image = example["image"]
    if image.shape[-1] == 1:
      image = tf.repeat(image, 3, axis=-1)
    return image * self._spec.pixel_scale if self._spec.pixel_scale != 1 else image

  def _label(self, example: Mapping[str, Any]) -> Any:
    if self._spec.label == "label":
      return tf.cast(example["label"], tf.int32)
    needed = {name: example[name] for name in self._derivation.features}

    def derive(*values: Any) -> np.int32:
      return np.int32(self._derivation.derive(tf.nest.pack_sequence_as(needed, values)))

    label = tf.numpy_function(derive, tf.nest.flatten(needed), tf.int32, stateful=False)
    return tf.ensure_shape(label, ())

  def _batches(self, dataset: Any, what: str) -> Iterator[tuple[int, Any]]:
    """Yields (index of the first example, batch) of a whole dataset, with a progress bar."""
    done = 0
    what = f"Reading {what} of {self._spec.name} {self._split}"
    with stream.progress(what, len(self)) as progress:
      try:
        for batch in dataset.batch(_READ_BATCH).as_numpy_iterator():
          yield done, batch
          count = len(batch[1] if isinstance(batch, tuple) else batch)
          done += count
          progress.update(count)
      except _DAMAGED as e:
        raise self._damaged(e) from None
    if done != len(self):
      raise self._damaged(f"{done} examples in {self._split}, but {len(self)} in the metadata")

  def _checked(self, found: np.ndarray) -> np.ndarray:
    """Returns labels after checking that they are classes."""
    low, high = np.min(found, initial=0), np.max(found, initial=0)
    if low < 0 or high >= len(self.class_names):
      raise errors.UserError(
        f"{self._spec.name} has the label {low if low < 0 else high} in {self._split}, but only "
        f"{len(self.class_names)} classes: it is another version, or damaged."
      )
    return found

  def _damaged(self, reason: object) -> errors.UserError:
    return errors.UserError(
      f"The prepared copy of {self._builder.name} in {self._builder.data_dir} is incomplete or "
      f"damaged ({str(reason).splitlines()[0]}): prepare it again."
    )
