"""TensorFlow, imported in the few places that need it and only when they are used (some 8 s)."""

import contextlib
import os
from collections.abc import Iterator
from types import ModuleType

from bit_jax.runtime import errors, matplotlib_import


def tensorflow() -> ModuleType:
  """Returns TensorFlow, kept silent and away from the accelerators, whose memory JAX needs.

  Raises:
    Exception: Its import fails, in a way of its own; `explained` turns that into an `ImportError`.
  """
  os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
  os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")  # else it prints that they are on
  with matplotlib_import.settled():  # Keras imports it
    import tensorflow as tf

  for kind in ("GPU", "TPU"):
    tf.config.set_visible_devices([], kind)
  return tf


@contextlib.contextmanager
def explained() -> Iterator[None]:
  """Turns whatever an import inside raises into an `ImportError` that names it.

  TensorFlow beside versions of protobuf or numpy that don't fit it may raise any exception.

  Raises:
    ImportError: Something can't be imported.
  """
  try:
    yield
  except ModuleNotFoundError as e:
    raise ImportError(str(e)) from e
  except (Exception, SystemExit) as e:
    raise ImportError(errors.reason(e).rstrip(".")) from e
