"""Reads a checkpoint by `bit_jax.weights` or by `numpy.load`: a worker, see `workers`."""

import os
import pathlib
import shutil
from typing import Any

import numpy as np

from bit_jax import weights
from bit_jax.models import architectures
from experiments.benchmarks import machine, workers


def build(spec: dict[str, Any]) -> workers.Workload:
  """Returns the workload of a spec: its checkpoint is read once an item.

  Its peak memory is that above what the process holds after its imports. 'ours, first' hashes the
  file at every item; 'ours' finds the hash below $BIT_JAX_CACHE, which must be the benchmark's own.
  """
  path = pathlib.Path(spec["checkpoint"])
  architecture = architectures.find(spec["architecture"])

  def ours() -> int:
    loaded = weights.load(path, architecture, head="keep", num_classes=spec["num_classes"])
    assert len(loaded.sha256) == 64
    return 1

  def first() -> int:
    shutil.rmtree(pathlib.Path(os.environ["BIT_JAX_CACHE"]) / "sha256", ignore_errors=True)
    return ours()

  def by_numpy() -> int:
    with np.load(path) as file:
      arrays = {name: file[name] for name in file.files}
    assert len(arrays) == len(architectures.parameter_shapes(architecture, spec["num_classes"]))
    return 1

  machine.reset_peak_memory()
  before = machine.held_memory()
  repeat = {"ours": ours, "ours, first": first, "numpy": by_numpy}[spec["implementation"]]
  return workers.Workload(repeat, peak_memory=lambda: machine.peak_memory() - before)


if __name__ == "__main__":
  workers.serve(build)
