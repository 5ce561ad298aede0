"""Order of the examples, batches and MixUp: pure functions of seed, step and sizes.

Training goes through one permutation of the set after another; a batch may span two or more. The
batch of any step can be computed without those before it. Resident and streamed sets use the same
order.
"""

import functools
from collections.abc import Iterator

import numpy as np

from bit_jax.runtime import checks, errors

# Of the order. Version 1 used windows of `shuffle_window` examples for every set, version 2 uses
# them only for a whole set that tfds shuffled.
VERSION = 2
# Purposes of random streams: different uses of a seed must not see the same numbers.
_PERMUTATION, _MIXUP = range(2)
_BLOCK = 1_024  # neighbouring examples that stay in one window


@functools.lru_cache(maxsize=8)  # every step uses the same one or two
def permutation(seed: int, epoch: int, n: int, window: int | None = None) -> np.ndarray:
  """Returns the order of the examples in an epoch: [n] int64, read-only.

  This is a full permutation, unless the set is larger than a given window. Then blocks of
  neighbours are permuted first, and the examples within each window of the result second, so that
  consecutive batches are read from few places on disk. Batches are then only as mixed as neighbours
  in the set, so don't use a window for a set that may be sorted.

  Args:
    seed: Seed of the run; at least 0.
    epoch: Epochs count from 0.
    n: Number of examples in the set.
    window: Examples in a window, at least 1; None: no windows.

  Raises:
    UserError: The seed is negative, or the window is below 1.
  """
  if window is not None:
    checks.at_least("shuffle_window", window, 1)
  generator = _generator(seed, _PERMUTATION, epoch)
  if window is None or n <= window:
    order = generator.permutation(n)
  else:
    block = min(_BLOCK, window)
    starts = generator.permutation(-(-n // block)) * block
    order = np.concatenate([np.arange(start, min(start + block, n)) for start in starts])
    for start in range(0, n, window):
      generator.shuffle(order[start : start + window])
  order.setflags(write=False)  # all callers share the array
  return order


def batch(seed: int, step: int, batch_size: int, n: int, window: int | None = None) -> np.ndarray:
  """Returns the examples of a training step: [batch_size] int64 indices into the set.

  Args:
    seed: Seed of the run; at least 0.
    step: Steps count from 0.
    batch_size: Size of the global batch; if it exceeds `n`, examples are repeated.
    n: Number of examples in the set.
    window: The window, as in `permutation`.

  Raises:
    UserError: The seed is negative, or the set or the window is empty.
  """
  if n < 1:
    raise errors.UserError("The training set is empty.")
  start, stop = step * batch_size, (step + 1) * batch_size
  parts = []
  for epoch in range(start // n, (stop - 1) // n + 1):
    first = epoch * n
    parts.append(permutation(seed, epoch, n, window)[max(start - first, 0) : stop - first])
  return np.concatenate(parts)


def device_layout(batch_size: int, num_devices: int, mixup: bool = True) -> np.ndarray:
  """Distributes a global batch over devices so that MixUp partners are on the same device.

  MixUp pairs position i with `batch_size - 1 - i`. Each device takes positions from the front and
  their mirror images from the back, so reversing each row reverses the global batch.

  Args:
    batch_size: Size of the global batch.
    num_devices: Number of devices that share it.
    mixup: Whether partners must be on one device; otherwise any even distribution is valid.

  Returns:
    [num_devices, batch_size // num_devices] int64 positions in the global batch, each once.

  Raises:
    UserError: The batch can't be distributed evenly in such pairs.
  """
  checks.at_least("batch_size", batch_size, 1)
  multiple = 2 * num_devices if mixup and num_devices > 1 else num_devices
  if batch_size % multiple:
    lower = batch_size // multiple * multiple
    sizes = " or ".join(str(s) for s in (lower, lower + multiple) if s)
    why = ", so that MixUp partners are on the same device" if multiple > num_devices else ""
    raise errors.UserError(
      f"A batch of {batch_size} can't be distributed over {num_devices} devices: it must be a "
      f"multiple of {multiple}{why}. Nearest valid sizes: {sizes}."
    )
  return _mirrored(batch_size, num_devices)


def micro_batch_sizes(share: int, mixup: bool = True) -> list[int]:
  """Returns the possible sizes of micro-batches, ascending.

  Args:
    share: Examples of a batch on one device.
    mixup: Whether MixUp partners must be in the same micro-batch (see `device_layout`): its size is
      then even, or the whole share.
  """
  step = 2 if mixup else 1
  return [*(m for m in range(step, share, step) if share % m == 0), share]


def micro_batch_size(wanted: int, share: int, mixup: bool = True) -> int:
  """Returns the wanted size of micro-batches, or the whole share if that is smaller.

  Raises:
    UserError: The share can't be divided like that; the message names the nearest valid sizes.
  """
  size, sizes = min(wanted, share), micro_batch_sizes(share, mixup)
  if size not in sizes:
    below = [m for m in sizes if m < size][-1:]
    above = [m for m in sizes if m > size][:1]
    nearest = " or ".join(map(str, below + above))
    parts = " into even parts, which MixUp needs" if mixup else ""
    raise errors.UserError(
      f"microbatch={wanted} doesn't divide the {share} images per device{parts}. Nearest "
      f"valid values: {nearest}."
    )
  return size


def micro_batches(share: int, size: int) -> np.ndarray:
  """Divides a device's share into micro-batches; reversing one gives the MixUp partners.

  Args:
    share: Examples of a batch on one device, in the order of `device_layout`.
    size: Examples of a micro-batch, one of `micro_batch_sizes`.

  Returns:
    [share // size, size] int64 positions in the share, each once; if the size is even, positions
    from the front and their mirror images from the back.
  """
  return _mirrored(share, share // size)


def _mirrored(count: int, rows: int) -> np.ndarray:
  """Distributes positions over rows: [rows, count // rows] int64.

  A row has positions from the front and their mirror images from the back; neighbours if its size
  is odd, so that there is one row or there are no partners.
  """
  if count // rows % 2:
    return np.arange(count).reshape(rows, -1)
  front = np.arange(count // 2).reshape(rows, -1)
  return np.concatenate([front, count - 1 - front[:, ::-1]], axis=1)


def eval_batches(
  n: int, batch_size: int, num_devices: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
  """Yields batches with every example exactly once, in order; the last batch is padded.

  Args:
    n: Number of examples in the set.
    batch_size: Size of the global batch; rounded up to a multiple of `num_devices`.
    num_devices: Number of devices that share it.

  Yields:
    indices: [num_devices, b] int64 into the set, 0 where padded.
    mask: [num_devices, b] bool, False where padded.

  Raises:
    UserError: The batch size is below 1.
  """
  checks.at_least("batch_size", batch_size, 1)
  per_device = -(-batch_size // num_devices)
  for start in range(0, n, num_devices * per_device):
    indices = start + np.arange(num_devices * per_device).reshape(num_devices, per_device)
    mask = indices < n
    yield np.where(mask, indices, 0), mask


def mixup_lambda(seed: int, step: int, alpha: float) -> float:
  """Returns the MixUp factor of a step, drawn from Beta(alpha, alpha): the weight of an image.

  Source: google-research/big_transfer: one factor per batch, without max(lambda, 1 - lambda).

  Args:
    seed: Seed of the run; at least 0.
    step: Steps count from 0.
    alpha: Parameter of the distribution; 0 turns MixUp off (the factor is 1).

  Raises:
    UserError: `alpha` or the seed is negative.
  """
  checks.at_least("mixup_alpha", alpha, 0)
  if alpha == 0:
    return 1.0
  return float(_generator(seed, _MIXUP, step).beta(alpha, alpha))


def _generator(seed: int, purpose: int, counter: int) -> np.random.Generator:
  checks.at_least("seed", seed, 0)
  sequence = np.random.SeedSequence(seed, spawn_key=(purpose, counter))
  return np.random.Generator(np.random.Philox(sequence))
