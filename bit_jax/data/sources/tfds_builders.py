"""Builders of tensorflow-datasets, for the version that it prepares or for a prepared one.

Importing this imports TensorFlow (about 8 s). Nothing here uses the network.
"""

import contextlib
import os
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

from absl import logging
from google.protobuf import json_format

from bit_jax.runtime import errors, imports, paths

tf = imports.tensorflow()  # before tfds imports it with its own settings
import tensorflow_datasets as tfds  # noqa: E402

logging.set_verbosity(logging.ERROR)  # tfds warns of every missing folder

__all__ = ["find", "find_current", "has_folder", "read", "require_folder", "tf", "tfds"]


def find_current(tfds_name: str, data_dir: str | None = None) -> tfds.core.DatasetBuilder:
  """Returns the builder of the version that the installed tfds prepares, prepared or not.

  Args:
    tfds_name: With its config where there is one, such as 'eurosat/rgb'.
    data_dir: Folder of the prepared sets; None stands for `$TFDS_DATA_DIR` or, without it, tfds'
      default, `~/tensorflow_datasets`.

  Raises:
    UserError: The set is unknown, the directory is a file or a URL, or the description of the
      prepared set is damaged.
  """
  if data_dir is None and paths.is_url(tfds.core.constants.DATA_DIR):
    data_dir = tfds.core.constants.DATA_DIR
  if data_dir is not None:
    require_folder(data_dir)
    data_dir = str(paths.named(data_dir).absolute())
  with _as_user_errors(tfds_name, data_dir or tfds.core.constants.DATA_DIR):
    return tfds.builder(tfds_name, data_dir=data_dir, try_gcs=False)


def find(tfds_name: str, data_dir: str | None = None) -> tfds.core.DatasetBuilder:
  """Does what `find_current` does, but also finds copies that another version of tfds prepared.

  If the current version is not prepared and others are, the builder is that of the newest.

  Raises:
    UserError: As `find_current` does.
  """
  builder = find_current(tfds_name, data_dir)
  with _as_user_errors(tfds_name, builder.data_dir_root):
    if builder.is_prepared():
      return builder
    descriptions = pathlib.Path(builder.data_dir).parent.glob("*/dataset_info.json")
    prepared = [d.parent for d in descriptions if tfds.core.Version.is_valid(d.parent.name)]
  if not prepared:
    return builder
  newest = max(prepared, key=lambda folder: tfds.core.Version(folder.name))
  with _as_user_errors(tfds_name, newest):
    return tfds.builder_from_directory(str(newest))


def read(
  builder: tfds.core.DatasetBuilder, split: str, features: Mapping[str, Any], decoders: Any = None
) -> Any:
  """Returns a tf.data dataset of some features of a prepared split, in tfds' order.

  Args:
    builder: A prepared set.
    split: The split in tfds' notation.
    features: The features, as in `tfds.decode.PartialDecoding`.
    decoders: Likewise.
  """
  return builder.as_dataset(
    split=split,
    decoders=tfds.decode.PartialDecoding(features, decoders=decoders),
    shuffle_files=False,
    read_config=tfds.ReadConfig(interleave_cycle_length=1, try_autocache=False),
  )


def has_folder(data_dir: str | None) -> bool:
  """Returns whether there is a folder for prepared sets: tfds' default needs a home folder.

  Args:
    data_dir: The data directory, as in `find_current`.
  """
  default = os.path.expanduser(tfds.core.constants.DATA_DIR)
  return data_dir is not None or not default.startswith("~")


def require_folder(data_dir: str | None) -> None:
  """Raises a `UserError` if the data directory is a file; it need not exist."""
  if data_dir is not None and paths.named(data_dir).is_file():
    raise errors.UserError(f"The data directory {data_dir} is a file: use a folder.")


@contextlib.contextmanager
def _as_user_errors(tfds_name: str, place: str | pathlib.Path) -> Iterator[None]:
  """Turns tfds' exceptions on unknown sets and damaged descriptions into a `UserError`."""
  try:
    yield
  except tfds.core.registered.DatasetNotFoundError:
    raise errors.UserError(f"tensorflow-datasets has no data set {tfds_name!r}.") from None
  except PermissionError as e:
    raise errors.UserError(
      f"The data directory {place} can't be read ({e.strerror}): use another --data_dir, or set "
      f"TFDS_DATA_DIR."
    ) from e
  except (json_format.ParseError, ValueError, RuntimeError, FileNotFoundError) as e:
    raise errors.UserError(
      f"The prepared copy of {tfds_name} in {place} is damaged ({errors.first_line(e)}): "
      f"delete that copy and prepare the set again."
    ) from e
