"""Feeds the devices: a resident set is placed on them once, a streamed one batch by batch.

Both follow the order of `bit_jax.data.order`, so results don't depend on which it is.
"""

from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Any

import jax
import numpy as np

from bit_jax.data import order, pipeline, stream
from bit_jax.models import resnet_v2
from bit_jax.run_config import RunConfig
from bit_jax.runtime import parallel
from bit_jax.training import metrics, programs


class Feed:
  """A part of the data of a run, on the devices or streamed to them.

  Attributes:
    part: The part.
    streamed: Whether its examples are sent step by step; otherwise they are on the devices.
  """

  def __init__(self, part: pipeline.Part):
    """Places the examples on the devices, unless they are streamed."""
    self.part, self.streamed = part, part.examples is None
    self._resident: programs.ResidentSet | None = None
    if part.examples is not None:
      self._resident = programs.ResidentSet(part.examples.images, part.examples.labels)

  def training(
    self, config: RunConfig, layout: np.ndarray, first: int
  ) -> Generator[programs.Examples, None, None]:
    """Yields the examples of each step from `first` on, on the devices.

    Args:
      config: Resolved.
      layout: [local devices, b] positions in the global batch.
      first: Steps done before; a stream doesn't read their examples.
    """
    rows = (
      order.batch(config.seed, step, config.batch_size, len(self.part), self.part.window)
      for step in range(first, config.total_steps)
    )
    if self._resident is not None:
      for row in rows:
        yield self._resident.take(row[layout])
      return
    ours = (row[layout].ravel() for row in rows)
    for images, labels in stream.batches(self.part.source, ours, self.part.size):
      shape = (len(layout), -1)
      images, labels = images.reshape(*shape, *images.shape[1:]), labels.reshape(shape)
      yield parallel.send(programs.Examples(images, labels))

  def evaluate(
    self,
    model: resnet_v2.ResNetV2,
    size: int,
    params: Any,
    batch_size: int,
    report: Callable[[int], object] = lambda _: None,
  ) -> tuple[dict[str, float], np.ndarray, np.ndarray]:
    """Evaluates every example once.

    Args:
      model: The network.
      size: Side of the square that images are resized to, in pixels.
      params: Parameter tree, replicated.
      batch_size: Images in a step over all devices; no effect on the result.
      report: Called with the number of images of each batch when it has been sent.

    Returns:
      The means of the metrics, [N] int32 predictions and [N] int32 labels.
    """
    step = programs.eval_function(model, size)
    variables = programs.standardize(params, model.dtype)
    found = np.zeros((2, len(self.part)), np.int32)
    parts, pending = [], []
    batches = order.eval_batches(len(self.part), batch_size, jax.device_count())
    for indices, mask, examples in self._evaluation(batches):
      part, predicted = step(variables, examples, parallel.send(parallel.local_rows(mask)))
      parts.append(part)
      pending.append((indices[mask], mask, predicted))
      if len(pending) > 1:  # or batches would pile up on the devices
        jax.block_until_ready(pending[-2])
      report(int(mask.sum()))
    for rows, mask, predicted in pending:
      found[:, rows] = np.stack(predicted)[:, mask]
    return metrics.merge(parts), found[0], found[1]

  def _evaluation(
    self, batches: Iterable[tuple[np.ndarray, np.ndarray]]
  ) -> Iterator[tuple[np.ndarray, np.ndarray, programs.Examples]]:
    """Yields each batch of `order.eval_batches` with the examples for this process."""
    if self._resident is not None:
      for indices, mask in batches:
        yield indices, mask, self._resident.take(parallel.local_rows(indices))
      return
    batches = list(batches)
    # Each is read once: of padding, which repeats an image, no more than one more.
    ours = [np.unique(parallel.local_rows(indices)) for indices, _ in batches]
    streamed = stream.batches(self.part.source, iter(ours), self.part.size)
    for (indices, mask), read, (images, labels) in zip(batches, ours, streamed, strict=True):
      places = np.searchsorted(read, parallel.local_rows(indices))
      yield indices, mask, parallel.send(programs.Examples(images[places], labels[places]))
