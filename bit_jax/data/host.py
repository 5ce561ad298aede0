"""tensorflow-datasets in, arrays of decoded images out.

Importing this imports TensorFlow (some 8 s), so `loading` does it only for a tfds set. Nothing
here downloads or waits on the network.
"""

import pathlib
import sys

import numpy as np
import tqdm

from bit_jax import errors, tensorflow_import
from bit_jax.data import arrays

tf = tensorflow_import.tensorflow()  # before tfds imports it with its own settings
import tensorflow_datasets as tfds  # noqa: E402

_READ_BATCH = 256  # images a progress tick; of no consequence for the result


def load_split(
  tfds_name: str, split: str, data_dir: str | None = None
) -> tuple[arrays.Examples, str]:
  """Returns a prepared split, decoded once, at native size.

  Args:
    tfds_name: Name of the builder, such as 'cifar10'.
    split: In tfds' notation, such as 'train[:98%]'.
    data_dir: Where the prepared sets lie; None stands for `$TFDS_DATA_DIR`, and without it for
      tfds' own default, `~/tensorflow_datasets`.

  Returns:
    The examples, [N, H, W, 3] uint8 (grey images in three equal channels), where index i is the
    i-th record of the split, and the version of the data set, such as '3.0.2'.

  Raises:
    UserError: There is no such set or split, it isn't prepared, it is damaged, its images differ
      in size, or it has no label.
  """
  builder = _find_prepared(tfds_name, data_dir)
  features = dict(builder.info.features.items())
  image, label = features.get("image"), features.get("label")
  if not isinstance(image, tfds.features.Image) or not isinstance(label, tfds.features.ClassLabel):
    raise errors.UserError(f"The data set {tfds_name} has no image with one class label.")
  if None in image.shape:
    raise errors.UserError(
      f"The images of {tfds_name} differ in size ({image.shape}); only sets of one size can be "
      f"kept in memory at native size."
    )
  images, labels = _read(builder, split)
  return (
    arrays.Examples(arrays.as_rgb(images), labels, tuple(label.names)),
    str(builder.version),
  )


def _find_prepared(tfds_name: str, data_dir: str | None) -> tfds.core.DatasetBuilder:
  if data_dir is not None:
    data_dir = str(pathlib.Path(data_dir).expanduser())
  try:
    builder = tfds.builder(tfds_name, data_dir=data_dir, try_gcs=False)
  except tfds.core.registered.DatasetNotFoundError:
    raise errors.UserError(f"tensorflow-datasets has no data set {tfds_name!r}.") from None
  if not builder.is_prepared():
    root = pathlib.Path(builder.data_dir)
    raise errors.UserError(
      f"The data set {tfds_name} {builder.version} is not prepared: there is nothing in {root}. "
      f'Prepare it on a machine with network: python -c "import tensorflow_datasets as tfds; '
      f"tfds.builder('{tfds_name}').download_and_prepare()\"; or point TFDS_DATA_DIR at a prepared "
      f"copy."
    )
  return builder


def _read(builder: tfds.core.DatasetBuilder, split: str) -> tuple[np.ndarray, np.ndarray]:
  """Reads a split's images and [N] int32 labels, in the order of its records."""
  try:
    total = builder.info.splits[split].num_examples
  except ValueError as e:
    reason = str(e).splitlines()[0]
    raise errors.UserError(f"{builder.name} has no split {split!r}: {reason}") from None
  try:
    dataset = builder.as_dataset(
      split=split,
      shuffle_files=False,
      read_config=tfds.ReadConfig(interleave_cycle_length=1, try_autocache=False),
    )
    images, labels = [], []
    with tqdm.tqdm(
      total=total,
      desc=f"Decoding {builder.name} {split}",
      unit=" images",
      disable=not sys.stderr.isatty(),
    ) as progress:
      batches = dataset.map(lambda e: (e["image"], e["label"])).batch(_READ_BATCH)
      for image, label in batches.as_numpy_iterator():
        images.append(image)
        labels.append(label)
        progress.update(len(label))
  except (tf.errors.NotFoundError, tf.errors.DataLossError, tf.errors.InvalidArgumentError) as e:
    raise errors.UserError(
      f"The prepared copy of {builder.name} in {builder.data_dir} is incomplete or damaged; "
      f"prepare it again ({str(e).splitlines()[0]})."
    ) from None
  return np.concatenate(images), np.concatenate(labels).astype(np.int32)
