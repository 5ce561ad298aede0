"""The evaluator, of training and of every command: each example exactly once."""

import contextlib
import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from bit_jax.data import order, pipeline
from bit_jax.inference import feeds, footprint, metrics, programs
from bit_jax.models import resnet_v2
from bit_jax.runtime import devices, errors, numerics, parallel


@dataclasses.dataclass(frozen=True)
class Evaluation:
  """The outcome of an evaluation.

  Attributes:
    means: Means over the examples: 'loss', 'top1' and, of many classes, 'top5'.
    predictions: [N] int32.
    labels: [N] int32.
    confidence: [N] float32 in [0, 1]: the softmax probability of the prediction.
  """

  means: dict[str, float]
  predictions: np.ndarray
  labels: np.ndarray
  confidence: np.ndarray


def evaluate_part(
  model: resnet_v2.ResNetV2,
  params: Any,
  size: int,
  loaded: pipeline.LoadedPart,
  batch_size: int,
  report: Callable[[int], object] = lambda _: None,
  *,
  exact: bool = False,
) -> Evaluation:
  """Places a network and a part of a data set on the devices, and evaluates every example once.

  Args:
    model: The network.
    params: Its parameters on the host.
    size: Side of the square that images are resized to, in pixels.
    loaded: The part.
    batch_size: Images at once over all devices; fewer if they don't fit. It changes no prediction.
    report: Called with the number of images of each batch when it has been sent.
    exact: Whether float32 is exact on GPUs as well, whose default for it, TF32, is not.

  Raises:
    UserError: A device has too little memory, an image can't be read, or the loss is not finite.
  """
  explanation = f"with {model.architecture.name} at {size} pixels: try a smaller batch."
  precision = jax.default_matmul_precision("highest") if exact else contextlib.nullcontext()
  with numerics.fixed(), precision, footprint.explained(explanation):
    feed, variables = feeds.Feed(loaded.part), parallel.replicate(params)
    jax.block_until_ready(variables)  # counts as memory in use
    hardware = devices.describe()
    batch = footprint.batch(
      model,
      size,
      loaded.image_size,
      wanted=batch_size,
      num_images=len(loaded.part),
      budget=footprint.budget(hardware),
      count=hardware.count,
    )
    found = evaluate(feed, model, size, variables, batch, report)
  if not np.isfinite(found.means["loss"]):
    raise errors.UserError(
      f"The loss is not finite: outputs of the network overflow in {model.dtype.name}, or its "
      f"parameters are damaged."
    )
  return found


def evaluate(
  feed: feeds.Feed,
  model: resnet_v2.ResNetV2,
  size: int,
  params: Any,
  batch_size: int,
  report: Callable[[int], object] = lambda _: None,
) -> Evaluation:
  """Evaluates every example once.

  Args:
    feed: The examples.
    model: The network.
    size: Side of the square that images are resized to, in pixels.
    params: Parameter tree, replicated.
    batch_size: Images in a step over all devices; changes no prediction.
    report: Called with the number of images of each batch when it has been sent.

  Raises:
    UserError: An image can't be read.
  """
  step = programs.eval_function(model, size)
  variables = programs.standardize(params, model.dtype)
  count = len(feed.part)
  found = programs.Scores(
    np.zeros(count, np.int32), np.zeros(count, np.int32), np.zeros(count, np.float32)
  )
  parts, pending = [], []
  batches = order.eval_batches(count, batch_size, jax.device_count())
  for indices, mask, examples in feed.batches(batches):
    part, scores = step(variables, examples, parallel.send(parallel.local_rows(mask)))
    parts.append(part)
    pending.append((indices[mask], mask, scores))
    if len(pending) > 1:  # or batches would pile up on the devices
      jax.block_until_ready(pending[-2])
    report(int(mask.sum()))
  for rows, mask, scores in pending:
    for whole, values in zip(found, scores, strict=True):
      whole[rows] = np.asarray(values)[mask]
  return Evaluation(metrics.merge(parts), *found)
