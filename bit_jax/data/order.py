"""Which example comes when, as pure functions of seed, step and sizes: no state, no device.

Training sees one permutation of the set after another; a batch may cross from one to the next, or
hold several. Everything is known for any step without what came before it. Sets on the devices and
sets that are streamed are both read in this order.
"""

import functools
from collections.abc import Iterator

import numpy as np

from bit_jax.runtime import errors

# Of the order. In version 1, windows of `shuffle_window` examples were for every set; in version 2
# they are for a whole set that tfds shuffled.
VERSION = 2
# What a random stream is for: two uses of the same seed must not see the same numbers.
_PERMUTATION, _MIXUP = range(2)
_BLOCK = 1_024  # neighbouring examples that stay within one window


@functools.lru_cache(maxsize=8)  # `batch` asks for the same one or two at every step
def permutation(seed: int, epoch: int, n: int, window: int | None = None) -> np.ndarray:
  """Returns the order of the examples in an epoch: [n] int64, read-only.

  All examples are permuted among each other, unless the set is larger than a given window. Then
  blocks of neighbours are permuted first, and the examples within each window of the result second:
  consecutive batches are read from few places on disk. Such batches are mixed only as well as
  neighbours in the set are, so a set that may be sorted takes no window.

  Args:
    seed: Seed of the run; at least 0.
    epoch: Epochs count from 0.
    n: Number of examples in the set.
    window: Examples in a window, at least 1; None: there are no windows.

  Raises:
    UserError: The seed is negative, or the window holds no example.
  """
  if window is not None and window < 1:
    raise errors.UserError(f"The shuffle window must hold at least 1 example, not {window}.")
  generator = _generator(seed, _PERMUTATION, epoch)
  if window is None or n <= window:
    order = generator.permutation(n)
  else:
    block = min(_BLOCK, window)
    starts = generator.permutation(-(-n // block)) * block
    order = np.concatenate([np.arange(start, min(start + block, n)) for start in starts])
    for start in range(0, n, window):
      generator.shuffle(order[start : start + window])
  order.setflags(write=False)  # one array serves all who ask
  return order


def batch(seed: int, step: int, batch_size: int, n: int, window: int | None = None) -> np.ndarray:
  """Returns the examples of a training step: [batch_size] int64 indices into the set.

  Args:
    seed: Seed of the run; at least 0.
    step: Steps count from 0.
    batch_size: Size of the global batch; may exceed `n`, and then an example comes repeatedly.
    n: Number of examples in the set.
    window: Of `permutation`.

  Raises:
    UserError: The seed is negative, or the set or the window is empty.
  """
  if n < 1:
    raise errors.UserError("There are no examples to draw a batch from.")
  start, stop = step * batch_size, (step + 1) * batch_size
  parts = []
  for epoch in range(start // n, (stop - 1) // n + 1):
    first = epoch * n
    parts.append(permutation(seed, epoch, n, window)[max(start - first, 0) : stop - first])
  return np.concatenate(parts)


def device_layout(batch_size: int, num_devices: int, mixup: bool = True) -> np.ndarray:
  """Lays a global batch out over devices so that MixUp's partners meet on one.

  MixUp pairs position i with `batch_size - 1 - i`. Device d takes its share from the front and the
  mirror images of these from the back, so reversing each row reverses the global batch.

  Args:
    batch_size: Size of the global batch.
    num_devices: Number of devices that share it.
    mixup: Whether there are such partners; without, any even share will do.

  Returns:
    [num_devices, batch_size // num_devices] int64 positions in the global batch, each once.

  Raises:
    UserError: The devices can't share the batch evenly in such pairs.
  """
  if batch_size < 1:
    raise errors.UserError(f"The batch must hold at least 1 example, not {batch_size}.")
  multiple = 2 * num_devices if mixup and num_devices > 1 else num_devices
  if batch_size % multiple:
    lower = batch_size // multiple * multiple
    sizes = " or ".join(str(s) for s in (lower, lower + multiple) if s)
    why = "2 x devices so that MixUp partners share a device" if mixup else "their number"
    raise errors.UserError(
      f"{num_devices} devices can't share a batch of {batch_size}: the batch must be a multiple of "
      f"{why}; the nearest sizes that fit: {sizes}."
    )
  if batch_size // num_devices % 2:  # one device, or no partners
    return np.arange(batch_size).reshape(num_devices, -1)
  front = np.arange(batch_size // 2).reshape(num_devices, -1)
  return np.concatenate([front, batch_size - 1 - front[:, ::-1]], axis=1)


def micro_batch_sizes(share: int, mixup: bool = True) -> list[int]:
  """Returns the sizes, rising, of equal parts that a device's share of a batch can be cut into.

  Args:
    share: Examples of a batch on one device.
    mixup: Whether each part must hold both of MixUp's partners (see `device_layout`): it is then
      even, or the whole.
  """
  step = 2 if mixup else 1
  return [*(m for m in range(step, share, step) if share % m == 0), share]


def micro_batch_size(wanted: int, share: int, mixup: bool = True) -> int:
  """Returns the size of micro-batches that was asked for, or the whole share if that is smaller.

  Raises:
    UserError: The share can't be cut into parts of that size; names the nearest that will do.
  """
  size, sizes = min(wanted, share), micro_batch_sizes(share, mixup)
  if size not in sizes:
    below = [m for m in sizes if m < size][-1:]
    above = [m for m in sizes if m > size][:1]
    nearest = " or ".join(map(str, below + above))
    parts = " into even parts, as MixUp needs" if mixup else ""
    raise errors.UserError(
      f"microbatch={wanted} doesn't divide the {share} images of a batch on each device{parts}: "
      f"the nearest that do: {nearest}."
    )
  return size


def micro_batches(share: int, size: int) -> np.ndarray:
  """Cuts a device's share into micro-batches, of which each reverses into MixUp's partners.

  Args:
    share: Examples of a batch on one device, laid out as by `device_layout`.
    size: Examples of a micro-batch, one of `micro_batch_sizes`.

  Returns:
    [share // size, size] int64 places in the share, each once: of an even size, the next places
    from the front and their mirror images from the back.
  """
  if size % 2:
    return np.arange(share).reshape(-1, size)
  front = np.arange(share // 2).reshape(-1, size // 2)
  return np.concatenate([front, share - 1 - front[:, ::-1]], axis=1)


def eval_batches(
  n: int, batch_size: int, num_devices: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
  """Yields batches that hold every example exactly once, in order, the last one padded.

  Args:
    n: Number of examples in the set.
    batch_size: Size of the global batch; rounded up to what the devices can share evenly.
    num_devices: Number of devices that share it.

  Yields:
    indices: [num_devices, b] int64 into the set, 0 where padded.
    mask: [num_devices, b] bool, False where padded.

  Raises:
    UserError: The batch holds no example.
  """
  if batch_size < 1:
    raise errors.UserError(f"The batch must hold at least 1 example, not {batch_size}.")
  per_device = -(-batch_size // num_devices)
  for start in range(0, n, num_devices * per_device):
    indices = start + np.arange(num_devices * per_device).reshape(num_devices, per_device)
    mask = indices < n
    yield np.where(mask, indices, 0), mask


def mixup_lambda(seed: int, step: int, alpha: float) -> float:
  """Returns the step's MixUp factor, drawn from Beta(alpha, alpha): the image's own share.

  Source: google-research/big_transfer, one factor a batch, and no max(lambda, 1 - lambda).

  Args:
    seed: Seed of the run; at least 0.
    step: Steps count from 0.
    alpha: Parameter of the distribution; 0 turns MixUp off, and the factor is 1.

  Raises:
    UserError: `alpha` or the seed is negative.
  """
  if alpha < 0:
    raise errors.UserError(f"MixUp's alpha must be at least 0, not {alpha}.")
  if alpha == 0:
    return 1.0
  return float(_generator(seed, _MIXUP, step).beta(alpha, alpha))


def _generator(seed: int, purpose: int, counter: int) -> np.random.Generator:
  if seed < 0:
    raise errors.UserError(f"The seed must be at least 0, not {seed}.")
  sequence = np.random.SeedSequence(seed, spawn_key=(purpose, counter))
  return np.random.Generator(np.random.Philox(sequence))
