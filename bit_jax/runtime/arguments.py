"""Text of the form `key=value,...`, such as a config file's argument, by a closed specification."""

import dataclasses
import difflib
from collections.abc import Callable, Mapping
from typing import Any

from bit_jax.runtime import errors


@dataclasses.dataclass(frozen=True)
class Argument:
  """What one key may be.

  Attributes:
    default: Value where the key isn't given.
    parse: Turns the text into the value; a `ValueError` means that the text isn't one.
    form: What a value looks like, for the error message.
    takes_rest: The value is all the text that is left, commas and equals signs included.
  """

  default: Any
  parse: Callable[[str], Any] = str
  form: str = "text"
  takes_rest: bool = False


def integer(default: int | None, minimum: int, maximum: int | None = None) -> Argument:
  """Returns an argument that is a whole number from `minimum` to `maximum`, if there is one."""
  form = f"a whole number of at least {minimum}"
  if maximum is not None:
    form = f"a whole number from {minimum} to {maximum}"

  def parse(text: str) -> int:
    if int(text) < minimum or (maximum is not None and int(text) > maximum):
      raise ValueError
    return int(text)

  return Argument(default, parse, form)


def integer_or(default: str, minimum: int) -> Argument:
  """Returns an argument that is a whole number of at least `minimum`, or the text `default`."""
  number = integer(None, minimum)
  form = f"{default}, or {number.form}"
  return Argument(default, lambda text: text if text == default else number.parse(text), form)


def boolean() -> Argument:
  """Returns an argument that is true or false, and None where it isn't given."""

  def parse(text: str) -> bool:
    if text.lower() not in ("true", "false"):
      raise ValueError
    return text.lower() == "true"

  return Argument(None, parse, "true or false")


def choice(default: str | None, values: tuple[str, ...]) -> Argument:
  """Returns an argument that is one of `values`."""

  def parse(text: str) -> str:
    if text not in values:
      raise ValueError
    return text

  return Argument(default, parse, f"one of {', '.join(values)}")


def parse(
  text: str | None, specification: Mapping[str, Argument], what: str = "config argument"
) -> dict[str, Any]:
  """Parses e.g. 'model=BiT-M-R101x3,shots=5' into a value for every key of the specification.

  Args:
    text: What is given; None: nothing.
    specification: {key: what it may be}.
    what: What the keys are, for error messages.

  Raises:
    UserError: An unknown or repeated key, or a text that isn't a value of its key; names what is
      allowed.
  """
  values = {name: a.default for name, a in specification.items()}
  seen = set()
  rest = text or ""
  while rest:
    name, equals, rest = rest.partition("=")
    if name not in specification:
      raise errors.UserError(_unknown(name, specification, what))
    if not equals or name in seen:
      problem = "is given twice" if name in seen else f"needs a value: {name}=..."
      raise errors.UserError(f"The {what} {name} {problem}.")
    seen.add(name)
    argument = specification[name]
    value, _, rest = (rest, "", "") if argument.takes_rest else rest.partition(",")
    try:
      values[name] = argument.parse(value)
    except ValueError as e:
      reason = str(e) if isinstance(e, errors.UserError) else f"it takes {argument.form}."
      raise errors.UserError(f"The {what} {name}={value} can't be used: {reason}") from e
  return values


def _unknown(name: str, specification: Mapping[str, Argument], what: str) -> str:
  close = difflib.get_close_matches(name, specification, n=1)
  hint = f" (did you mean {close[0]}?)" if close else ""
  return (
    f"There is no {what} {name!r}{hint}; the {what}s are {', '.join(specification)}, given as "
    f"key=value and separated by commas."
  )
