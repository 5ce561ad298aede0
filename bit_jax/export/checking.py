"""Compares a written export with the network: two images through both."""

import functools
import importlib.util
import pathlib
from importlib import metadata
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bit_jax.data import augmentation
from bit_jax.export import form
from bit_jax.inference import networks
from bit_jax.models import resnet_v2
from bit_jax.runtime import errors

TOLERANCE = 1e-3  # of the largest logit; what runtimes differ by is a hundredth of it
_SEED = 0
_BLOCKS = (7, 9)  # of the test images, in random colours
_BLOCK_SIDE = 16


class Check:
  """Compares exports of one network with it; its own logits are computed once."""

  def __init__(self, network: networks.Network):
    """Takes a network that computes in float32."""
    self._network = network

  @functools.cached_property
  def _expected(self) -> np.ndarray:
    return logits(self._network, images())

  def difference(self, export: form.Form, folder: pathlib.Path) -> float | None:
    """Returns the largest difference between two logits, relative to the largest logit.

    Args:
      export: The written form.
      folder: Its files.

    Returns:
      None if a package is `missing` that loads the export.

    Raises:
      UserError: The difference is above `TOLERANCE`.
    """
    if missing(export):
      return None
    found = export.classify(folder, self._network, images())
    apart = np.abs(found - self._expected).max() / (np.abs(self._expected).max() or 1)
    if not apart <= TOLERANCE:
      raise errors.UserError(
        f"{versioned(export.runtime)} computes other logits from the export than the network "
        f"has: they differ by {apart:.2g} of the largest one, so the export was deleted. Another "
        f"version of the library may help; please report it."
      )
    return float(apart)


def missing(export: form.Form) -> str | None:
  """Returns the first package that loads an export and isn't installed; None if all are."""
  packages = (export.runtime, *export.needs)
  return next((name for name in packages if importlib.util.find_spec(name) is None), None)


def versioned(package: str) -> str:
  """Returns the name of an installed package with its version."""
  version = getattr(importlib.import_module(package), "__version__", None)
  return f"{package} {version or metadata.version(package)}"


def images() -> np.ndarray:
  """Returns [2, 112, 144, 3] uint8: blocks of random colours under noise."""
  random = np.random.default_rng(_SEED)
  blocks = random.integers(0, 256, (2, *_BLOCKS, 3))
  large = blocks.repeat(_BLOCK_SIDE, 1).repeat(_BLOCK_SIDE, 2)
  return np.clip(large + random.normal(0, 16, large.shape), 0, 255).astype(np.uint8)


def logits(network: networks.Network, pictures: np.ndarray) -> np.ndarray:
  """Returns the network's logits, [B, C] float32, of [B, h, w, 3] uint8 as in evaluation.

  Images are resized in float32, without rounding to grey levels.
  """
  prepared = augmentation.prepare_eval(jnp.asarray(pictures), network.size)
  return np.asarray(_apply(network.model, network.params, prepared))


@functools.partial(jax.jit, static_argnums=0)
def _apply(model: resnet_v2.ResNetV2, params: Any, prepared: jax.Array) -> jax.Array:
  computed: jax.Array = model.apply({"params": params}, prepared)[0]
  return computed
