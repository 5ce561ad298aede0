"""Labelled images as arrays: scikit-learn's digits, or the user's own `.npz` file."""

import contextlib
import dataclasses
import difflib
import hashlib
import math
import sys
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import NoReturn, Protocol

import numpy as np

from bit_jax.data import fewshot
from bit_jax.data.sources import class_naming
from bit_jax.runtime import array_archive, errors, paths, phrases

SPLIT_SEED = 191211370  # of splits that nobody published; changing it changes every result
_DIGITS_TEST_PER_CLASS = 100
_NPZ_KEYS = ("train_images", "train_labels", "test_images", "test_labels")
_VAL_KEYS = ("val_images", "val_labels")
_KEYS = (*_NPZ_KEYS, *_VAL_KEYS, "class_names")
# Words of other programs for those of the keys.
_SYNONYMS = {"x": "images", "y": "labels", "valid": "val", "validation": "val", "dev": "val"}
_NAMES_OF_CLASSES = ("classes", "label_names", "labels_names", "names")
_LABEL_HINTS = {  # by kind of dtype
  "one-hot": ". Convert one-hot labels with np.argmax(labels, axis=1)",
  "U": ". Convert names with class_names, labels = np.unique(names, return_inverse=True)",
  "S": ". Convert names with class_names, labels = np.unique(names, return_inverse=True)",
  "f": ". Convert whole numbers with labels.astype(int)",
}


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

  def marks(self, indices: np.ndarray) -> np.ndarray:
    """Returns [M] int64 for the images at `indices`, equal for equal images."""
    return np.array([zlib.crc32(self.images[i].tobytes()) for i in indices.tolist()], np.int64)

  def content(self, index: int) -> bytes:
    """Returns a digest of the pixels of an image."""
    return hashlib.sha256(self.images[index].tobytes()).digest()

  def fingerprint(self) -> str:
    """Returns a sha256 of all labels and pixels."""
    return hashlib.sha256(self.labels.tobytes() + self.images.tobytes()).hexdigest()


@dataclasses.dataclass(frozen=True)
class NpzContents:
  """The content of an npz file except the pixels.

  Attributes:
    labels: {'train': [N] int32, 'test': [M] int32}, and 'val' if the file has that part.
    image_size: (height, width) in pixels, of all parts.
    class_names: The names of the classes, in the order of their labels.
    remarks: Sentences on content that is ignored or changed.
    warnings: Sentences, each on a possible mistake.
  """

  labels: Mapping[str, np.ndarray]
  image_size: tuple[int, int]
  class_names: tuple[str, ...]
  remarks: tuple[str, ...]
  warnings: tuple[str, ...]


