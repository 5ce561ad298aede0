"""The examples of each training step, on the devices.

Resident and streamed sets follow the order of `data.order`, so results don't depend on which it is.
"""

from collections.abc import Generator

import numpy as np

from bit_jax.data import order, stream
from bit_jax.inference import feeds, programs
from bit_jax.run_config import RunConfig
from bit_jax.runtime import parallel


def of_steps(
  feed: feeds.Feed, config: RunConfig, layout: np.ndarray, first: int
) -> Generator[programs.Examples, None, None]:
  """Yields the examples of each step from `first` on, on the devices.

  Args:
    feed: The training examples.
    config: Resolved.
    layout: [local devices, b] positions in the global batch.
    first: Steps done before; a stream doesn't read their examples.
  """
  part = feed.part
  rows = (
    order.batch(config.seed, step, config.batch_size, len(part), part.window)
    for step in range(first, config.total_steps)
  )
  if feed.resident is not None:
    for row in rows:
      yield feed.resident.take(row[layout])
    return
  ours = (row[layout].ravel() for row in rows)
  for images, labels in stream.batches(part.source, ours, part.size):
    shape = (len(layout), -1)
    images, labels = images.reshape(*shape, *images.shape[1:]), labels.reshape(shape)
    yield parallel.send(programs.Examples(images, labels))
