"""Python files that users write, configs and sweeps: their imports, and errors raised in them."""

import importlib
import importlib.util
import os
import pathlib
import sys
import traceback

from bit_jax.runtime import errors

# The configs of the package; importing it here would be an import upwards.
CONFIGS = pathlib.Path(__file__).parents[1] / "configs"


def add_to_import_path(path: str) -> None:
  """Lets a Python file import its sibling modules as `configs.base`, from any current folder.

  Where no package `configs` is found, or a folder without `__init__.py`, the name means
  `bit_jax.configs`, with the files of such a folder beside it.
  """
  folder = os.path.dirname(os.path.abspath(path))
  packaged = os.path.realpath(folder) == os.path.realpath(CONFIGS)
  if not packaged and os.path.isfile(os.path.join(folder, "__init__.py")):
    sys.path.append(os.path.dirname(folder))
  spec = importlib.util.find_spec("configs")
  if spec is None or spec.origin is None:
    package = importlib.import_module("bit_jax.configs")
    package.__path__.extend(spec.submodule_search_locations or () if spec else ())
    sys.modules["configs"] = package


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
  moved = isinstance(error, ImportError) and (error.name or "").startswith("bit_jax")
  hint = " Import paths changed in version 0.2.0; see CHANGELOG.md." if moved else ""
  return errors.UserError(
    f"The {kind} {path} fails{where}: {type(error).__name__}: {errors.first_line(error)}.{hint}"
  )
