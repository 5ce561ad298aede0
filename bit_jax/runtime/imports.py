"""matplotlib and TensorFlow: imported only where they are used, in any environment.

Jupyter and Colab export an MPLBACKEND whose package need not be installed here; matplotlib then
raises a ValueError on import, and so does TensorFlow, whose Keras imports matplotlib. TensorFlow
takes about 8 s to import.
"""

import contextlib
import logging
import os
import sys
from collections.abc import Iterator
from types import ModuleType

from bit_jax.runtime import errors


def tensorflow() -> ModuleType:
  """Returns TensorFlow, silenced and kept off the accelerators, whose memory JAX needs.

  Raises:
    Exception: The import fails, in any way; `explained` turns that into an `ImportError`.
  """
  os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # what fails raises an exception as well
  os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")  # else it prints that they are on
  with matplotlib_or_import_error():  # Keras imports it
    import tensorflow

  tf: ModuleType = tensorflow
  for kind in ("GPU", "TPU"):
    tf.config.set_visible_devices([], kind)
  return tf


@contextlib.contextmanager
def explained(extra: str = "tfds") -> Iterator[None]:
  """Turns any exception of an import inside into an `ImportError` that names it.

  TensorFlow may raise any exception where the installed protobuf or numpy doesn't fit it.

  Args:
    extra: The extra of this package that installs what is imported; the error names it if a module
      isn't installed.

  Raises:
    ImportError: Something can't be imported.
  """
  try:
    yield
  except ModuleNotFoundError as e:
    raise ImportError(f"{e} (pip install 'bit_jax[{extra}]')") from e
  except (Exception, SystemExit) as e:
    raise ImportError(errors.reason(e).rstrip(".")) from e


@contextlib.contextmanager
def tfds_for(subject: str, alternative: str) -> Iterator[None]:
  """Within this context, an import of tensorflow-datasets that fails raises an error for the user.

  Args:
    subject: What needs it, with the verb, such as 'doctor needs'.
    alternative: What the user can do instead of installing it.

  Raises:
    UserError: Something can't be imported.
  """
  try:
    with explained():
      yield
  except ImportError as e:
    raise errors.UserError(
      f"{subject} tensorflow and tensorflow-datasets, which can't be imported: {e}. Install them, "
      f"or {alternative}."
    ) from e


@contextlib.contextmanager
def extra(name: str) -> Iterator[None]:
  """Within this context, importing a module that isn't installed raises an error for the user.

  Args:
    name: The extra of this package that installs the modules.

  Raises:
    UserError: A module isn't installed; the message names it and the command that installs it.
  """
  try:
    yield
  except ModuleNotFoundError as e:
    raise errors.UserError(
      f"This needs {e.name}, which is not installed: pip install 'bit_jax[{name}]'."
    ) from e


def matplotlib() -> ModuleType:
  """Returns matplotlib. MPLBACKEND keeps its value and is applied where matplotlib knows it.

  Raises:
    ImportError: It isn't installed, or is broken, or one of its settings files can't be read.
  """
  backend = None if "matplotlib" in sys.modules else os.environ.pop("MPLBACKEND", None)
  try:
    with quiet_matplotlib():
      import matplotlib

      if backend:
        with contextlib.suppress(ValueError, ImportError):
          matplotlib.rcParams["backend"] = backend
  except ImportError:
    raise
  except Exception as e:
    raise ImportError(f"matplotlib can't be imported ({errors.reason(e)})") from e
  finally:
    if backend is not None:
      os.environ["MPLBACKEND"] = backend
  return matplotlib


@contextlib.contextmanager
def quiet_matplotlib() -> Iterator[None]:
  """Within this context matplotlib logs nothing, such as that the home folder is read-only."""
  logger = logging.getLogger("matplotlib")
  level = logger.level
  logger.setLevel(logging.CRITICAL)
  try:
    yield
  finally:
    logger.setLevel(level)


@contextlib.contextmanager
def matplotlib_or_import_error() -> Iterator[None]:
  """Within this context, an import of matplotlib succeeds or raises an ImportError.

  Packages that can do without matplotlib handle no other exception.
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
