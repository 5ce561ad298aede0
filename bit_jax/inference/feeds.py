"""Feeds the devices: a resident set is placed on them once, a streamed one batch by batch."""

from collections.abc import Iterable, Iterator

import numpy as np

from bit_jax.data import pipeline, stream
from bit_jax.inference import programs
from bit_jax.runtime import parallel


class Feed:
  """A part of a data set, on the devices or streamed to them.

  Attributes:
    part: The part.
    resident: Its examples on the devices; None if they are sent batch by batch.
  """

  def __init__(self, part: pipeline.Part):
    """Places the examples on the devices, unless they are streamed."""
    self.part = part
    self.resident: programs.ResidentSet | None = None
    if part.examples is not None:
      self.resident = programs.ResidentSet(part.examples.images, part.examples.labels)

  def batches(
    self, batches: Iterable[tuple[np.ndarray, np.ndarray]]
  ) -> Iterator[tuple[np.ndarray, np.ndarray, programs.Examples]]:
    """Yields each batch of `order.eval_batches` with the examples for this process."""
    if self.resident is not None:
      for indices, mask in batches:
        yield indices, mask, self.resident.take(parallel.local_rows(indices))
      return
    batches = list(batches)
    # Each is read once: of padding, which repeats an image, no more than one more.
    ours = [np.unique(parallel.local_rows(indices)) for indices, _ in batches]
    streamed = stream.batches(self.part.source, iter(ours), self.part.size)
    for (indices, mask), read, (images, labels) in zip(batches, ours, streamed, strict=True):
      places = np.searchsorted(read, parallel.local_rows(indices))
      yield indices, mask, parallel.send(programs.Examples(images[places], labels[places]))
