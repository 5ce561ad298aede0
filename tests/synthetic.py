"""Checkpoints and images made from seeds: what the outputs in `reference.npz` belong to.

Each array's values depend on its official key and shape alone, so nothing has to be downloaded.
"""

import zlib

import numpy as np
from flax import traverse_util

from bit_jax.models import architectures

TAU = 6.28  # the references were made with this many digits


def architecture(name):
  """The references call R14x1 'tiny'."""
  return architectures.find("R14x1" if name == "tiny" else name)


def parameters(name, num_classes):
  """Returns the nested parameters of a network, float32, its head included."""
  shapes = architectures.parameter_shapes(architecture(name), num_classes)
  return traverse_util.unflatten_dict({k: array(k, s) for k, s in shapes.items()}, sep="/")


def array(name, shape):
  """Returns a kernel with a mean that standardisation must remove, a gain near 1, or a shift."""
  seed = zlib.crc32(f"resnet/{name}".encode())
  normal = np.random.Generator(np.random.Philox(seed)).standard_normal(shape, np.float32)
  kind = name.rsplit("/", 1)[1]
  if kind == "kernel":
    fan_in = np.prod(shape[:-1])
    return normal * np.float32(fan_in**-0.5) + np.float32(0.01)
  return normal * np.float32(0.2) + np.float32(kind == "gamma")


def images(seed, n, size):
  """Returns [n, size, size, 3] float32 in [-1, 1]: a wave in each channel, and noise."""
  random = np.random.Generator(np.random.Philox(seed))
  waves = [
    (random.uniform(1, 9), random.uniform(1, 9), random.uniform(0, TAU)) for _ in range(3 * n)
  ]
  vertical, horizontal, phase = np.array(waves).reshape(n, 1, 1, 3, 3).transpose(4, 0, 1, 2, 3)
  y = np.linspace(0, 1, size)[:, None, None]
  x = np.linspace(0, 1, size)[None, :, None]
  pictures = np.sin(TAU * (vertical * y + horizontal * x) + phase)
  noise = random.uniform(-1, 1, pictures.shape)
  return (0.8 * pictures + 0.2 * noise).astype(np.float32)


def labels(seed, steps, batch_size, num_classes):
  """Yields the labels of each step: [batch_size] int64."""
  random = np.random.Generator(np.random.Philox(1000 + seed))
  for _ in range(steps):
    yield random.integers(0, num_classes, batch_size)
