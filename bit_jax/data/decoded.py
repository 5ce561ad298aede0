"""A cache on disk of what a set's images become once they are decoded and resized.

A file of the final size is made at once and filled in the order in which images are first read;
each image and its label are checked by a CRC when they are read again, so that a file that was cut
short, or left half-written by a machine that went down, costs time but nothing else.
"""

import json
import os
import pathlib
import shutil
import threading
import zlib

import numpy as np

from bit_jax.data import resizing, stream
from bit_jax.runtime import errors, files


class DecodedCache:
  """A source of images of one size that are read from disk where they were read before."""

  def __init__(
    self, source: stream.Source, shape: tuple[int, int], folder: pathlib.Path, count: int
  ):
    """Opens the cache, or begins it.

    Args:
      source: Where images come from that are not in the cache yet.
      shape: (height, width) in pixels; images that have another are resized to a square, so then
        both must be equal.
      folder: Of this set, at this size, and of nothing else.
      count: How many of the images will be read.

    Raises:
      UserError: The folder can't be written, or there is no room for so many images.
    """
    self._source, self._shape, self._folder = source, (*shape, 3), folder
    self._lock = threading.Lock()
    try:
      folder.mkdir(parents=True, exist_ok=True)
      _require_room(folder, count * int(np.prod(self._shape)))
      self._images = _open(folder / "images.npy", np.uint8, (len(source), *self._shape))
      # A checksum of image and label, or 0 where nothing is written yet; and the label.
      self._marks = _open(folder / "marks.npy", np.int64, (len(source), 2))
      about = {"images": len(source), "height": shape[0], "width": shape[1]}
      (folder / "about.json").write_text(json.dumps(about) + "\n")
    except OSError as e:
      raise self._unwritable(e) from e

  def __len__(self) -> int:
    """Returns the number of examples."""
    return len(self._source)

  def read(self, index: int) -> tuple[np.ndarray, int]:
    """Returns an image, [height, width, 3] uint8, read-only if it is the cache's, and its label.

    Raises:
      UserError: It is not in the cache and can't be read, or the disk is full.
    """
    mark, label = self._marks[index].tolist()
    if mark:
      image = np.asarray(self._images[index])
      image.flags.writeable = False  # it is the file
      if _mark(image, label) == mark:
        return image, label
    image, label = self._source.read(index)
    if image.shape != self._shape and self._shape[0] != self._shape[1]:
      raise errors.UserError(
        f"Image {index} is of {image.shape[:2]} pixels where all were of {self._shape[:2]}: the "
        f"images have changed since the run began."
      )
    if image.shape != self._shape:
      image = resizing.resize(image, self._shape[0])
    self._write(index, image, label)
    return image, label

  def describe(self) -> str:
    """Returns a sentence on where the cache is and how much of it there is."""
    there = int(np.count_nonzero(self._marks[:, 0]))
    return (
      f"Decoded images are kept in {self._folder}: {there:,} of {len(self):,} are there "
      f"({there * int(np.prod(self._shape)) / 1e6:,.0f} MB)."
    )

  def _write(self, index: int, image: np.ndarray, label: int) -> None:
    # By a system call: a store into a mapped hole of a file on a full disk would end the process.
    offset = self._images.offset + index * image.nbytes
    try:
      with (self._folder / "images.npy").open("r+b", buffering=0) as file:
        os.pwrite(file.fileno(), image.tobytes(), offset)
    except OSError as e:
      raise self._unwritable(e) from e
    with self._lock:
      self._marks[index] = _mark(image, label), label

  def _unwritable(self, error: OSError) -> errors.UserError:
    return errors.UserError(
      f"The cache of decoded images in {self._folder} can't be written ({error.strerror}): set "
      f"$BIT_JAX_CACHE to another folder, or decoded_cache=False."
    )


def _require_room(folder: pathlib.Path, need: int) -> None:
  path = folder / "images.npy"
  written = path.stat().st_blocks * 512 if path.exists() else 0  # the file has holes
  free = shutil.disk_usage(folder).free
  if need - written > free:
    raise errors.UserError(
      f"The decoded images take {need / 1e9:.1f} GB, but {folder} has {free / 1e9:.1f} GB left: "
      f"set $BIT_JAX_CACHE to another disk, or decoded_cache=False."
    )


def _mark(image: np.ndarray, label: int) -> int:
  """Returns a checksum of at least 1."""
  return zlib.crc32(b"%d" % label, zlib.crc32(np.ascontiguousarray(image).data)) + 1


def _open(path: pathlib.Path, dtype: type, shape: tuple[int, ...]) -> np.memmap:
  """Opens an array on disk, zero where it was never written; begins anew if it is another one."""
  if path.exists():
    try:
      array = np.lib.format.open_memmap(path, mode="r+")
      if array.shape == shape and array.dtype == dtype:
        return array
    except ValueError:  # cut short
      pass
  with files.replacing(path) as temporary:  # two runs may begin at the same time
    return np.lib.format.open_memmap(temporary, mode="w+", dtype=dtype, shape=shape)
