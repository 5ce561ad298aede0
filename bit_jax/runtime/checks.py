"""Checks of values that a user gives: each raises a `UserError` that names what is allowed."""

import numbers

from bit_jax.runtime import errors


def one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
  """Raises a `UserError` unless `value` is one of `allowed`."""
  if value not in allowed:
    raise errors.UserError(f"{name}={value!r} is not known; it is one of {', '.join(allowed)}.")


def whole(name: str, value: object, minimum: int) -> None:
  """Raises a `UserError` unless `value` is a whole number of at least `minimum`."""
  if not isinstance(value, numbers.Integral):
    raise errors.UserError(f"{name} must be a whole number, not {value!r}.")
  at_least(name, int(value), minimum)


def at_least(name: str, value: float, minimum: float) -> None:
  """Raises a `UserError` unless `value` is a number of at least `minimum`."""
  if not value >= minimum:
    raise errors.UserError(f"{name} must be at least {minimum:g}, not {value!r}.")


def in_range(name: str, value: float, minimum: float, maximum: float) -> None:
  """Raises a `UserError` unless `value` is a number from `minimum` to `maximum`."""
  at_least(name, value, minimum)
  if value > maximum:
    limit = f"{maximum:,}" if type(maximum) is int else f"{maximum:g}"
    raise errors.UserError(f"{name} must be at most {limit}, not {value!r}.")
