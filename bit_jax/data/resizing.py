"""Resizing on the host, to the size from which crops are taken."""

import math
import threading

import cv2
import numpy as np
from PIL import Image, ImageOps

cv2.setNumThreads(0)  # `stream` already reads images in several threads

_KEPT_VALUES = 3 * 2**22  # per buffer: enough for images of up to four million pixels


def resize(image: np.ndarray, size: int, out: np.ndarray | None = None) -> np.ndarray:
  """Resizes an image to a square as `tf.image.resize` does, and rounds to whole grey levels.

  Bilinear with half-pixel centres, clamped at the edges, not antialiased; the aspect ratio is not
  kept. The image is resized as 16-bit values, which OpenCV interpolates in float32 and rounds; its
  arithmetic for bytes is biased by a ninth of a grey level.

  Args:
    image: [h, w, 3] uint8.
    size: Side of the result in pixels.
    out: [size, size, 3] uint8, contiguous, for the result; None for a new array.

  Returns:
    [size, size, 3] uint8, within half a grey level of the exact values; the image itself if it has
    that size and `out` is None.
  """
  if image.shape[:2] == (size, size):
    if out is None:
      return image
    np.copyto(out, image)
    return out
  out = np.empty((size, size, 3), np.uint8) if out is None else out
  wide = _scratch.array("wide", image.shape)
  np.copyto(wide, image)
  target = _scratch.array("target", out.shape)
  resized = cv2.resize(wide, (size, size), dst=target, interpolation=cv2.INTER_LINEAR)
  np.copyto(out, resized, casting="unsafe")  # no value is above 255
  return out


def contain(image: np.ndarray, side: int) -> np.ndarray:
  """Fits an image into a white square and keeps its shape: for pictures, not for the network.

  Args:
    image: [h, w, 3] uint8.
    side: Of the square, in pixels.

  Returns:
    [side, side, 3] uint8.
  """
  resample = Image.Resampling.BOX
  return np.asarray(ImageOps.pad(Image.fromarray(image), (side, side), resample, "white"))


class _Scratch(threading.local):
  """Arrays that a thread reuses for the next image.

  A new array for each image would need new memory pages. Their first use takes longer than the
  resize, and threads wait for each other meanwhile.
  """

  def __init__(self) -> None:
    self._buffers: dict[str, np.ndarray] = {}

  def array(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Returns an uninitialised array, [*shape] uint16."""
    count = math.prod(shape)
    if count > _KEPT_VALUES:
      return np.empty(shape, np.uint16)
    buffer = self._buffers.get(name)
    if buffer is None or buffer.size < count:
      buffer = self._buffers[name] = np.empty(count, np.uint16)
    return buffer[:count].reshape(shape)


_scratch = _Scratch()
