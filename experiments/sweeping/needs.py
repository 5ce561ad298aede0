"""What runs need that isn't on this machine: told before any is made, and without reading data.

It is no mistake to begin without: a released checkpoint is downloaded where there is a network, and
a run that lacks something fails alone and is tried again by the next sweep.
"""

import collections
import os
import pathlib
from collections.abc import Iterable, Iterator

from bit_jax import run_config, weights
from bit_jax.runtime import errors, paths
from experiments.sweeping import grid


def missing(planned: Iterable[grid.Planned]) -> Iterator[str]:
  """Yields a sentence on each thing that isn't there, with how many of the runs lack it."""
  lacking = collections.Counter(what for one in planned if one.spec for what in _lacks(one))
  for what, number in lacking.items():
    yield f"{number} of them {'is' if number == 1 else 'are'} not ready: {what}"


def _lacks(one: grid.Planned) -> Iterator[str]:
  c, spec = one.config, one.spec
  assert spec is not None
  if one.after is None and c.weights != "none":
    try:
      weights.locate(c.weights)
    except errors.UserError as e:
      yield str(e)
  folder = _data_folder(c.data_dir)
  # As `sources.tfds_builders` finds it, which takes TensorFlow and so some seconds to import.
  if spec.tfds_name and not any((folder / spec.tfds_name).glob("*/dataset_info.json")):
    yield (
      f"{spec.name} is not prepared in {folder}: python -m bit_jax.data doctor {spec.name} says "
      f"how to get it."
    )
  if run_config.num_examples(c, spec) > spec.num_train:
    yield (
      f"{c.shots} images of each of the {spec.num_classes} classes of {spec.name} are more than "
      f"the {spec.num_train:,} that there are to train on."
    )


def _data_folder(data_dir: str | None) -> pathlib.Path:
  """Returns where tensorflow-datasets looks for prepared sets."""
  folder = data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
  return pathlib.Path(paths.expanded(folder))
