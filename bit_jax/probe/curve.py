"""Learning curves: error against examples per class as a power law, and what twice as many bring.

The error of a network with n examples per class is modelled as a n^-b + c. Its forecast for twice
the largest n comes with a bootstrap interval of the gain, which accounts for

- the random subsets: whole seeds are resampled, since subsets of a seed are nested;
- the test images, which are resampled as well;
- the pool that subsets are drawn from: large subsets of it resemble each other more than those of
  other pools, so a common deviation is added, as large as the seeds' deviations would be without
  that resemblance (finite-population correction).
"""

import dataclasses
from typing import NamedTuple

import numpy as np

LEAST = 4  # numbers of examples that a curve is fitted to
_MOST = 6  # the largest ones: over longer ranges, real curves are no power laws
_EXPONENTS = np.geomspace(0.02, 2, 140)  # candidates of b
_REPLICATES = 1000
_QUANTILES = (0.025, 0.975)
_LACK_OF_FIT = 0.1  # p-value below which the smallest number of examples is left out of the fit
_BELOW_ZERO = 0.25  # times the last error: how far c of a replicate may fall below 0
_CHUNK = 2**24  # weights of test images at once
_TINY = 1e-12


@dataclasses.dataclass(frozen=True)
class PowerLaw:
  """The error as a function of the examples per class, a n^-b + c; a and c are at least 0."""

  a: float
  b: float
  c: float

  def at(self, n: np.ndarray | float) -> np.ndarray:
    """Returns the error with `n` examples per class."""
    return self.a * np.asarray(n, np.float64) ** -self.b + self.c


@dataclasses.dataclass(frozen=True)
class Measurements:
  """Errors of classifiers that were trained on subsets of several sizes.

  Attributes:
    sizes: [K] integer: examples per class, ascending.
    wrong: [S, K, M] bool: whether the classifier of a seed and size is wrong on each test image.
      The subsets of a seed are nested.
    share: [K] float in (0, 1]: the part of all training examples that is in a subset.
  """

  sizes: np.ndarray
  wrong: np.ndarray
  share: np.ndarray

  @property
  def errors(self) -> np.ndarray:
    """Returns the error of each seed and size, [S, K] in [0, 1]."""
    return np.asarray(self.wrong.mean(axis=2))


@dataclasses.dataclass(frozen=True)
class Forecast:
  """A fitted curve, and the error with more examples per class.

  Attributes:
    law: The curve.
    first: Index of the smallest of the sizes that it was fitted to.
    last: The largest of the sizes.
    replicates: a n^-b at n = `last`, and b, of the bootstrap replicates; [B] each.
  """

  law: PowerLaw
  first: int
  last: int
  replicates: tuple[np.ndarray, np.ndarray]

  @property
  def now(self) -> float:
    """Returns the error on the curve with the largest size."""
    return float(self.law.at(self.last))

  def error(self, n: float) -> float:
    """Returns the error with `n` examples per class."""
    return float(self.law.at(n))

  def interval(self, n: float) -> tuple[float, float]:
    """Returns the 95% interval of the error with `n` examples per class, no less than `last`.

    It is that of the gain over `now`: how precisely the test images measure today's error is not
    part of it.
    """
    excess, exponents = self.replicates
    gains = excess * (1 - (n / self.last) ** -exponents)
    least, most = np.quantile(gains, _QUANTILES)
    return max(0.0, self.now - float(most)), self.now - float(least)

  @property
  def shows_gain(self) -> bool:
    """Returns whether the interval for twice the examples excludes today's error, as printed."""
    return round(1000 * self.interval(2 * self.last)[1]) < round(1000 * self.now)


