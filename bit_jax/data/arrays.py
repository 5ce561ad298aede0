"""Labelled images at hand as arrays: scikit-learn's digits, or an `.npz` file of the user's."""

import dataclasses
import hashlib
import zipfile
import zlib
from typing import IO, NoReturn

import numpy as np

from bit_jax import errors, paths
from bit_jax.data import fewshot

SPLIT_SEED = 191211370  # of the splits that nobody published; changing it changes every result
_DIGITS_TEST_PER_CLASS = 100
# RuntimeError: encrypted, or compressed in a way that zipfile doesn't know.
_UNREADABLE = (ValueError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error)
_NPZ_KEYS = ("train_images", "train_labels", "test_images", "test_labels")


@dataclasses.dataclass(frozen=True)
class Examples:
  """Labelled images in memory.

  Attributes:
    images: [N, H, W, 3] uint8.
    labels: [N] int32, 0 to `len(class_names) - 1`.
    class_names: The names of the classes, in the order of their labels.
  """

  images: np.ndarray
  labels: np.ndarray
  class_names: tuple[str, ...]

  def __len__(self) -> int:
    """Returns N."""
    return len(self.labels)

  def take(self, indices: np.ndarray) -> "Examples":
    """Returns the examples at `indices`, [M] integer, in that order."""
    return Examples(self.images[indices], self.labels[indices], self.class_names)

  def read(self, index: int) -> tuple[np.ndarray, int]:
    """Returns an image, [H, W, 3] uint8, and its label."""
    return self.images[index], int(self.labels[index])

  def read_labels(self) -> np.ndarray:
    """Returns all labels, [N] int32."""
    return self.labels

  def read_sizes(self) -> np.ndarray:
    """Returns height and width of every image in pixels, [N, 2] int64."""
    return np.broadcast_to(np.array(self.images.shape[1:3]), (len(self), 2))

  def fingerprint(self) -> str:
    """Returns a sha256 of all labels and pixels."""
    return hashlib.sha256(self.labels.tobytes() + self.images.tobytes()).hexdigest()


@dataclasses.dataclass(frozen=True)
class NpzContents:
  """What an npz file holds, its images still unread.

  Attributes:
    train_labels: [N] int32.
    test_labels: [M] int32.
    image_size: (height, width) in pixels, of both parts.
    class_names: The names of the classes, in the order of their labels.
  """

  train_labels: np.ndarray
  test_labels: np.ndarray
  image_size: tuple[int, int]
  class_names: tuple[str, ...]


def as_rgb(images: np.ndarray) -> np.ndarray:
  """Returns [N, H, W] or [N, H, W, 1] grey images as [N, H, W, 3]; colour ones as they are."""
  if images.ndim == 3:
    images = images[..., None]
  return np.repeat(images, 3, axis=-1) if images.shape[-1] == 1 else images


def split_for_selection(
  labels: np.ndarray, class_names: tuple[str, ...]
) -> tuple[np.ndarray, np.ndarray]:
  """Splits a training set 80 : 20 within each class, the same way every time.

  Args:
    labels: [N] integer.
    class_names: The names of the classes.

  Returns:
    The indices of the kept and of the held-out examples, int64, both ascending.

  Raises:
    UserError: No class has the 3 images that holding one out takes.
  """
  counts = (np.bincount(labels, minlength=len(class_names)) + 2) // 5
  if not counts.any():
    raise errors.UserError(
      "protocol=select holds out a fifth of each class, but no class has the 3 training images "
      "that this takes; use protocol=final."
    )
  return fewshot.hold_out(labels, counts, SPLIT_SEED, class_names)


def load_digits() -> tuple[Examples, Examples]:
  """Returns scikit-learn's 1,797 UCI digits as a training pool of 797 and a test set of 1,000.

  The split is this project's own, class-balanced in the test set. Grey levels 0 to 16 become 0 to
  255 by exact scaling, rounded, in three equal channels; images are [N, 8, 8, 3].
  """
  from sklearn import datasets  # slow to import, and only this needs it

  bunch = datasets.load_digits()
  grey = np.rint(bunch.images * (255 / 16)).astype(np.uint8)
  everything = Examples(as_rgb(grey), bunch.target.astype(np.int32), tuple("0123456789"))
  pool, test = fewshot.hold_out(
    everything.labels,
    np.full(10, _DIGITS_TEST_PER_CLASS),
    SPLIT_SEED,
    everything.class_names,
  )
  return everything.take(pool), everything.take(test)


def load_npz(path: str) -> tuple[Examples, Examples]:
  """Returns the training and the test examples of an npz file.

  Args:
    path: A file as `np.savez` writes it, with `train_images` and `test_images`, [N, H, W, 3] or
      grey [N, H, W] uint8, of one size; `train_labels` and `test_labels`, [N] integer from 0; and,
      if the classes have names, `class_names`, [C] strings.

  Raises:
    UserError: The file is not like that.
  """
  contents = describe_npz(path)
  with _open(path) as archive:
    train, test = (as_rgb(_read(path, archive, f"{part}_images")) for part in ("train", "test"))
  return (
    Examples(train, contents.train_labels, contents.class_names),
    Examples(test, contents.test_labels, contents.class_names),
  )


