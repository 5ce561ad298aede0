"""Logits and features of images, over all devices, while the next images are decoded."""

import contextlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import numpy as np

from bit_jax.data import order, pipeline, stream
from bit_jax.inference import feeds, footprint, programs
from bit_jax.inference.networks import Network
from bit_jax.runtime import devices, errors, numerics, parallel

BATCH_SIZE = 64  # images over all devices, unless chosen


class Outputs(NamedTuple):
  """What a network computes from a batch of images.

  Attributes:
    indices: [b] int64: the images' places in the source, ascending.
    logits: [b, C] float32.
    probabilities: [b, C] float32 in [0, 1]: their softmax.
    features: [b, F] float32: the pre-logits, means of the last stage over all places.
  """

  indices: np.ndarray
  logits: np.ndarray
  probabilities: np.ndarray
  features: np.ndarray


class Forward:
  """A network on the devices of this process.

  Attributes:
    size: Side in pixels of the square that images are resized to.
  """

  def __init__(self, network: Network, batch_size: int = BATCH_SIZE):
    """Places the parameters on the devices.

    Args:
      network: The network.
      batch_size: Images at once over all devices; fewer if they don't fit.

    Raises:
      UserError: The devices can't be used, or have too little memory.
    """
    devices.require()
    self.size = network.size
    self._network, self._batch_size = network, batch_size
    with numerics.fixed(), self._out_of_memory():
      variables = programs.standardize(parallel.replicate(network.params), network.model.dtype)
      self._variables = jax.block_until_ready(variables)  # counts as memory in use

  def run(
    self,
    source: stream.Source,
    unreadable: dict[int, str],
    *,
    image_size: tuple[int, int] | None = None,
    first: int = 0,
    report: Callable[[int], object] = lambda _: None,
  ) -> Iterator[Outputs]:
    """Yields the outputs of every image that can be read, in order.

    Args:
      source: The images.
      unreadable: Gets {index: reason} of the images that can't be read, before later ones are
        yielded.
      image_size: `datasets.kept_size` of the images: (height, width) if all have this size and keep
        it until they are on the devices; None: the host resizes them.
      first: Where to begin; where a batch begins, later batches are those of the whole source.
      report: Called with the number of images of each batch, when it has been sent.

    Raises:
      UserError: A device has too little memory.
    """
    network, size = self._network, self.size
    if not len(source):
      return
    shape = image_size or (size, size)
    part = pipeline.Part(
      source=_Tolerant(source, shape, unreadable, first),
      size=size if image_size is None else None,
      class_names=network.class_names,
      examples=None,
      labels=None,
    )
    with numerics.fixed():
      batch_size = self._fitting(len(source), shape)
      forward = programs.forward_function(network.model, size)
    before = None
    all_batches = order.eval_batches(len(source), batch_size, jax.local_device_count())
    batches = ((rows, mask & (rows >= first)) for rows, mask in all_batches if rows.max() >= first)
    with self._out_of_memory():  # of the host, which holds the batches ahead
      for indices, mask, examples in feeds.Feed(part).batches(batches):
        with numerics.fixed():
          sent = indices[mask], mask, forward(self._variables, examples.images)
        report(int(mask.sum()))
        if before is not None:
          yield self._fetched(*before, unreadable)
        before = sent
    if before is not None:
      yield self._fetched(*before, unreadable)

  def _fetched(
    self,
    rows: np.ndarray,
    mask: np.ndarray,
    results: tuple[jax.Array, jax.Array, jax.Array],
    unreadable: dict[int, str],
  ) -> Outputs:
    """Waits for a batch and returns its outputs, without those of unreadable images."""
    with self._out_of_memory():
      fetched = [np.asarray(values)[mask] for values in results]
    readable = np.array([row not in unreadable for row in rows.tolist()], bool)
    return Outputs(rows[readable], *(values[readable] for values in fetched))

  def _fitting(self, num_images: int, image_size: tuple[int, int]) -> int:
    hardware = devices.describe()
    return footprint.batch(
      self._network.model,
      self.size,
      image_size,
      wanted=self._batch_size,
      num_images=num_images,
      budget=footprint.budget(hardware),
      count=hardware.count,
    )

  def _out_of_memory(self) -> contextlib.AbstractContextManager[None]:
    name = self._network.model.architecture.name
    return footprint.explained(f"with {name} at {self.size} pixels: try a smaller batch size.")


class _Tolerant:
  """A source in which images that can't be read are black, and noted; a `stream.Source`.

  Those before the first are read as well, as they fill its batch, but not noted.
  """

  def __init__(
    self,
    source: stream.Source,
    shape: tuple[int, int],
    unreadable: dict[int, str],
    first: int,
  ):
    self._source, self._unreadable, self._first = source, unreadable, first
    self._filler = np.zeros((*shape, 3), np.uint8)

  def __len__(self) -> int:
    return len(self._source)

  def read(self, index: int) -> tuple[np.ndarray, int]:
    try:
      return self._source.read(index)
    except errors.UserError as e:
      if index >= self._first:
        self._unreadable[index] = str(e)
      return self._filler, 0