def sizes(available: int) -> list[int]:
  """Returns the sizes of subsets for a curve: 1, 2, 5, 10, 20, 50 ... and all.

  Args:
    available: Examples of the smallest class.

  Returns:
    Ascending sizes, the last of which is `available`; all of them up to 9, which has no room for
    `LEAST` of the series.
  """
  if available < 10:
    return list(range(1, available + 1))
  series = [m * 10**e for e in range(len(str(available))) for m in (1, 2, 5)]
  return [*(n for n in series if n <= 0.8 * available), available]


def fit(sizes: np.ndarray, errors: np.ndarray, weights: np.ndarray | None = None) -> PowerLaw:
  """Fits a power law by least squares, with a and c at least 0 and b from 0.02 to 2.

  For a given b the law is linear in a and c, so the best b is searched in one dimension: the best
  of a grid, refined between its neighbours. There is no initial guess, and no local minimum.

  Args:
    sizes: [K] examples per class, K at least 3.
    errors: [K] float in [0, 1].
    weights: [K] positive weights of the squared residuals; None: equal ones.
  """
  from scipy import optimize

  weights = np.ones(len(sizes)) if weights is None else weights

  def of(exponents: np.ndarray) -> _Fits:
    return _best(sizes, np.asarray(errors, np.float64)[None], weights, exponents)

  found = of(_EXPONENTS)
  place = int(np.flatnonzero(found.b[0] == _EXPONENTS)[0])
  neighbours = _EXPONENTS[max(place - 1, 0)], _EXPONENTS[min(place + 1, len(_EXPONENTS) - 1)]
  refined = optimize.minimize_scalar(
    lambda b: of(np.array([b])).residual[0],
    bounds=neighbours,
    method="bounded",
    options={"xatol": 1e-10},
  )
  found = of(np.array([refined.x, found.b[0]]))
  b = float(found.b[0])
  return PowerLaw(float(found.excess[0]) * float(sizes[-1]) ** b, b, float(found.c[0]))


def forecast(measured: Measurements, seed: int = 0) -> Forecast:
  """Fits the curve and its bootstrap replicates.

  Means over seeds are fitted, weighted by the inverse variance between seeds, from the six largest
  sizes. As long as they fit a power law worse than replicates of it do, the smallest one is left
  out, down to four.

  Args:
    measured: At least two seeds and `LEAST` sizes.
    seed: Of the bootstrap.
  """
  random = np.random.Generator(np.random.Philox(seed))
  n, means = measured.sizes.astype(np.float64), measured.errors.mean(axis=0)
  variance = _variance(measured)
  replicates = _replicates(measured, variance, random)
  weights = 1 / (variance + _TINY)
  first = max(0, len(n) - _MOST)
  while True:
    used = slice(first, None)
    law = fit(n[used], means[used], weights[used])
    # In the replicates c may be slightly negative: at 0, half of them would be cut off there, and
    # the interval would be too short on one side.
    shift = _BELOW_ZERO * means[-1]
    rows = replicates[:, used] + shift
    found = _best(n[used], rows, weights[used], _EXPONENTS)
    curves = found.excess[:, None] * (n[used] / n[-1]) ** -found.b[:, None] + found.c[:, None]
    if len(n) - first <= LEAST or _fits(means[used] - law.at(n[used]), rows - curves):
      return Forecast(law, first, int(measured.sizes[-1]), (found.excess, found.b))
    first += 1


def _fits(residuals: np.ndarray, of_replicates: np.ndarray) -> bool:
  """Returns whether residuals, [K], are no larger than noise makes them, [B, K]."""
  spread = of_replicates.var(axis=0) + _TINY
  noise = ((of_replicates - residuals) ** 2 / spread).sum(axis=1)
  return bool(np.mean(noise >= (residuals**2 / spread).sum()) >= _LACK_OF_FIT)


