"""A source whose labels are indices, as a part of a data set, resident or streamed."""

import numpy as np

from bit_jax.data import pipeline, stream
from bit_jax.data.sources import arrays

N = 13


class Numbered:
  """A source whose labels are indices, with images of many sizes; counts what is read of it."""

  def __init__(self, n=N):
    self._n = n
    self.reads = []

  def __len__(self):
    return self._n

  def read(self, index):
    self.reads.append(index)
    random = np.random.default_rng(index)
    shape = (*random.integers(2, 7, 2), 3)
    return random.integers(0, 256, shape, dtype=np.uint8), index


def part(streamed, n=N, source=None, window=None):
  source = source or Numbered(n)
  names = tuple(map(str, range(n)))
  if streamed:
    return pipeline.Part(source, 4, names, None, None, window)
  images, labels, _ = stream.gather(source, 4, "")
  examples = arrays.Examples(images, labels, names)
  return pipeline.Part(examples, 4, names, examples, labels, window)
