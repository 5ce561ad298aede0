"""Python files that users write, configs and sweeps: their imports, and errors raised in them."""

import os
import sys
import traceback

from bit_jax.runtime import errors


def add_to_import_path(path: str) -> None:
  """Lets a Python file import its neighbours as `configs.base`, whatever the current folder is."""
  folder = os.path.dirname(os.path.abspath(path))
  if os.path.isfile(os.path.join(folder, "__init__.py")):
    sys.path.append(os.path.dirname(folder))


def line_in(path: str, error: BaseException) -> int | None:
  """Returns the line of a Python file in which an error arose, None if it didn't arise there."""
  lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == path]
  if isinstance(error, SyntaxError) and (error.filename == path or not lines):
    return error.lineno
  return lines[-1] if lines else None


def failure(kind: str, path: str, error: BaseException) -> errors.UserError:
  """Returns the error to raise where a user's Python file fails; it names the line.

  Args:
    kind: What the file is, such as 'config file'.
    path: The file.
    error: What the file raised.
  """
  line = line_in(path, error)
  where = "" if line is None else f" in line {line}"
  return errors.UserError(
    f"The {kind} {path} fails{where}: {type(error).__name__}: {errors.first_line(error)}."
  )