def _variance(measured: Measurements) -> np.ndarray:
  """Returns the variance between subsets of different pools at each size, [K].

  That between seeds is corrected for the common pool and smoothed: a power of the size between 0
  and -2.
  """
  between = measured.errors.var(axis=0, ddof=1)
  known = (measured.share < 0.9) & (between > 0)
  if not known.any():
    return np.zeros(len(between))
  x = np.log(measured.sizes.astype(np.float64))
  y = np.log(between[known] / (1 - measured.share[known]))
  centred = x[known] - x[known].mean()
  slope = centred @ y / (centred @ centred) if known.sum() > 1 else 0.0
  return np.asarray(np.exp(y.mean() + np.clip(slope, -2, 0) * (x - x[known].mean())))


def _replicates(
  measured: Measurements, variance: np.ndarray, random: np.random.Generator
) -> np.ndarray:
  """Returns bootstrap replicates of the mean errors, [B, K] in [0, 1]."""
  num_seeds, num_sizes, num_images = measured.wrong.shape
  flat = measured.wrong.reshape(num_seeds * num_sizes, num_images).astype(np.float32)
  rows = max(1, _CHUNK // num_images)
  parts = []
  for start in range(0, _REPLICATES, rows):
    count = min(rows, _REPLICATES - start)
    images = random.multinomial(num_images, np.full(num_images, 1 / num_images), count)
    seeds = random.multinomial(num_seeds, np.full(num_seeds, 1 / num_seeds), count) / num_seeds
    # The variance of S resampled seeds is (S - 1) / S of the right one.
    seeds = 1 / num_seeds + (seeds - 1 / num_seeds) * np.sqrt(num_seeds / (num_seeds - 1))
    of_seeds = (flat @ images.T.astype(np.float32)).reshape(num_seeds, num_sizes, count)
    parts.append(np.einsum("bs,skb->bk", seeds, of_seeds / num_images))
  pool = random.standard_normal((_REPLICATES, 1)) * np.sqrt(variance * measured.share)
  return np.asarray(np.clip(np.concatenate(parts) + pool, 0, 1))


class _Fits(NamedTuple):
  """Power laws; [B] each.

  Attributes:
    excess: a n^-b at the largest size n, at least 0.
    b: The exponent.
    c: At least 0.
    residual: The weighted mean of the squared residuals.
  """

  excess: np.ndarray
  b: np.ndarray
  c: np.ndarray
  residual: np.ndarray


def _best(
  sizes: np.ndarray, errors: np.ndarray, weights: np.ndarray, exponents: np.ndarray
) -> _Fits:
  """Fits a power law to each row of errors, in closed form for each of some exponents.

  Args:
    sizes: [K] examples per class.
    errors: [B, K], at least 0.
    weights: [K], positive.
    exponents: [G] candidates of b, the best of which is taken.
  """
  w = weights / weights.sum()
  powers = (sizes / sizes[-1]) ** -exponents[:, None]  # [G, K], 1 at the largest size
  mean, means = powers @ w, errors @ w  # [G], [B]
  centred = errors - means[:, None]
  covariance = centred @ (w * (powers - mean[:, None])).T  # [B, G]
  spread = (powers - mean[:, None]) ** 2 @ w
  total = centred**2 @ w
  excess = covariance / spread
  c = means[:, None] - excess * mean
  # Where a bound is active, the optimum lies on one of them: a constant, or c = 0.
  product, square = errors @ (w * powers).T, powers**2 @ w
  through_zero = product / square
  left_constant = np.broadcast_to(total[:, None], product.shape)
  left_zero = (errors**2 @ w)[:, None] - through_zero * product
  constant = left_constant <= left_zero
  outside = (excess < 0) | (c < 0)
  left = np.where(
    outside, np.minimum(left_constant, left_zero), total[:, None] - excess * covariance
  )
  excess = np.where(outside, np.where(constant, 0.0, through_zero), excess)
  c = np.where(outside, np.where(constant, means[:, None], 0.0), c)
  rows, best = np.arange(len(errors)), left.argmin(axis=1)
  return _Fits(excess[rows, best], exponents[best], c[rows, best], left[rows, best])
