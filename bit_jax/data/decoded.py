"""A cache on disk of decoded and resized images.

The file has its final size from the start and is filled as images are first read. A CRC of each
image and label is checked on every later read, so a truncated or partly written file costs time but
gives no wrong images. A disk that becomes full costs time as well, and a warning.
"""

import contextlib
import errno
import os
import pathlib
import shutil
import sys
import zlib

import numpy as np

from bit_jax.data import resizing, stream
from bit_jax.runtime import errors, files, phrases


class DecodedCache:
  """A source of images of one size, which are read from the cache from the second time on."""

  def __init__(
    self, source: stream.Source, shape: tuple[int, int], folder: pathlib.Path, count: int
  ):
    """Opens or creates the cache.

    Args:
      source: Provides the images that are not in the cache.
      shape: (height, width) in pixels. Images of another size are resized, to a square only.
      folder: The cache folder of this set at this size.
      count: Number of images that will be read.

    Raises:
      UserError: The folder can't be written, or the disk has too little free space.
    """
    self._source, self._shape, self._folder = source, (*shape, 3), folder
    self._is_written = True  # until that fails
    try:
      folder.mkdir(parents=True, exist_ok=True)
      _require_space(folder, count * int(np.prod(self._shape)))
      self._images = _open(folder / "images.npy", np.uint8, (len(source), *self._shape))
      # A checksum of image and label (0: not written yet), and the label.
      self._marks = _open(folder / "marks.npy", np.int64, (len(source), 2))
    except OSError as e:
      raise self._unwritable(e) from e

  def __len__(self) -> int:
    """Returns the number of examples."""
    return len(self._source)

  def read(self, index: int) -> tuple[np.ndarray, int]:
    """Returns an image, [height, width, 3] uint8 (read-only if it is cached), and its label.

    Raises:
      UserError: It is not cached and can't be read.
    """
    mark, label = self._marks[index].tolist()
    if mark:
      image = np.asarray(self._images[index])
      image.flags.writeable = False  # it is memory of the file
      if _mark(image, label) == mark:
        return image, label
    image, label = self._source.read(index)
    if image.shape != self._shape and self._shape[0] != self._shape[1]:
      raise errors.UserError(
        f"Image {index} has {image.shape[:2]} pixels instead of {self._shape[:2]}: the images have "
        f"changed since the run started."
      )
    if image.shape != self._shape:
      image = resizing.resize(image, self._shape[0])
    if self._is_written:
      self._write(index, image, label)
    return image, label

  def describe(self) -> str:
    """Returns a sentence with the folder of the cache and how much of it is filled."""
    cached = int(np.count_nonzero(self._marks[:, 0]))
    return (
      f"Cache of decoded images: {self._folder} ({cached:,} of {len(self):,} images, "
      f"{cached * int(np.prod(self._shape)) / 1e6:,.0f} MB)."
    )

  def _write(self, index: int, image: np.ndarray, label: int) -> None:
    # By system calls: on a full disk, a store into a mapped hole of a file kills the process.
    mark = np.array([_mark(image, label), label], np.int64)
    try:
      for name, array, item in (("images", self._images, image), ("marks", self._marks, mark)):
        with (self._folder / f"{name}.npy").open("r+b", buffering=0) as file:
          os.pwrite(file.fileno(), item.tobytes(), array.offset + index * item.nbytes)
    except OSError as e:
      if self._is_written:  # else another thread has warned
        self._is_written = False
        print(f"warning: {self._unwritable(e)} More images are not kept.", file=sys.stderr)

  def _unwritable(self, error: OSError) -> errors.UserError:
    return errors.UserError(
      f"The cache of decoded images in {self._folder} can't be written ({error.strerror}). Set "
      f"$BIT_JAX_CACHE to another folder, or decoded_cache=False."
    )


def _require_space(folder: pathlib.Path, need: int) -> None:
  path = folder / "images.npy"
  written = path.stat().st_blocks * 512 if path.exists() else 0  # the file has holes
  free = shutil.disk_usage(folder).free
  if need - written > free:
    size, room = phrases.file_size(need), phrases.file_size(free)
    raise OSError(errno.ENOSPC, f"the decoded images need {size}, and the disk has {room} free")


def _mark(image: np.ndarray, label: int) -> int:
  """Returns a checksum of at least 1."""
  return zlib.crc32(b"%d" % label, zlib.crc32(np.ascontiguousarray(image).data)) + 1


def _open(path: pathlib.Path, dtype: type, shape: tuple[int, ...]) -> np.memmap:
  """Opens an array on disk, initially zero; creates it if it is missing, damaged or different."""
  with contextlib.suppress(FileNotFoundError, ValueError):  # ValueError: truncated
    array = np.lib.format.open_memmap(path, mode="r+")
    if array.shape == shape and array.dtype == dtype:
      return array
  with files.replacing(path) as temporary:  # two runs may start at the same time
    return np.lib.format.open_memmap(temporary, mode="w+", dtype=dtype, shape=shape)
