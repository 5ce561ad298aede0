"""Images resized on the host, once, to the size from which crops are taken."""

import cv2
import numpy as np

cv2.setNumThreads(0)  # `stream` reads several images at a time; more threads would only compete


def resize(image: np.ndarray, size: int) -> np.ndarray:
  """Resizes an image to a square as `tf.image.resize` does, and rounds to whole grey levels.

  Bilinear with half-pixel centres, clamped at the edges, not antialiased; the aspect ratio is not
  kept. Computed in float32, because OpenCV's own arithmetic for bytes is biased by a ninth of a
  grey level.

  Args:
    image: [h, w, 3] uint8.
    size: Side of the result in pixels.

  Returns:
    [size, size, 3] uint8, within half a grey level of the exact values.
  """
  if image.shape[:2] == (size, size):
    return image
  exact = cv2.resize(image.astype(np.float32), (size, size), interpolation=cv2.INTER_LINEAR)
  return cv2.convertScaleAbs(exact)
