"""Matplotlib, imported only where it is used, whatever backend the environment names.

Jupyter and Colab export an MPLBACKEND whose package need not be installed here; matplotlib then
raises a ValueError on import, and so does TensorFlow, whose Keras imports matplotlib.
"""

import contextlib
import logging
import os
import sys
from collections.abc import Iterator
from types import ModuleType


def matplotlib() -> ModuleType:
  """Returns matplotlib. MPLBACKEND stays the caller's: it is applied where matplotlib knows it.

  Raises:
    ImportError: It isn't installed, or is broken, or one of its settings files can't be read.
  """
  logged: list[str] = []
  try:
    if "matplotlib" in sys.modules:
      import matplotlib
    else:
      with _without_backend() as backend, _logging_into(logged):
        import matplotlib
      if backend:
        with contextlib.suppress(ValueError, ImportError):
          matplotlib.rcParams["backend"] = backend
  except ImportError:
    raise
  except Exception as e:
    reasons = [f"{type(e).__name__}: {e}", *logged[-1:]]  # which may name the settings file
    raise ImportError(f"matplotlib can't be imported ({'; '.join(reasons)})") from e
  return matplotlib


@contextlib.contextmanager
def settled() -> Iterator[None]:
  """Within this context, an import of matplotlib succeeds or raises an ImportError.

  Packages that can do without matplotlib expect nothing else.
  """
  try:
    matplotlib()
  except ImportError:
    sys.modules["matplotlib"] = None  # type: ignore[assignment]  # so that its import fails
  try:
    yield
  finally:
    if sys.modules.get("matplotlib", "absent") is None:
      del sys.modules["matplotlib"]


@contextlib.contextmanager
def quiet() -> Iterator[None]:
  """Keeps matplotlib from logging warnings, such as of a home that it can't write to."""
  logger = logging.getLogger("matplotlib")
  level = logger.level
  logger.setLevel(logging.ERROR)
  try:
    yield
  finally:
    logger.setLevel(level)


@contextlib.contextmanager
def _logging_into(messages: list[str]) -> Iterator[None]:
  """Collects what matplotlib's import logs, in place of printing it."""

  def collect(record: logging.LogRecord) -> bool:
    messages.append(record.getMessage())
    return False

  logger = logging.getLogger("matplotlib")
  level = logger.level
  logger.setLevel(logging.WARNING)  # whatever level other packages gave the root
  logger.addFilter(collect)
  try:
    yield
  finally:
    logger.removeFilter(collect)
    logger.setLevel(level)


@contextlib.contextmanager
def _without_backend() -> Iterator[str | None]:
  """Takes MPLBACKEND out of the environment; yields what it was."""
  backend = os.environ.pop("MPLBACKEND", None)
  try:
    yield backend
  finally:
    if backend is not None:
      os.environ["MPLBACKEND"] = backend
