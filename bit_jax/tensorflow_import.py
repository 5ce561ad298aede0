"""TensorFlow, imported in the few places that need it and only when they are used (some 8 s)."""

import os
from types import ModuleType

from bit_jax import matplotlib_import


def tensorflow() -> ModuleType:
  """Returns TensorFlow, kept silent and away from the accelerators, whose memory JAX needs.

  Raises:
    ImportError: It isn't installed.
  """
  os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
  os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")  # else it prints that they are on
  with matplotlib_import.settled():  # Keras imports it
    import tensorflow as tf

  for kind in ("GPU", "TPU"):
    tf.config.set_visible_devices([], kind)
  return tf
