"""Closed-form ridge regression from features to classes, in float64 on the host.

The definition is that of big_vision's few-shot evaluator: each feature is shifted and scaled to
mean 0 and standard deviation 1 over the training examples, a constant feature of 100 carries the
bias, targets are 1 for the example's class and -1 for the others, and the squared norm of all
weights is penalised with 2^10.

Source: google-research/big_vision, `big_vision/evaluators/fewshot_lsr.py` and
`big_vision/configs/common_fewshot.py`.
"""

import dataclasses
from collections.abc import Iterable, Iterator

import numpy as np

L2 = 2.0**10
BIAS = 100.0
_SMALLEST = 1e-5  # is added to each standard deviation, so that constant features divide by no zero
_BLOCK = 2**24  # float64 values in a block: 128 MiB


@dataclasses.dataclass(frozen=True)
class Ridge:
  """A linear map from features to the scores of classes.

  Attributes:
    weights: [F, C] float64, for features as they are, neither shifted nor scaled.
    offsets: [C] float64.
  """

  weights: np.ndarray
  offsets: np.ndarray

  def predict(self, features: np.ndarray) -> np.ndarray:
    """Returns the class with the highest score of each example, [M] int64.

    Args:
      features: [M, F] float.
    """
    found = [
      np.argmax(block @ self.weights + self.offsets, axis=1)
      for block in _blocks(features, max(self.weights.shape))
    ]
    return np.concatenate(found)


def fit(features: np.ndarray, labels: np.ndarray, num_classes: int, l2: float = L2) -> Ridge:
  """Fits the regression by its normal equations, in the smaller of both forms.

  The shifted features sum to 0, so the bias is independent of all other weights. With X the shifted
  and scaled features, [N, F], and Y the targets, [N, C], those are

      (X'X + l2 I)^-1 X'Y = X' (XX' + l2 I)^-1 Y,

  whose matrices to factorise have F or N rows.

  Args:
    features: [N, F] float, finite, N at least 1.
    labels: [N] integer, 0 to `num_classes - 1`; a class may be absent.
    num_classes: C.
    l2: The penalty, above 0.
  """
  n, dimension = features.shape
  mean = features.mean(axis=0, dtype=np.float64)
  squares = sum(np.square(block - mean).sum(axis=0) for block in _blocks(features, dimension))
  scale = np.sqrt(squares / n) + _SMALLEST
  if n <= dimension:
    weights = _dual((features - mean) / scale, labels, num_classes, l2)
  else:
    shifted = ((block - mean) / scale for block in _blocks(features, dimension))
    weights = _primal(shifted, labels, (dimension, num_classes), l2)
  weights = weights / scale[:, None]
  counts = np.bincount(labels, minlength=num_classes)
  bias = BIAS**2 * (2.0 * counts - n) / (n * BIAS**2 + l2)
  return Ridge(weights, bias - mean @ weights)


def _dual(x: np.ndarray, labels: np.ndarray, num_classes: int, l2: float) -> np.ndarray:
  """Returns X' (XX' + l2 I)^-1 Y, [F, C]."""
  from scipy import linalg  # a quarter of a second

  gram = x @ x.T
  gram.flat[:: len(gram) + 1] += l2
  targets = np.where(labels[:, None] == np.arange(num_classes), 1.0, -1.0)
  return np.asarray(x.T @ linalg.solve(gram, targets, assume_a="pos", overwrite_a=True))


def _primal(
  blocks: Iterable[np.ndarray], labels: np.ndarray, shape: tuple[int, int], l2: float
) -> np.ndarray:
  """Returns (X'X + l2 I)^-1 X'Y, [F, C] as in `shape`, without the [N, C] targets."""
  from scipy import linalg

  dimension, num_classes = shape
  gram, sums = np.zeros((dimension, dimension)), np.zeros((num_classes, dimension))
  start = 0
  for x in blocks:
    gram += x.T @ x
    _add_sums(sums, x, labels[start : start + len(x)])
    start += len(x)
  gram.flat[:: dimension + 1] += l2
  # X'Y is twice the sums of the classes, less the sum of all, which is 0.
  return np.asarray(linalg.solve(gram, 2 * sums.T, assume_a="pos", overwrite_a=True))


def _add_sums(sums: np.ndarray, x: np.ndarray, labels: np.ndarray) -> None:
  """Adds the examples, [b, F], to the sums of their classes, [C, F]."""
  order = np.argsort(labels, kind="stable")
  present, first = np.unique(labels[order], return_index=True)
  sums[present] += np.add.reduceat(x[order], first, axis=0)


def _blocks(features: np.ndarray, width: int) -> Iterator[np.ndarray]:
  """Yields the rows in float64, as many at once as have few values where a row has `width`."""
  rows = max(1, _BLOCK // width)
  for start in range(0, len(features), rows):
    yield features[start : start + rows].astype(np.float64)
