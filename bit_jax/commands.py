"""What all command lines share: a user's mistake ends in one sentence, and so does Ctrl-C."""

import difflib
import os
import re
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from absl import flags
from ml_collections import config_flags

from bit_jax import errors, interruption

MISTAKE, INTERRUPTED = 2, 130  # exit statuses
_KINDS = {
  int: "a whole number",
  float: "a number",
  bool: "true or false",
  tuple: "numbers in brackets, such as (200,300,400)",
}


def run(main: Callable[[Sequence[str]], None], argv: Sequence[str]) -> int:
  """Calls `main(argv)` and returns the exit status; prints mistakes without a traceback."""
  try:
    main(argv)
  except errors.UserError as e:
    print(f"error: {e}", file=sys.stderr)
    return MISTAKE
  except BrokenPipeError:  # `... | head`; the interpreter must not flush into the pipe again
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
  except OSError as e:  # a full disk, most likely
    print(f"error: {e}; the same command goes on once that is mended.", file=sys.stderr)
    return MISTAKE
  except (AssertionError, RuntimeError):  # what JAX raises where it has no device
    if sentence := _device_mistake():
      print(f"error: {sentence}", file=sys.stderr)
      return MISTAKE
    raise
  except interruption.Interrupted as e:
    print(e, file=sys.stderr)
    return INTERRUPTED
  except KeyboardInterrupt:
    print("Interrupted; what was not saved before is lost.", file=sys.stderr)
    return INTERRUPTED
  return 0


def _device_mistake() -> str | None:
  """Returns a sentence if JAX has no device, which may have led to any error; else None."""
  from bit_jax import platforms  # most commands need no JAX, which takes seconds to import

  try:
    platforms.require()
  except errors.UserError as e:
    return str(e)
  return None


def leave(status: int) -> NoReturn:
  """Ends the process; after Ctrl-C without waiting for threads, which may compile or download."""
  if status == INTERRUPTED:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
  sys.exit(status)


def parse(flag_values: flags.FlagValues, argv: Sequence[str]) -> None:
  """Parses a command line whose flags, `config` among them, are defined on `flag_values`.

  Args:
    flag_values: The flags.
    argv: The program's name, then its arguments.

  Raises:
    UserError: An unknown flag, a config file that isn't there, or a field or value that it doesn't
      have.
  """
  _find_config_file(argv)
  try:
    rest = flag_values(argv)[1:]
  except (AttributeError, KeyError) as e:
    raise errors.UserError(_unknown_field(argv)) from e
  except (ImportError, SyntaxError) as e:
    raise errors.UserError(f"The config file can't be loaded: {one_line(e)}.") from e
  except flags.IllegalFlagValueError as e:
    raise errors.UserError(_root_mistake(e) or _bad_value(argv, e)) from e
  except (flags.Error, TypeError, ValueError) as e:
    raise errors.UserError(_root_mistake(e) or f"{one_line(e)}.") from e
  if rest:
    raise errors.UserError(f"What is {rest[0]!r}? Flags begin with two dashes: --config=FILE.")


def define_config(flag_values: flags.FlagValues, argv: Sequence[str]) -> flags.FlagHolder[Any]:
  """Defines `--config=FILE[:key=value,...]` with `--config.field=value` overrides."""
  return config_flags.DEFINE_config_file(
    "config",
    None,
    "the config file, with arguments after a colon",
    flag_values=flag_values,
    sys_argv=list(argv),
  )


def show_neighbours(path: str) -> None:
  """Lets a Python file import its neighbours as `configs.base`, from wherever the command runs."""
  folder = os.path.dirname(os.path.abspath(path))
  if os.path.isfile(os.path.join(folder, "__init__.py")):
    sys.path.append(os.path.dirname(folder))


def _find_config_file(argv: Sequence[str]) -> None:
  for previous, text in zip(["", *argv], argv, strict=False):
    name, equals, value = text.lstrip("-").partition("=")
    if previous in ("--config", "-config"):
      value = text
    elif name != "config" or not equals:
      continue
    path = value.partition(":")[0]
    if not os.path.isfile(path):
      raise errors.UserError(
        f"There is no config file {path!r}: give its path, such as --config=configs/cifar10.py."
      )
    show_neighbours(path)


def _root_mistake(error: BaseException) -> str | None:
  """Returns the sentence of the user's mistake that led to an error, if that is what did.

  The innermost one: ml_collections wraps an error of a config file in one of the same type that has
  the whole traceback for its message.
  """
  sentence = None
  cause: BaseException | None = error
  while cause is not None:
    if isinstance(cause, errors.UserError):
      sentence = str(cause)
    cause = cause.__cause__ or cause.__context__
  return sentence


def one_line(error: BaseException) -> str:
  """Returns the first line of an error's message, without a full stop.

  Of a config's field that doesn't exist ml_collections says so, and lists the values of all others.
  """
  text = str(error).strip()
  if unknown := re.search(r'Key "(.*?)" does not exist and cannot be added', text):
    meant = re.search(r'Did you mean "(.*?)" instead', text)
    hint = f" (did you mean {meant[1]!r}?)" if meant else ""
    return f"the config has no field {unknown[1]!r}{hint}"
  return text.splitlines()[0].rstrip(".") if text else type(error).__name__


def _unknown_field(argv: Sequence[str]) -> str:
  """Returns a sentence on the first override that names no field of the config."""
  try:
    fields = list(_config_alone(argv).keys())
  except (AttributeError, KeyError) as e:  # it was the file that set it
    return f"The config file can't be loaded: {one_line(e)}."
  for text in argv:
    name = text.lstrip("-").partition("=")[0]
    field = name.removeprefix("config.")
    if name.startswith("config.") and field not in fields:
      close = difflib.get_close_matches(field, fields, n=1)
      hint = f": did you mean {close[0]}?" if close else "."
      return f"The config has no field {field!r}{hint} Its fields are {', '.join(fields)}."
  return "A field on the command line can't be set in this config."


def _bad_value(argv: Sequence[str], error: flags.IllegalFlagValueError) -> str:
  """Returns a sentence on a value that its field can't take."""
  flag = one_line(error).removeprefix("flag --").partition(": ")[0]
  name, _, value = flag.partition("=")
  field = name.removeprefix("config.")
  if field == name:
    return f"The flag --{name} can't be {value!r}."
  kind = _KINDS.get(_config_alone(argv).get_type(field), "another value")
  return f"The field {field} takes {kind}, not {value!r}."


def _config_alone(argv: Sequence[str]) -> Any:
  """Returns the config of a command line without its overrides."""
  values = flags.FlagValues()
  own = [text for text in argv if not text.lstrip("-").startswith("config.")]
  holder = define_config(values, own)
  values(own, known_only=True)
  return holder.value
