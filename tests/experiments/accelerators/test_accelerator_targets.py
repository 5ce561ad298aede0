"""The accelerators that programs are compiled for."""

import re
import types

import jax
import pytest
from jax.experimental import topologies

from experiments.accelerators import targets


@pytest.fixture
def asked(monkeypatch):
  """Answers requests for topologies with 16 devices; returns what was asked."""
  requests = []

  def topology(*names, **options):
    requests.append((names, options))
    return types.SimpleNamespace(devices=list(range(16)))

  monkeypatch.setattr(topologies, "get_topology_desc", topology)
  monkeypatch.setattr(jax, "devices", list)
  return requests


def test_an_h100_and_the_memory_that_jax_takes_of_it(asked):
  assert len(targets.devices("h100", 8)) == 8
  ((names, options),) = asked
  assert (names[1], options["topology"]) == ("cuda", "1x1x8")
  fields = dict(re.findall(r"^ *(\w+): \"?([^\"\n]+)\"?$", options["target_config"], re.MULTILINE))
  assert fields["device_description_str"] == "NVIDIA H100 80GB HBM3"
  assert int(fields["core_count"]) == 132
  assert "cuda_compute_capability { major: 9 minor: 0 }" in options["target_config"]
  share = targets.TARGETS["h100"].memory / int(fields["device_memory_size"])
  assert share == pytest.approx(0.75)  # JAX's XLA_PYTHON_CLIENT_MEM_FRACTION


@pytest.mark.parametrize(
  ("target", "count", "name"),
  [("v5e", 1, "v5e:2x2"), ("v5e", 4, "v5e:2x2"), ("v5e", 16, "v5e:4x4"), ("v4", 1, "v4:2x2x1")],
)
def test_the_smallest_topology_with_enough_chips(target, count, name, asked):
  assert len(targets.devices(target, count)) == count
  assert [names for names, _ in asked] == [(name, "tpu")]
