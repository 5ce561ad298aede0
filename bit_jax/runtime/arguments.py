"""Arguments of the form `key=value,...`, such as a config file's, by a specification."""

import dataclasses
from collections.abc import Callable, Container, Mapping
from typing import Any

from bit_jax.runtime import errors, phrases


@dataclasses.dataclass(frozen=True)
class Argument:
  """The values of one key.

  Attributes:
    default: The value if the key isn't given.
    parse: Converts text to the value; a `ValueError` or `KeyError` means that it is
      not valid.
    form: A description of valid values, for the error message.
    takes_rest: The value is all remaining text, commas and equals signs included.
  """

  default: Any
  parse: Callable[[str], Any] = str
  form: str = "text"
  takes_rest: bool = False


def integer(default: int | str | None, minimum: int, maximum: int | None = None) -> Argument:
  """Returns an argument that is a whole number in [minimum, maximum], or a `default` that is text.

  Args:
    default: The value if the key isn't given; a text such as 'auto' can also be given.
    minimum: The least number.
    maximum: The largest number; None for any.
  """
  limits = f"of at least {minimum}" if maximum is None else f"from {minimum} to {maximum}"
  form = f"a whole number {limits}"

  def parse(text: str) -> int | str:
    if text == default:
      return text
    if int(text) < minimum or (maximum is not None and int(text) > maximum):
      raise ValueError
    return int(text)

  return Argument(default, parse, f"{default}, or {form}" if isinstance(default, str) else form)


def boolean(hint: str = "") -> Argument:
  """Returns an argument that is true or false, and None if it isn't given.

  Args:
    hint: Follows 'it takes true or false' in the error message.
  """
  values = {"true": True, "false": False}
  return Argument(None, lambda text: values[text.lower()], f"true or false{hint}")


def choice(default: str | None, values: tuple[str, ...]) -> Argument:
  """Returns an argument that is one of `values`."""
  return Argument(default, {v: v for v in values}.__getitem__, f"one of {', '.join(values)}")


def parse(
  text: str | None,
  specification: Mapping[str, Argument],
  what: str = "config argument",
  fields: Container[str] = (),
) -> dict[str, Any]:
  """Parses e.g. 'model=BiT-M-R101x3,shots=5' into a value for every key of the specification.

  Args:
    text: The arguments; None for none.
    specification: {key: its values}.
    what: The name of the arguments in error messages.
    fields: Names that are no arguments, but fields of a config.

  Raises:
    UserError: An unknown or repeated key, or an invalid value; the message names valid ones.
  """
  values = {name: a.default for name, a in specification.items()}
  seen = set()
  rest = text or ""
  while rest:
    name, equals, rest = rest.partition("=")
    if name not in specification:
      hint = phrases.did_you_mean(name, list(specification))
      if name in fields:
        hint = f": use --config.{name}=VALUE"
      raise errors.UserError(
        f"Unknown {what} {name!r}{hint}. The {what}s are {', '.join(specification)}, given as "
        f"key=value and separated by commas."
      )
    if not equals or name in seen:
      problem = "is given twice" if name in seen else f"needs a value: {name}=..."
      raise errors.UserError(f"The {what} {name} {problem}.")
    seen.add(name)
    argument = specification[name]
    value, _, rest = (rest, "", "") if argument.takes_rest else rest.partition(",")
    try:
      values[name] = argument.parse(value)
    except (ValueError, KeyError) as e:
      reason = str(e) if isinstance(e, errors.UserError) else f"it takes {argument.form}."
      raise errors.UserError(f"The {what} {name}={value} can't be used: {reason}") from e
  return values