def describe_npz(path: str) -> NpzContents:
  """Checks an npz file and returns its labels and sizes; of the images only headers are read.

  Args:
    path: A file as `load_npz` takes it.

  Raises:
    UserError: The file is not like that.
  """
  with _open(path) as archive:
    names = [n.removesuffix(".npy") for n in archive.namelist()]
    missing = [key for key in _NPZ_KEYS if key not in names]
    if missing:
      _reject(
        path, f"has no {' and no '.join(missing)}; it needs {', '.join(_NPZ_KEYS)}, and has {names}"
      )
    labels = {part: _read_labels(path, archive, part) for part in ("train", "test")}
    sizes = {
      part: _check_images(path, archive, part, len(labels[part])) for part in ("train", "test")
    }
    stored_names = _read(path, archive, "class_names") if "class_names" in names else None
  if sizes["train"] != sizes["test"]:
    _reject(path, f"has images of {sizes['train']} pixels to train on and {sizes['test']} to test")
  class_names = _class_names(path, stored_names, np.concatenate(list(labels.values())))
  return NpzContents(labels["train"], labels["test"], sizes["train"], class_names)


def _reject(path: str, fault: str) -> NoReturn:
  raise errors.UserError(f"The file {path} {fault}.")


def _open(path: str) -> zipfile.ZipFile:
  try:
    return zipfile.ZipFile(paths.named(path))
  except FileNotFoundError:
    raise errors.UserError(f"There is no file {path}.") from None
  except OSError as e:
    raise errors.UserError(f"The file {path} can't be read: {e.strerror}.") from None
  except zipfile.BadZipFile:
    _reject(path, "is no npz file (or was cut short); write it with np.savez or savez_compressed")


def _member(archive: zipfile.ZipFile, key: str) -> IO[bytes]:
  names = archive.namelist()
  return archive.open(f"{key}.npy" if f"{key}.npy" in names else key)


def _read(path: str, archive: zipfile.ZipFile, key: str) -> np.ndarray:
  """Reads one array, refusing pickled ones: unpickling a stranger's file runs their code."""
  try:
    with _member(archive, key) as file:
      return np.lib.format.read_array(file, allow_pickle=False)
  except _UNREADABLE as e:
    _reject(path, f"holds a {key} that can't be read, because it is damaged or pickled ({e})")


def _read_header(path: str, archive: zipfile.ZipFile, key: str) -> tuple[tuple[int, ...], np.dtype]:
  """Returns the shape and dtype of one array without reading it."""
  try:
    with _member(archive, key) as file:
      version = np.lib.format.read_magic(file)
      read = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
      }.get(version)
      if read is None:
        raise ValueError(f"its format version is {version}")
      shape, _, dtype = read(file)
  except _UNREADABLE as e:
    _reject(path, f"holds a {key} that can't be read, because it is damaged ({e})")
  return shape, dtype


def _read_labels(path: str, archive: zipfile.ZipFile, part: str) -> np.ndarray:
  key = f"{part}_labels"
  labels = _read(path, archive, key)
  if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
    _reject(path, f"has {key} of {_form(labels.shape, labels.dtype)}; it takes [N] integers")
  if not len(labels):
    _reject(path, f"has an empty {key}; each part needs at least one image")
  if labels.min() < 0:
    _reject(path, f"has a negative label, {labels.min()}, in {key}; labels count from 0")
  if labels.max() > np.iinfo(np.int32).max:
    _reject(path, f"has a label {labels.max()} in {key}, more than any set has classes")
  return labels.astype(np.int32)


def _check_images(
  path: str, archive: zipfile.ZipFile, part: str, num_labels: int
) -> tuple[int, int]:
  """Checks the form of a part's images by their header, and returns their (height, width)."""
  key = f"{part}_images"
  shape, dtype = _read_header(path, archive, key)
  colour = len(shape) == 4 and shape[3] in (1, 3)
  if dtype != np.uint8 or not (colour or len(shape) == 3) or 0 in shape[1:]:
    _reject(
      path,
      f"has {key} of {_form(shape, dtype)}; it takes [N, H, W, 3] or [N, H, W] uint8, 0 to 255",
    )
  if shape[0] != num_labels:
    _reject(path, f"has {shape[0]} {key} but {num_labels} {part}_labels")
  return shape[1], shape[2]


def _class_names(path: str, stored: np.ndarray | None, labels: np.ndarray) -> tuple[str, ...]:
  """Returns the stored names, checked against all labels; without any, the numbers."""
  largest = int(labels.max())
  if stored is None:
    present = np.unique(labels)
    if len(present) <= largest:
      gap = int(np.flatnonzero(present != np.arange(len(present)))[0])
      _reject(
        path,
        f"has labels up to {largest} but none that is {gap}; number the classes from 0 without "
        f"gaps, or add class_names",
      )
    return tuple(str(label) for label in present)
  if stored.ndim != 1 or stored.dtype.kind not in "US":
    _reject(path, f"has class_names of {_form(stored.shape, stored.dtype)}; it takes [C] strings")
  if largest >= len(stored):
    _reject(
      path, f"has a label {largest}, but only {len(stored)} class_names (labels count from 0)"
    )
  try:
    return tuple(n.decode() if isinstance(n, bytes) else n for n in stored.tolist())
  except UnicodeDecodeError:
    _reject(path, "has class_names that are not UTF-8")


def _form(shape: tuple[int, ...], dtype: np.dtype) -> str:
  return f"{list(shape)} {dtype}"