def as_rgb(images: np.ndarray) -> np.ndarray:
  """Returns [N, H, W] or [N, H, W, 1] grey images as [N, H, W, 3], colour images unchanged."""
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
    UserError: No class has 3 images.
  """
  counts = (np.bincount(labels, minlength=len(class_names)) + 2) // 5
  if not counts.any():
    raise errors.UserError(
      "protocol=select holds out a fifth of each class, which needs a class with 3 training "
      "images: add images, or use protocol=final."
    )
  return fewshot.hold_out(labels, counts, SPLIT_SEED)


def load_digits() -> tuple[Examples, Examples]:
  """Returns scikit-learn's 1,797 UCI digits as a training pool of 797 and a test set of 1,000.

  There is no official split; this one has a class-balanced test set. Grey levels 0 to 16 are scaled
  to 0 to 255 and rounded, in three equal channels; images are [N, 8, 8, 3].
  """
  from sklearn import datasets  # slow to import

  bunch = datasets.load_digits()
  grey = np.rint(bunch.images * (255 / 16)).astype(np.uint8)
  everything = Examples(as_rgb(grey), bunch.target.astype(np.int32), tuple("0123456789"))
  counts = np.full(10, _DIGITS_TEST_PER_CLASS)
  pool, test = fewshot.hold_out(everything.labels, counts, SPLIT_SEED)
  return everything.take(pool), everything.take(test)


def read_npz(path: str, contents: NpzContents, part: str) -> Examples:
  """Returns the examples of 'train', 'val' or 'test' of an npz file.

  Raises:
    UserError: The images are damaged.
  """
  with _Npz(path) as file:
    images = _rgb_images(file, part)
  return Examples(images, contents.labels[part], contents.class_names)


def read_npz_part(path: str, part: str | None = None) -> tuple[str, Examples]:
  """Reads one part of an npz file by itself; the others needn't exist.

  Args:
    path: A file of the form of `describe_npz`, with that part at least.
    part: 'train', 'test' or 'val'; None: 'test' if the file has it, else 'val', else 'train'.

  Returns:
    The part, and its examples. Without class_names, the names of classes are the labels.

  Raises:
    UserError: The file lacks the part, or has another form.
  """
  with _Npz(path) as file:
    there = [p for p in ("test", "val", "train") if f"{p}_images" in file.keys]
    wanted = part or next(iter(there), "test")
    if missing := [k for k in (f"{wanted}_images", f"{wanted}_labels") if k not in file.keys]:
      others = f" (it has the parts {', '.join(there)})" if there else f", and has {file.keys}"
      file.reject(f"has no {' and no '.join(missing)}{others}")
    labels = _labels(file, wanted)
    _image_size(file, wanted, len(labels))
    if "class_names" in file.keys:
      names = tuple(name.strip() for name in _class_names(file, labels))
    else:
      present, labels = np.unique(labels, return_inverse=True)
      names, labels = tuple(map(str, present.tolist())), labels.astype(np.int32)
    return wanted, Examples(_rgb_images(file, wanted), labels, names)


def _rgb_images(file: "_Npz", part: str) -> np.ndarray:
  """Returns the images of a part, [N, H, W, 3] uint8."""
  key = f"{part}_images"
  shape, dtype = file.form(key)
  if dtype == np.uint8 and (len(shape) == 3 or shape[-1:] == (1,)):  # grey: three more as colours
    array_archive.require_memory(f"The array {key} as colours", 4 * math.prod(shape))
  return as_rgb(file.array(key))


def describe_npz(path: str) -> NpzContents:
  """Checks an npz file and returns its labels and image size, without reading the pixels.

  Args:
    path: A file as `np.savez` writes it, with `train_images` and `test_images`, [N, H, W, 3] or
      grey [N, H, W] uint8, of one size; `train_labels` and `test_labels`, [N] or [N, 1] integer
      from 0; optionally `val_images` and `val_labels` of the same form; and optionally
      `class_names`, [C] strings.

  Raises:
    UserError: The file has another form.
  """
  with _Npz(path) as file:
    return _describe(file, path)


def require_usable(held: Mapping[str, np.ndarray]) -> None:
  """Checks arrays before they are written to an npz file.

  Args:
    held: The arrays by name, as `describe_npz` takes them from a file.

  Raises:
    UserError: They have another form.
  """
  _describe(_InMemory(held), "memory")


def _describe(file: "_Holder", path: str) -> NpzContents:
  renamed = _renamed(file.keys)
  _require_keys(file, renamed)
  parts = ("train", "test", *(("val",) if "val_images" in file.keys else ()))
  labels = {part: _labels(file, part) for part in parts}
  sizes = {part: _image_size(file, part, len(labels[part])) for part in parts}
  for part, size in sizes.items():
    if size != sizes["train"]:
      file.reject(f"has train_images of {sizes['train']} pixels but {part}_images of {size}")
  stored_names = _class_names(file, np.concatenate(list(labels.values())))
  class_names = tuple(name.strip() for name in stored_names)
  _require_classes(file, labels, class_names)
  remarks = []
  if others := [n for n in file.keys if n not in (*_KEYS, *renamed)]:
    remarks.append(f"Other arrays in {path} are ignored: {', '.join(others)}.")
  if class_names != stored_names:
    remarks.append(f"Blanks at the ends of class_names in {path} are removed.")
  warnings = [
    f"The array {name} in {path} is ignored. If it holds the {key}, rename it to {key}."
    for name, key in renamed.items()
  ]
  if untrained := np.setdiff1d(np.arange(len(class_names)), labels["train"]).tolist():
    warnings.append(
      f"The file {path} has no training images of {_classes(untrained, class_names)}, so the "
      f"network can't learn {'it' if len(untrained) == 1 else 'them'}."
    )
  if untested := np.setdiff1d(labels["train"], labels["test"]).tolist():
    warnings.append(f"No test images of {_classes(untested, class_names)}.")
  if alike := class_naming.differ_in_case(class_names):
    warnings.append(f"Class names in {path} differ only in upper and lower case: {alike}.")
  return NpzContents(labels, sizes["train"], class_names, tuple(remarks), tuple(warnings))


class _Holder(Protocol):
  """Arrays by name, whose faults are `UserError`s that name where they are."""

  keys: list[str]

  def reject(self, fault: str) -> NoReturn:
    """Raises a `UserError` about a fault, a clause such as 'has no train_labels'."""

  def array(self, key: str) -> np.ndarray:
    """Returns one array."""

  def form(self, key: str) -> tuple[tuple[int, ...], np.dtype]:
    """Returns the shape and dtype of one array."""


class _InMemory:
  """Arrays of a program."""

  def __init__(self, held: Mapping[str, np.ndarray]):
    self.keys, self._held = list(held), held

  def reject(self, fault: str) -> NoReturn:
    raise errors.UserError(f"The data in memory {fault}.")

  def array(self, key: str) -> np.ndarray:
    return self._held[key]

  def form(self, key: str) -> tuple[tuple[int, ...], np.dtype]:
    return self._held[key].shape, self._held[key].dtype


class _Npz(array_archive.Archive):
  """An open npz file; its faults are `UserError`s that name the file.

  Attributes:
    keys: The names of its arrays.
  """

  def __init__(self, path: str):
    """Opens the file."""
    self._path = path
    file = paths.named(path)
    try:
      super().__init__(file)
    except FileNotFoundError:
      raise errors.UserError(f"File not found: {path}.") from None
    except OSError as e:
      raise errors.UserError(f"The file {path} can't be read: {e.strerror}.") from None
    except array_archive.Unusable as e:
      self.reject(f"has an unusable array {e.name}: it {e}")
    except array_archive.DAMAGED:
      self.reject("is not an npz file, or is truncated: write it with np.savez")
    self.keys = list(self.entries)

  def reject(self, fault: str) -> NoReturn:
    raise errors.UserError(f"The file {self._path} {fault}.")

  def array(self, key: str) -> np.ndarray:
    """Reads one array. Pickled arrays are refused: unpickling can run any code."""
    with self._readable(key):
      array_archive.require_memory(f"The array {key} of {self._path}", self.header(key).nbytes)
      return self.read(key)

  def form(self, key: str) -> tuple[tuple[int, ...], np.dtype]:
    """Returns the shape and dtype of one array without reading it."""
    with self._readable(key):
      header = self.header(key)
    return header.shape, header.dtype

  @contextlib.contextmanager
  def _readable(self, key: str) -> Iterator[None]:
    try:
      yield
    except errors.UserError:
      raise
    except array_archive.Unusable as e:
      self.reject(f"has an unusable array {key}: it {e}")
    except (OSError, *array_archive.DAMAGED) as e:
      self.reject(f"has a damaged array {key} ({e})")


def _require_keys(file: _Holder, renamed: Mapping[str, str]) -> None:
  """Rejects a file without a required array, or with only one of val_images and val_labels."""
  needed = _NPZ_KEYS + _VAL_KEYS * any(key in file.keys for key in _VAL_KEYS)
  if missing := [key for key in needed if key not in file.keys]:
    meant = [f"{name} to {key}" for name, key in renamed.items() if key in missing]
    hint = f" (rename {', '.join(meant)}?)" if meant else ""
    file.reject(
      f"has no {' or '.join(missing)}. It needs {', '.join(needed)}, and has {file.keys}{hint}"
    )


def _renamed(names: Sequence[str]) -> dict[str, str]:
  """Returns {name: key} of the arrays whose name resembles a key that the file lacks."""
  lacking = [key for key in _KEYS if key not in names]
  found = {}
  for name in (n for n in names if n not in _KEYS):
    words = {_SYNONYMS.get(word, word) for word in name.lower().split("_")}
    same = [key for key in lacking if words == set(key.split("_"))]
    if name.lower() in _NAMES_OF_CLASSES:
      same = [key for key in lacking if key == "class_names"]
    if close := same or difflib.get_close_matches(name.lower(), lacking, 1, 0.8):
      found[name] = close[0]
  return found


def _require_classes(
  file: _Holder, labels: Mapping[str, np.ndarray], class_names: Sequence[str]
) -> None:
  """Rejects labels without training images, and training images of a single class."""
  for part, found in labels.items():
    if unknown := np.setdiff1d(found, labels["train"]).tolist():
      classes = _classes(unknown, class_names)
      file.reject(f"has no training images of {classes}, which {part}_labels contains")
  trained = np.unique(labels["train"])
  if len(trained) == 1:
    only = class_names[trained[0]]
    file.reject(f"has only one class of training images, {only}; a classifier needs at least two")


def _classes(numbers: Sequence[int], class_names: Sequence[str]) -> str:
  """Returns e.g. 'class 2 (cat)' or '2 classes (2: cat, 5: dog)'."""
  if len(numbers) == 1:
    return f"class {numbers[0]} ({class_names[numbers[0]]})"
  return f"{len(numbers)} classes ({phrases.some([f'{n}: {class_names[n]}' for n in numbers])})"


def _labels(file: _Holder, part: str) -> np.ndarray:
  """Returns the labels of a part, [N] int32."""
  key = f"{part}_labels"
  labels = file.array(key)
  if labels.ndim == 2 and labels.shape[1] == 1:  # as MedMNIST has them
    labels = labels[:, 0]
  if labels.dtype == bool:
    labels = labels.astype(np.int32)
  if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
    hint = _LABEL_HINTS.get("one-hot" if labels.ndim == 2 else labels.dtype.kind, "")
    form = _form(labels.shape, labels.dtype)
    file.reject(f"has {key} of {form}; they must be [N] or [N, 1] integers{hint}")
  if not len(labels):
    file.reject(f"has empty {key}; each part needs at least one image")
  if labels.min() < 0:
    file.reject(f"has a negative label, {labels.min()}, in {key}; labels start at 0")
  if labels.max() > np.iinfo(np.int32).max:
    file.reject(f"has the label {labels.max()} in {key}, which is too large")
  return labels.astype(np.int32)


def _image_size(file: _Holder, part: str, num_labels: int) -> tuple[int, int]:
  """Checks the form of a part's images by their header, and returns their (height, width)."""
  key = f"{part}_images"
  shape, dtype = file.form(key)
  colour = len(shape) == 4 and shape[3] in (1, 3)
  if dtype != np.uint8 or not (colour or len(shape) == 3) or 0 in shape[1:]:
    first = len(shape) == 4 and shape[1] in (1, 3) and not colour  # as in PyTorch
    hint = ". Convert channels first with images.transpose(0, 2, 3, 1)" if first else ""
    form = f"[N, H, W, 3] or [N, H, W] uint8, 0 to 255{hint}"
    file.reject(f"has {key} of {_form(shape, dtype)}; they must be {form}")
  if shape[0] != num_labels:
    file.reject(f"has {shape[0]} {key} but {num_labels} {part}_labels")
  return shape[1], shape[2]


