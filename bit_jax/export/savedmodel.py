"""TensorFlow's SavedModel, of TensorFlow's own operations: it takes images of any size.

jax2tf would put a program of XLA into it, which TensorFlow compiles for every batch size, and which
neither TensorFlow Lite nor TensorFlow.js convert.
"""

import pathlib
import tempfile
from typing import Any

import numpy as np

from bit_jax.export import form, graph
from bit_jax.inference import networks
from bit_jax.models import architectures, ops
from bit_jax.runtime import errors, imports

_CLASSES = "classes.txt"  # below `assets`


def write(network: networks.Network, folder: pathlib.Path) -> None:
  """Writes the files of a SavedModel.

  Raises:
    UserError: TensorFlow isn't installed, or its import fails.
  """
  tf = _tensorflow()
  arrays = graph.parameters(network.params)
  with tempfile.TemporaryDirectory() as temporary:
    classes = pathlib.Path(temporary, _CLASSES)
    classes.write_text("".join(f"{name}\n" for name in network.class_names), encoding="utf-8")
    module = tf.Module()
    module.parameters = {k: tf.Variable(a, trainable=False, name=k) for k, a in arrays.items()}
    module.class_names = tf.saved_model.Asset(str(classes))
    operations = _Operations(tf, module.parameters)
    size = network.size

    def classify(images: Any) -> dict[str, Any]:
      resized = tf.image.resize(tf.cast(images, tf.float32), (size, size))
      x = graph.body(network.model.architecture, (resized - 127.5) / 127.5, operations)
      kernel = module.parameters["head/conv2d/kernel"][0, 0]
      logits = tf.reduce_mean(x, (1, 2)) @ kernel + module.parameters["head/conv2d/bias"]
      return {"logits": logits, "probabilities": tf.nn.softmax(logits)}

    images = tf.TensorSpec((None, None, None, 3), tf.uint8, name="images")
    module.classify = tf.function(classify, input_signature=[images], autograph=False)
    tf.saved_model.save(module, str(folder), signatures=module.classify)


def _tensorflow() -> Any:
  try:
    with imports.explained("savedmodel"):
      return imports.tensorflow()
  except ImportError as e:
    raise errors.UserError(f"An export to SavedModel needs TensorFlow: {e}.") from e


class _Operations:
  """The `graph.Operations` of TensorFlow, on values [B, H, W, C]."""

  def __init__(self, tf: Any, parameters: dict[str, Any]):
    self._tf = tf
    self._parameters = parameters

  def convolve(self, x: Any, name: str, stride: int) -> Any:
    """See `graph.Operations`."""
    kernel = self._parameters[f"{name}/kernel"]
    pad = kernel.shape[0] // 2
    padding = [[0, 0], [pad, pad], [pad, pad], [0, 0]]
    return self._tf.nn.conv2d(x, kernel, stride, padding)

  def group_norm_relu(self, x: Any, name: str) -> Any:
    """See `graph.Operations`; statistics take two passes, over places and then channels."""
    tf = self._tf
    gamma, beta = self._parameters[f"{name}/gamma"], self._parameters[f"{name}/beta"]
    centred = x - self._group_mean(tf.reduce_mean(x, (1, 2)))
    variance = self._group_mean(tf.reduce_mean(tf.square(centred), (1, 2)))
    return tf.nn.relu(centred * (tf.math.rsqrt(variance + ops.GROUP_NORM_EPSILON) * gamma) + beta)

  def _group_mean(self, means: Any) -> Any:
    """Averages [B, C] over the channels of each group, repeated to [B, 1, 1, C]."""
    tf = self._tf
    groups = architectures.NUM_GROUPS
    size = means.shape[1] // groups
    mean = tf.reduce_mean(tf.reshape(means, (-1, groups, size)), 2)
    return tf.repeat(mean, size, axis=1)[:, None, None]

  def max_pool(self, x: Any) -> Any:
    """See `graph.Operations`; padding of max_pool2d itself would be minus infinity."""
    padded = self._tf.pad(x, [[0, 0], [1, 1], [1, 1], [0, 0]])
    return self._tf.nn.max_pool2d(padded, 3, 2, "VALID")

  def add(self, x: Any, y: Any) -> Any:
    """See `graph.Operations`."""
    return x + y


def _classify(folder: pathlib.Path, network: networks.Network, images: np.ndarray) -> np.ndarray:
  tf = imports.tensorflow()
  serve = tf.saved_model.load(str(folder)).signatures["serving_default"]
  logits: np.ndarray = serve(images=tf.constant(images))["logits"].numpy()
  return logits


def _example(network: networks.Network) -> str:
  return f"""import numpy as np
import tensorflow as tf
from PIL import Image, ImageOps

classify = tf.saved_model.load(".").signatures["serving_default"]
names = open("assets/{_CLASSES}", encoding="utf-8").read().splitlines()
{form.PHOTO}
outputs = classify(images=tf.constant(np.asarray(image)[None]))
logits, probabilities = outputs["logits"].numpy(), outputs["probabilities"].numpy()
print(names[probabilities[0].argmax()], probabilities[0].max())"""


FORM = form.Form(
  name="savedmodel",
  library="tensorflow",
  files={
    "saved_model.pb": "images [batch, height, width, 3] uint8 of any size to logits and "
    "probabilities, as the signature `serving_default`",
    "variables": "the weights",
    "assets": "the names of the classes, again",
  },
  write=write,
  classify=_classify,
  runtime="tensorflow",
  example=_example,
  remarks=(
    "The model resizes and scales images itself. It consists of TensorFlow's own operations, so "
    "that TensorFlow Serving, TensorFlow Lite and TensorFlow.js take it."
  ),
)
