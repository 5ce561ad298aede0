"""The confidence interval of an accuracy."""

import math

_FEW = 1000  # images, below which an accuracy is shown with its interval
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


def of_few(share: float, number: int) -> str:
  """Returns e.g. '95% interval 83% to 94%' for the share of few images, '' for many or none."""
  if not 0 < number < _FEW:
    return ""
  low, high = wilson(share, number)
  return f"95% interval {low:.0%} to {high:.0%}"


def in_brackets(share: float, number: int) -> str:
  """Returns `of_few` to follow an accuracy in a line: ' (95% interval 83% to 94%)', or ''."""
  text = of_few(share, number)
  return f" ({text})" if text else ""
