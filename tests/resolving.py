"""What tests share that need a resolved config, the facts of its data set, or its data."""

import dataclasses

from bit_jax import run_config
from bit_jax.data import pipeline


def resolve(request):
  """Returns the resolved config of a request, and the facts of its data set."""
  config, data = run_config.prepare(request)
  return config, data.spec


def load(request, memory=float("inf"), *, load=pipeline.load, **facts):
  """Returns the data of a request; `facts` of the data set are changed before."""
  config, data = run_config.prepare(request)
  data.spec = dataclasses.replace(data.spec, **facts)
  return load(data, run_config.selection(config), memory)
