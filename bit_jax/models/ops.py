"""How the pieces of the network are computed fast, forward and backward.

The form of a piece may depend on the platform that the program is for; the result does not, up to
rounding. Pieces that recur are jitted, so that each is traced once per shape and not at each of
dozens of uses.
"""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
from jax.experimental import layout

from bit_jax.models import architectures

STANDARDIZE_EPSILON = 1e-10  # added to the variance, inside the square root
GROUP_NORM_EPSILON = 1e-5
_Saved = tuple[jax.Array, ...]  # kept from the forward for the backward pass
_SavedNorm = tuple[jax.Array, jax.Array | None, _Saved]  # activations, and what has no places
_FEW_PLACES = 16  # up to this many, patches are faster than XLA's convolution on CPU


@jax.jit
def standardize(kernel: jax.Array) -> jax.Array:
  """Returns the kernel with zero mean and unit (biased) variance per output channel.

  Args:
    kernel: [H, W, I, O] float32.
  """
  return _standardize(kernel)


@jax.custom_vjp
def _standardize(kernel: jax.Array) -> jax.Array:
  return _standardize_forward(kernel)[0]


def _standardize_forward(kernel: jax.Array) -> tuple[jax.Array, _Saved]:
  centred = kernel - kernel.mean((0, 1, 2), keepdims=True)
  variance = jnp.square(centred).mean((0, 1, 2), keepdims=True)
  scale = jax.lax.rsqrt(variance + STANDARDIZE_EPSILON)
  standardized = centred * scale
  return standardized, (standardized, scale)


def _standardize_backward(saved: _Saved, gradient: jax.Array) -> tuple[jax.Array]:
  """Takes two reductions; on CPU, XLA needs 14 times as long for the gradient from autodiff."""
  standardized, scale = saved
  mean = gradient.mean((0, 1, 2), keepdims=True)
  along = (gradient * standardized).mean((0, 1, 2), keepdims=True)
  return (scale * (gradient - mean - standardized * along),)


_standardize.defvjp(_standardize_forward, _standardize_backward)