def _class_names(file: _Holder, labels: np.ndarray) -> tuple[str, ...]:
  """Returns the stored names, checked against all labels; without any, the numbers."""
  largest = int(labels.max())
  if "class_names" not in file.keys:
    present = np.unique(labels)
    if len(present) <= largest:
      gap = int(np.flatnonzero(present != np.arange(len(present)))[0])
      fix = "number the classes from 0 without gaps, or add class_names"
      file.reject(f"has labels up to {largest} but no label {gap}: {fix}")
    return tuple(map(str, present.tolist()))
  stored = file.array("class_names")
  if stored.ndim != 1 or stored.dtype.kind not in "US":
    file.reject(f"has class_names of {_form(stored.shape, stored.dtype)}; use [C] strings")
  if stored.dtype.kind == "U" and not _is_unicode(stored):
    file.reject("has class_names that are not Unicode")
  if largest >= len(stored):
    file.reject(f"has the label {largest} but only {len(stored)} class_names")
  try:
    names = tuple(n.decode() if isinstance(n, bytes) else n for n in stored.tolist())
  except UnicodeDecodeError:
    file.reject("has class_names that are not UTF-8")
  if fault := class_naming.fault(names):
    file.reject(f"has unusable class_names: {fault}")
  return names


def _is_unicode(stored: np.ndarray) -> bool:
  """Returns whether all characters of an array of strings exist; Python fails at others later."""
  codes = np.ascontiguousarray(stored).view(stored.dtype.byteorder.replace("|", "=") + "u4")
  return bool((codes <= sys.maxunicode).all())


def _form(shape: tuple[int, ...], dtype: np.dtype) -> str:
  return f"{list(shape)} {dtype}"
