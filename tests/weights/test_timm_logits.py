"""Logits of timm's own code for seeded networks, compared where PyTorch isn't installed.

`timm_logits.npz` was written by timm 1.0.31 and torch 2.14.1 on a CPU:
`python -m experiments.exports.timm_round_trip --write=tests/weights/timm_logits.npz`.
"""

import pathlib

import numpy as np
import pytest
import safetensors.numpy

from bit_jax import weights
from bit_jax.models import architectures
from bit_jax.weights import layouts
from experiments.exports import timm_round_trip

LOGITS = pathlib.Path(__file__).with_name("timm_logits.npz")


@pytest.mark.parametrize("name", ["R14x0.5", pytest.param("R50x1", marks=pytest.mark.slow)])
def test_logits_are_those_of_timm(name, tmp_path, monkeypatch):
  monkeypatch.setenv("BIT_JAX_CACHE", str(tmp_path / "cache"))
  architecture = architectures.find(name)
  arrays = timm_round_trip.random_parameters(architecture)
  in_file = {
    layouts.TIMM.key(k): np.ascontiguousarray(layouts.TIMM.to_file(v)) for k, v in arrays.items()
  }
  file = tmp_path / "model.safetensors"
  safetensors.numpy.save_file(in_file, file)
  loaded = weights.load(file, architecture, head="keep", num_classes=timm_round_trip.NUM_CLASSES)
  pictures = timm_round_trip.images(0, timm_round_trip.SEEDED[name])
  logits = timm_round_trip.own_logits(architecture, loaded.params, pictures)
  with np.load(LOGITS) as stored:
    expected = stored[name]
  assert expected.std() > 0.1
  assert np.abs(logits - expected).max() < 1e-5 * np.abs(expected).max()