@functools.partial(jax.jit, static_argnums=(2, 3))
def convolve(x: jax.Array, kernel: jax.Array, stride: int, platform: str) -> jax.Array:
  """Convolves in the form that is fastest on the platform.

  On two CPU cores (jax 0.10.2), compared with XLA's convolution: a 1x1 convolution is up to twice
  as fast as a matrix product; a 3x3 with stride 2 is 1.3 to 10 times as fast over patches,
  gradients included, and one over 4x4 places 1.3 to 2.5 times; the stem of a half-width network is
  5 times as fast with a fourth, empty input channel.

  On TPU all are XLA's convolutions: these read activations with the batch in the lanes or beside
  them, where the gradient of a product's kernel needs a transposed copy.

  Args:
    x: [B, H, W, I], zero-padded by S // 2 on each side.
    kernel: [S, S, I, O].
    stride: Step in both directions.
    platform: 'cpu', 'gpu' or 'tpu', of the devices that the program is for.

  Returns:
    [B, ceil(H / stride), ceil(W / stride), O].
  """
  size = kernel.shape[0]
  if size == 1 and platform != "tpu":
    return product(x[:, ::stride, ::stride], kernel[0, 0])
  few = x.shape[1] * x.shape[2] <= _FEW_PLACES
  if size == 3 and (stride == 2 or few) and platform == "cpu":
    return product(_patches(x, size, stride), kernel.reshape(-1, kernel.shape[-1]))
  if x.shape[-1] == 3:
    x = jnp.pad(x, [(0, 0)] * 3 + [(0, 1)])
    kernel = jnp.pad(kernel, [(0, 0), (0, 0), (0, 1), (0, 0)])
  strides, padding = (stride, stride), [(size // 2, size // 2)] * 2
  layout = ("NHWC", "HWIO", "NHWC")
  return jax.lax.conv_general_dilated(
    x, kernel, strides, padding, dimension_numbers=layout, precision=_precision(x)
  )


def _patches(x: jax.Array, size: int, stride: int) -> jax.Array:
  """Returns [B, H', W', size * size * C]: the window of each place of the output, as channels."""
  return jnp.concatenate(_windows(x, size, stride), axis=-1)


def _windows(x: jax.Array, size: int, stride: int) -> list[jax.Array]:
  """Returns a [B, H', W', C] for each of the size * size places in a zero-padded window."""
  height, width = ((n - 1) // stride * stride + 1 for n in x.shape[1:3])
  pad = size // 2
  x = jnp.pad(x, [(0, 0), (pad, pad), (pad, pad), (0, 0)])
  places = itertools.product(range(size), repeat=2)
  return [x[:, i : i + height : stride, j : j + width : stride] for i, j in places]


@jax.custom_vjp
def product(x: jax.Array, kernel: jax.Array) -> jax.Array:
  """Multiplies [..., I] by [I, O]."""
  return jnp.matmul(x, kernel, precision=_precision(x))


def _product_forward(x: jax.Array, kernel: jax.Array) -> tuple[jax.Array, _Saved]:
  return product(x, kernel), (x, kernel)


def _product_backward(saved: _Saved, gradient: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Puts the narrower factor of the kernel's gradient first: XLA transposes the first one."""
  x, kernel = saved
  dx = jnp.matmul(gradient, kernel.T, precision=_precision(x))
  rows, columns = x.reshape(-1, x.shape[-1]), gradient.reshape(-1, gradient.shape[-1])
  if x.shape[-1] <= gradient.shape[-1]:
    return dx, _contract_rows(rows, columns)
  return dx, _contract_rows(columns, rows).T


product.defvjp(_product_forward, _product_backward)


def _contract_rows(a: jax.Array, b: jax.Array) -> jax.Array:
  """Multiplies [N, I] and [N, J] to [I, J]."""
  return jax.lax.dot_general(a, b, (((0,), (0,)), ((), ())), precision=_precision(a))


def _precision(x: jax.Array) -> jax.lax.Precision | None:
  """Returns the precision that computes float32 in full: accelerators' default is less exact."""
  return jax.lax.Precision.HIGHEST if x.dtype == jnp.float32 else None


@functools.partial(jax.jit, static_argnums=3)
def group_norm_relu(x: jax.Array, gamma: jax.Array, beta: jax.Array, platform: str) -> jax.Array:
  """Returns ReLU of group norm over 32 groups, with statistics in float32.

  `flax.linen.GroupNorm` is not used: its one-pass variance changes what pre-trained weights
  compute. Here the variance has two passes, but for bfloat16, whose own rounding is coarser than
  the error of one. Of the activations, the backward pass keeps the input; on CPU the output, too.

  Args:
    x: [B, N, C], or [B, H, W, C].
    gamma: [C] float32.
    beta: [C] float32.
    platform: 'cpu', 'gpu' or 'tpu', of the devices that the program is for.

  Returns:
    The shape and dtype of `x`, non-negative.
  """
  return _group_norm_relu(x, gamma, beta, platform)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def _group_norm_relu(x: jax.Array, gamma: jax.Array, beta: jax.Array, platform: str) -> jax.Array:
  return _normalize(x, gamma, beta)[0]


def _group_norm_relu_forward(
  x: jax.Array, gamma: jax.Array, beta: jax.Array, platform: str
) -> tuple[jax.Array, _SavedNorm]:
  x = _channels_last(x, platform)
  y, small = _normalize(x, gamma, beta)
  return y, (x, y if platform == "cpu" else None, small)


def _normalize(x: jax.Array, gamma: jax.Array, beta: jax.Array) -> tuple[jax.Array, _Saved]:
  wide = x.astype(jnp.float32)
  places = _places(x)
  mean = _group_mean(wide.mean(places), places)
  if x.dtype == jnp.float32:
    variance = _group_mean(jnp.square(wide - mean).mean(places), places)
  else:
    squares = _group_mean(jnp.square(wide).mean(places), places)
    variance = jax.nn.relu(squares - jnp.square(mean))
  scale = jax.lax.rsqrt(variance + GROUP_NORM_EPSILON)
  y = jax.nn.relu((wide - mean) * (scale * gamma) + beta).astype(x.dtype)
  return y, (mean, scale, gamma, beta)


def _group_norm_relu_backward(
  platform: str, saved: _SavedNorm, gradient: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Computes again from the input what it can: on accelerators, memory is what takes the time."""
  x, y, small = saved
  x, gradient = _channels_last(x, platform), _channels_last(gradient, platform)
  through, normalized = _through_relu(x, y, small, gradient)
  places = _places(x)
  plain, along = through.sum(places), (through * normalized).sum(places)  # [B, C]
  if y is None:  # or XLA for GPU would keep `through` from one pass over activations to the next
    plain, along, small = jax.lax.optimization_barrier((plain, along, small))
    through, normalized = _through_relu(x, y, small, gradient)
  _, scale, gamma, _ = small
  size = math.prod(x.shape[1:-1])
  dx = scale * (
    through * gamma
    - _group_mean(plain * gamma / size, places)
    - normalized * _group_mean(along * gamma / size, places)
  )
  return dx.astype(x.dtype), along.sum(0), plain.sum(0)


def _through_relu(
  x: jax.Array, y: jax.Array | None, small: _Saved, gradient: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """Returns the gradient where ReLU passed its input, and the normalised input, both float32."""
  mean, scale, gamma, beta = small
  gradient, centred = gradient.astype(jnp.float32), x.astype(jnp.float32) - mean
  if y is None:  # a comparison's result takes only a byte, and XLA for GPU would keep it
    through = gradient * jnp.sign(jax.nn.relu(centred * (scale * gamma) + beta))
  else:
    through = jnp.where(y > 0, gradient, 0)
  return through, centred * scale


_group_norm_relu.defvjp(_group_norm_relu_forward, _group_norm_relu_backward)


def _channels_last(x: jax.Array, platform: str) -> jax.Array:
  """Returns [B, N, C] as it is, in memory too: XLA for GPU would transpose some activations.

  For training only: `jax.export` takes no such constraint.
  """
  if platform != "gpu":
    return x
  kept: jax.Array = layout.with_layout_constraint(x, layout.Layout(major_to_minor=(0, 1, 2)))
  return kept


def _places(x: jax.Array) -> tuple[int, ...]:
  """Returns the axes of places in [B, N, C] or [B, H, W, C]."""
  return tuple(range(1, x.ndim - 1))


def _group_mean(means: jax.Array, places: tuple[int, ...]) -> jax.Array:
  """Averages [B, C] over the channels of each group, repeated to [B, 1, C] or [B, 1, 1, C].

  Places are averaged before: whole rows of channels vectorise, and shorter sums are more exact.
  """
  batch, channels = means.shape
  size = channels // architectures.NUM_GROUPS
  means = means.reshape(batch, architectures.NUM_GROUPS, size).mean(2)
  return jnp.expand_dims(jnp.repeat(means, size, axis=1), places)


def max_pool_zero_padded(x: jax.Array, platform: str) -> jax.Array:
  """3x3 max-pool with stride 2 over an input padded with zeros: [B, H, W, C] to half the size.

  The stem's output is signed, so the padding value matters: the official code pads with zeros,
  `flax.linen.max_pool` with minus infinity. Ties send the gradient to the first of the window, as
  in PyTorch. On CPU computed by slices: XLA's gradient of a window reduction runs on one thread.

  Args:
    x: [B, H, W, C].
    platform: 'cpu', 'gpu' or 'tpu', of the devices that the program is for.
  """
  if platform == "gpu":
    return _max_pool(x)
  if platform == "tpu":
    return _window_maxima(x)
  for axis in (2, 1):
    size = (x.shape[axis] - 1) // 2 + 1
    padding = [(0, 0)] * x.ndim
    padding[axis] = (1, 1)
    padded = jnp.pad(x, padding)
    first, second, third = (
      jax.lax.slice_in_dim(padded, i, i + 2 * size - 1, 2, axis) for i in range(3)
    )
    x = jnp.where(first >= second, first, second)
    x = jnp.where(x >= third, x, third)
  return x


def _window_maxima(x: jax.Array) -> jax.Array:
  """The max-pool as XLA's window reduction: of slices, XLA for TPU writes every one to memory."""
  x = jnp.pad(x, [(0, 0), (1, 1), (1, 1), (0, 0)])
  window, strides = (1, 3, 3, 1), (1, 2, 2, 1)
  maxima: jax.Array = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, window, strides, "VALID")
  return maxima


@jax.custom_vjp
def _max_pool(x: jax.Array) -> jax.Array:
  """The max-pool as one kernel forward, which keeps the place of each maximum, and one backward."""
  return _max_pool_forward(x)[0]


def _max_pool_forward(x: jax.Array) -> tuple[jax.Array, _Saved]:
  largest, *others = _windows(x, 3, 2)
  place = jnp.zeros(largest.shape, jnp.uint8)
  for i, other in enumerate(others, 1):
    place = jnp.where(other > largest, jnp.uint8(i), place)
    largest = jnp.maximum(largest, other)
  return largest, (place, x)


def _max_pool_backward(saved: _Saved, gradient: jax.Array) -> tuple[jax.Array]:
  place, x = saved
  _, from_windows = jax.vjp(lambda x: _windows(x, 3, 2), x)  # linear: it needs no value of x
  (dx,) = from_windows([jnp.where(place == i, gradient, 0) for i in range(9)])
  return (dx,)


_max_pool.defvjp(_max_pool_forward, _max_pool_backward)
