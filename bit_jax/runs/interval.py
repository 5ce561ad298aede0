"""The confidence interval of an accuracy."""

import math

_Z = 1.959963984540054  # of a normal distribution, 95% lie within as many standard deviations


def wilson(share: float, number: int) -> tuple[float, float]:
  """Returns Wilson's 95% interval of a share: (low, high) in [0, 1].

  Args:
    share: Share of the images that are right, in [0, 1].
    number: Number of images, at least 1.
  """
  scale = 1 + _Z**2 / number
  centre = (share + _Z**2 / (2 * number)) / scale
  half = _Z * math.sqrt(share * (1 - share) / number + _Z**2 / (4 * number**2)) / scale
  return max(0.0, centre - half), min(1.0, centre + half)
