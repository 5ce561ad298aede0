"""The compiled programs of evaluation and prediction, over all devices of all processes."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from clu import metrics as clu_metrics

from bit_jax.data import augmentation
from bit_jax.inference import metrics
from bit_jax.inference.example_metrics import example_metrics
from bit_jax.models import resnet_v2
from bit_jax.runtime import parallel


class Examples(NamedTuple):
  """The examples of a step.

  Attributes:
    images: [devices, b, h, w, 3] uint8.
    labels: [devices, b] int32.
  """

  images: Any
  labels: Any


class Scores(NamedTuple):
  """What an evaluation finds of each example.

  Attributes:
    predictions: [...] int32: the class of the highest logit, the first one on ties.
    labels: [...] int32.
    confidence: [...] float32 in [0, 1]: the softmax probability of the prediction.
  """

  predictions: Any
  labels: Any
  confidence: Any


class ResidentSet:
  """A set of examples that is stored on every device."""

  def __init__(self, images: np.ndarray, labels: np.ndarray):
    """Places the set: [N, h, w, 3] uint8 and [N] int32."""
    self._examples = parallel.replicate(Examples(images, labels))

  def take(self, indices: np.ndarray) -> Examples:
    """Returns the examples at `indices`: [devices, b] integer."""
    examples: Examples = parallel.take(self._examples, parallel.send(indices.astype(np.int32)))
    return examples


@functools.partial(parallel.over_devices, in_axes=(None, 0), out_axes=None, static=2)
def _standardize(params: Any, _: jax.Array, dtype: Any) -> Any:
  return resnet_v2.standardize_params(params, dtype)


def standardize(params: Any, dtype: Any) -> dict[str, Any]:
  """Returns `resnet_v2.standardize_params` of replicated parameters, replicated as well."""
  standardized: dict[str, Any] = _standardize(params, np.zeros(jax.local_device_count()), dtype)
  return standardized


def evaluate_batch(
  variables: Any, images: jax.Array, labels: jax.Array, *, model: resnet_v2.ResNetV2
) -> tuple[dict[str, jax.Array], Scores]:
  """Returns the metrics of each example ([B] each, see `example_metrics`), and its scores.

  Args:
    variables: Result of `resnet_v2.standardize_params`.
    images: [B, H, W, 3] float32 in [-1, 1].
    labels: [B] int32.
    model: The network.
  """
  logits, _ = model.apply(variables, images)
  predictions = jnp.argmax(logits, axis=1).astype(jnp.int32)
  confidence = jnp.max(jax.nn.softmax(logits), axis=1)
  return example_metrics(logits, labels), Scores(predictions, labels, confidence)


@functools.lru_cache
def eval_function(
  model: resnet_v2.ResNetV2, size: int, devices: Sequence[jax.Device] | None = None
) -> Callable[[Any, Examples, Any], tuple[clu_metrics.Collection, Scores]]:
  """Returns the evaluation step over all devices.

  It takes variables (from `standardize`), the examples, and their mask ([devices, b]; False for
  padding), and returns the metrics of all unmasked examples, and the scores of all devices of all
  processes, [all devices, b] each.

  Args:
    model: The network.
    size: Side of the square that images are resized to, in pixels.
    devices: A tuple of those that it is compiled for; default: all of this run.
  """
  collection = metrics.collection(model.num_classes)

  def evaluate(
    variables: Any, examples: Examples, mask: jax.Array
  ) -> tuple[clu_metrics.Collection, Scores]:
    images = augmentation.prepare_eval(examples.images, size)
    outputs, scores = evaluate_batch(variables, images, examples.labels, model=model)
    parts = collection.gather_from_model_output(axis_name=parallel.AXIS, mask=mask, **outputs)
    return parts, jax.lax.all_gather(scores, parallel.AXIS)

  return parallel.over_devices(evaluate, (None, 0, 0), (None, None), devices=devices)


@functools.lru_cache
def forward_function(
  model: resnet_v2.ResNetV2, size: int
) -> Callable[[Any, Any], tuple[jax.Array, jax.Array, jax.Array]]:
  """Returns the forward pass over the devices of this process.

  It takes variables (from `standardize`) and images, [devices, b, h, w, 3] uint8, and returns
  logits and their softmax, [devices, b, C] float32, and pre-logits, [devices, b, F] float32. The
  softmax is that of the evaluation step: over another shape, it may be rounded differently.

  Args:
    model: The network.
    size: Side of the square that images are resized to, in pixels.
  """

  def forward(variables: Any, images: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    logits, stages = model.apply(variables, augmentation.prepare_eval(images, size))
    return logits, jax.nn.softmax(logits), stages["pre_logits"]

  return parallel.over_devices(forward, (None, 0), 0)
