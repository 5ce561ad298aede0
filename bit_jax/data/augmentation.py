"""Preparation of images on the device: resize, crop, flip, scaling to [-1, 1], MixUp.

Resize, crop and flip of an image are two small matrix products: the crop selects rows of the
interpolation matrix, the flip reverses them. Randomness is keyed by the position in the global
batch, so it doesn't depend on the number of devices. Whether to crop and flip is a traced argument:
runs that differ in it share one compiled program.

Source: BiT paper (arXiv 1912.11370), 3.3; google-research/big_transfer, `input_pipeline`.
"""

import jax
import jax.numpy as jnp
import numpy as np


def interpolation_matrix(source: int, target: int) -> np.ndarray:
  """Returns the matrix that resizes one axis: [target, source] float32, each row summing to 1.

  Bilinear with half-pixel centres, clamped at the edges, not antialiased: `tf.image.resize`. The
  weights are computed in float32, step by step as in TensorFlow: with exact weights, pixels of
  large images would differ by more than 1e-3 of a grey level.

  Args:
    source: Pixels before.
    target: Pixels after.
  """
  scale = np.float32(source) / np.float32(target)
  centres = (np.arange(target, dtype=np.float32) + np.float32(0.5)) * scale - np.float32(0.5)
  below = np.floor(centres)
  weight = centres - below
  lower = np.maximum(below.astype(np.int64), 0)
  upper = np.minimum(np.ceil(centres).astype(np.int64), source - 1)
  matrix = np.zeros((target, source), np.float32)
  rows = np.arange(target)
  matrix[rows, lower] += 1 - weight
  matrix[rows, upper] += weight
  return matrix


def augment(
  images: jax.Array,
  keys: jax.Array,
  *,
  resize: int,
  crop: int,
  flip: jax.Array,
  random_crop: jax.Array,
) -> jax.Array:
  """Prepares images for training: resized, randomly cropped and flipped, scaled.

  Args:
    images: [B, h, w, 3] uint8.
    keys: [B] typed PRNG keys, one per image (`example_keys`).
    resize: Side of the square that an image is resized to before it is cropped, in pixels.
    crop: Side of the crop in pixels, at most `resize`.
    flip: [] bool: mirror each image with probability 1/2.
    random_crop: [] bool: crop at a random place; if False, resize directly to `crop` as in
      `prepare_eval`.

  Returns:
    [B, crop, crop, 3] float32 in [-1, 1], up to rounding.
  """
  tops, lefts, flips = jax.vmap(lambda key: _sample(key, resize - crop + 1))(keys)
  flips &= flip

  def by_products() -> jax.Array:
    rows = _crop_matrices(images.shape[1], resize, crop, tops, random_crop)
    columns = _crop_matrices(images.shape[2], resize, crop, lefts, random_crop)
    columns = jnp.where(flips[:, None, None], columns[:, ::-1], columns)
    return _apply(rows, columns, images)

  def by_slices() -> jax.Array:
    cropped = jax.vmap(
      lambda image, top, left: jax.lax.dynamic_slice(image, (top, left, 0), (crop, crop, 3))
    )(images, tops, lefts)
    return jnp.where(flips[:, None, None, None], cropped[:, :, ::-1], cropped).astype(jnp.float32)

  if images.shape[1:3] != (resize, resize):
    return _scale(by_products())
  # No resize is needed, except of the whole image to the crop.
  return _scale(jax.lax.cond(random_crop, by_slices, by_products))


def prepare_eval(images: jax.Array, size: int) -> jax.Array:
  """Prepares images for evaluation: resized directly to the crop size, scaled.

  Args:
    images: [B, h, w, 3] uint8.
    size: Side of the result in pixels.

  Returns:
    [B, size, size, 3] float32 in [-1, 1], up to rounding.
  """
  if images.shape[1:3] == (size, size):
    return _scale(images.astype(jnp.float32))
  rows, columns = (
    jnp.broadcast_to(interpolation_matrix(n, size), (images.shape[0], size, n))
    for n in images.shape[1:3]
  )
  return _scale(_apply(rows, columns, images))


def example_keys(seed_key: jax.Array, step: jax.Array, positions: jax.Array) -> jax.Array:
  """Returns the PRNG keys of a step's examples.

  Args:
    seed_key: [] typed PRNG key of the run.
    step: [] integer.
    positions: [B] integer: the examples' positions in the global batch.

  Returns:
    [B] typed PRNG keys, for a position the same on any device.
  """
  step_key = jax.random.fold_in(seed_key, step)
  return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(step_key, positions)


def mixup(
  images: jax.Array, one_hot: jax.Array, lam: jax.Array | float
) -> tuple[jax.Array, jax.Array]:
  """Mixes a batch with its reverse: x * lam + x[::-1] * (1 - lam), and the labels alike.

  Args:
    images: [B, H, W, 3] float32.
    one_hot: [B, C] float32.
    lam: [] float32 in [0, 1]: the weight of the image itself; 1 changes nothing.

  Returns:
    The mixed images and labels, of the same shapes.
  """
  images = images * lam + images[::-1] * (1 - lam)
  return images, one_hot * lam + one_hot[::-1] * (1 - lam)


def _sample(key: jax.Array, num_offsets: int) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Samples an image's top and left in [0, num_offsets), and whether it is mirrored."""
  top_key, left_key, flip_key = jax.random.split(key, 3)
  return (
    jax.random.randint(top_key, (), 0, num_offsets),
    jax.random.randint(left_key, (), 0, num_offsets),
    jax.random.bernoulli(flip_key),
  )


def _crop_matrices(
  source: int, resize: int, crop: int, offsets: jax.Array, random_crop: jax.Array
) -> jax.Array:
  """Returns [B, crop, source] float32: each image's matrix along one axis."""
  full = jnp.asarray(interpolation_matrix(source, resize))
  cropped = jax.vmap(lambda start: jax.lax.dynamic_slice(full, (start, 0), (crop, source)))(offsets)
  return jnp.where(random_crop, cropped, interpolation_matrix(source, crop))


def _apply(rows: jax.Array, columns: jax.Array, images: jax.Array) -> jax.Array:
  """Multiplies [B, p, h] rows and [B, q, w] columns with [B, h, w, 3] uint8 images: [B, p, q, 3].

  Products are in full float32: accelerators' default is less exact than a grey level.
  """
  exact = jax.lax.Precision.HIGHEST
  tall = jnp.einsum("bph,bhwc->bpwc", rows, images.astype(jnp.float32), precision=exact)
  return jnp.einsum("bqw,bpwc->bpqc", columns, tall, precision=exact)


def _scale(grey: jax.Array) -> jax.Array:
  """Maps grey levels 0 to 255 to [-1, 1]."""
  return (grey - 127.5) / 127.5
