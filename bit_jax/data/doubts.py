"""Data that make an accuracy meaningless, or too high: warnings before the first step."""

from collections.abc import Mapping, Sequence

import numpy as np

from bit_jax.data import opening, overlap
from bit_jax.data.sources import arrays
from bit_jax.runtime import phrases

_FIRST = 1_000  # images that show their range, mostly


def warnings(wholes: Mapping[str, opening.Source], used: Mapping[str, np.ndarray]) -> list[str]:
  """Returns warnings on images that make an accuracy meaningless, or too high.

  Sets that tfds prepared are published as they are, and not looked at.

  Args:
    wholes: {'training', 'test' or 'validation': part}.
    used: {name: [M] integer indices of the examples that are used, at least one}.
  """
  found: dict[str, overlap.Part] = {}
  sentences = []
  for name, whole in wholes.items():
    if isinstance(whole, overlap.Comparable):
      found[name] = overlap.Part(whole, used[name])
      labels = found[name].labels
      sentences += darkness(name, whole)
      if name == "training":
        sentences += similar_names(whole.class_names)
      elif (labels == labels[0]).all():
        only = whole.class_names[labels[0]]
        sentences.append(
          f"All {len(labels):,} {name} images are of one class, {only}: their accuracy says "
          f"nothing about the other classes."
        )
  return [*sentences, *overlap.warnings(found)]


def similar_names(class_names: Sequence[str]) -> list[str]:
  """Returns a sentence if the names of some classes differ only in case or in spaces."""
  spellings: dict[str, list[str]] = {}
  for name in class_names:
    spellings.setdefault("".join(name.split()).casefold(), []).append(name)
  pairs = [" and ".join(map(repr, names)) for names in spellings.values() if len(names) > 1]
  if not pairs:
    return []
  return [
    f"Some names of classes differ only in case or spaces: {phrases.some(pairs)}. They "
    f"are trained as different classes: give them one name if they are the same."
  ]


def darkness(part: str, source: opening.Source) -> list[str]:
  """Returns a sentence if the images of a part are nearly black, as those scaled to [0, 1] are."""
  if not isinstance(source, arrays.Examples):
    return []
  if source.images[:_FIRST].max() > 1 or source.images.max() > 1:
    return []
  return [
    f"No value in the {part} images is above 1, so they are nearly black: values from 0 to 1 must "
    f"be multiplied by 255 before they become uint8."
  ]
