"""From the description of a data set to its examples, whatever they come from."""

import hashlib
import pathlib
from importlib import metadata

from bit_jax import errors
from bit_jax.data import arrays, datasets


def load(
  spec: datasets.DatasetSpec, data_dir: str | None = None
) -> tuple[arrays.Examples, arrays.Examples, str]:
  """Loads a data set, decoding each image once.

  Args:
    spec: From `datasets.find`.
    data_dir: Where tfds keeps prepared sets; None for its default. Other sources ignore it.

  Returns:
    The training examples, the examples to evaluate, and what identifies their version: that of
    the tfds builder or of scikit-learn, or the file's name and the first 16 digits of its sha256.

  Raises:
    UserError: The set isn't there or is faulty, is not of the sizes that `spec` states, or is a
      tfds set and TensorFlow isn't installed.
  """
  if spec.source == "tfds":
    train, test, version = _load_tfds(spec, data_dir)
  else:
    train, test, version = _load_arrays(spec)
  _check(spec, "training", train, spec.num_train)
  _check(spec, "test", test, spec.num_test)
  return train, test, version


def _load_tfds(
  spec: datasets.DatasetSpec, data_dir: str | None
) -> tuple[arrays.Examples, arrays.Examples, str]:
  try:
    from bit_jax.data import host  # imports TensorFlow
  except ImportError as e:
    raise errors.UserError(
      f"The data set {spec.name} is read with tensorflow and tensorflow-datasets, which can't be "
      f"imported ({e}); install them, or train on digits or an npz file."
    ) from e
  assert spec.tfds_name is not None
  train, version = host.load_split(spec.tfds_name, spec.train_split, data_dir)
  test, _ = host.load_split(spec.tfds_name, spec.test_split, data_dir)
  return train, test, f"{spec.tfds_name} {version}"


def _load_arrays(
  spec: datasets.DatasetSpec,
) -> tuple[arrays.Examples, arrays.Examples, str]:
  if spec.source == "npz":
    assert spec.path is not None
    train, test = arrays.load_npz(spec.path)
    path = pathlib.Path(spec.path).expanduser()
    version = f"{path.name}, sha256 {_sha256(path)[:16]}"
  else:
    train, test = arrays.load_digits()
    version = f"digits of scikit-learn {metadata.version('scikit-learn')}"
  if (spec.train_split, spec.test_split) == datasets.ARRAY_SPLITS["select"]:
    kept, held_out = arrays.split_for_selection(train.labels, train.class_names)
    train, test = train.take(kept), train.take(held_out)
  return train, test, version


def _sha256(path: pathlib.Path) -> str:
  with path.open("rb") as file:
    return hashlib.file_digest(file, "sha256").hexdigest()


def _check(
  spec: datasets.DatasetSpec, part: str, examples: arrays.Examples, num_expected: int
) -> None:
  """Raises where the examples are not what the rule will be told."""
  height, width = spec.image_size
  for what, found, expected in (
    (f"{part} images", len(examples), num_expected),
    ("classes", len(examples.class_names), spec.num_classes),
    (f"pixels in each {part} image", examples.images[0].shape[:2], (height, width)),
  ):
    if found != expected:
      raise errors.UserError(
        f"The data set {spec.name} holds {found} {what} where {expected} were expected: it is "
        f"another version, or has changed."
      )
