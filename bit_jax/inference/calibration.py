"""Calibration: how far the confidence of predictions and their accuracy are apart."""

import numpy as np

BINS = 15  # of equal width, as in Guo et al. 2017


def calibration_error(confidence: np.ndarray, correct: np.ndarray) -> float:
  """Returns the expected calibration error of Guo et al. 2017 (arXiv:1706.04599, equation 3).

  Images are sorted into `BINS` bins of equal width by the confidence of their prediction, bin m for
  confidences in ((m - 1) / BINS, m / BINS]. The error is the mean over images of the difference
  between mean confidence and accuracy in their bin. It is 0 if 80% of the predictions with 80%
  confidence are correct, and so on.

  Args:
    confidence: [N] float: the probability of each prediction, in [0, 1]; N at least 1.
    correct: [N] bool: whether the prediction is the label.

  Returns:
    The error, in [0, 1].
  """
  edges = np.linspace(0, 1, BINS + 1, dtype=confidence.dtype)
  bins = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, BINS - 1)
  differences = correct - confidence.astype(np.float64)
  gaps = np.bincount(bins, weights=differences, minlength=BINS)  # times the images of each bin
  return float(np.abs(gaps).sum() / len(confidence))
