"""Checkpoints: the released `.npz` files by name, their download, reading and writing.

    path = weights.resolve("BiT-M-R50x1")
    loaded = weights.load(path, architectures.find("R50x1"), head="zero", num_classes=10)
    names = weights.class_names("BiT-M-R50x1", 21843)
    weights.save("model.npz", loaded.params)

`python -m bit_jax.weights list|download|verify|inspect` does the same from a shell. Nothing here
imports jax or TensorFlow.
"""

from bit_jax.weights.catalogue import CATALOGUE, default_for, find
from bit_jax.weights.checkpoints import infer, load, save
from bit_jax.weights.classes import class_names
from bit_jax.weights.fetch import locate, resolve

__all__ = [
  "CATALOGUE",
  "class_names",
  "default_for",
  "find",
  "infer",
  "load",
  "locate",
  "resolve",
  "save",
]
