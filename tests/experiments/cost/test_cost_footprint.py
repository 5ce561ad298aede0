"""Tests of experiments.cost.footprint."""

import dataclasses

import hypothesis
import pytest
import resolving
import running
from hypothesis import strategies as st

from bit_jax.configs import cifar10
from bit_jax.models import architectures
from experiments.cost import footprint


def test_flops_of_a_run_are_those_of_its_images():
  config, spec = resolving.resolve(cifar10.get_config("shots=10"))
  a = architectures.find("R50x1")
  image = architectures.forward_flops(a, 10, 128)
  trained, tested = 500 * 512, 5 * 10_000  # the rule's, and five evaluations
  assert footprint.flops(config, spec) == pytest.approx((3 * trained + tested) * image)


def test_the_last_evaluation_counts_once():
  config, spec = resolving.resolve(cifar10.get_config("shots=10"))

  def flops(every):
    return footprint.flops(dataclasses.replace(config, eval_every=every), spec)

  one = flops(250) - flops(500)
  assert one == pytest.approx(
    10_000 * architectures.forward_flops(architectures.find("R50x1"), 10, 128)
  )
  assert flops(500) == flops(10_000)  # it is always made
  assert flops(400) == flops(250)  # after 400 and 500; after 250 and 500


@hypothesis.given(steps=st.integers(1, 10**5), batch=st.integers(1, 4096))
def test_flops_grow_with_the_images(steps, batch):
  config, spec = resolving.resolve(cifar10.get_config("shots=10"))
  lengths = {"eval_every": steps, "total_steps": steps}
  before, after = (dataclasses.replace(config, batch_size=b, **lengths) for b in (batch, batch + 1))
  assert footprint.flops(after, spec) > footprint.flops(before, spec)


def test_test_images_count_at_their_own_size():
  config, spec = resolving.resolve(cifar10.get_config("shots=10"))
  before = footprint.flops(config, spec)
  grown = footprint.flops(dataclasses.replace(config, test_size=256), spec) - before
  a = architectures.find("R50x1")
  forward = [architectures.forward_flops(a, 10, size) for size in (128, 256)]
  assert grown == pytest.approx(5 * 10_000 * (forward[1] - forward[0]))


@pytest.mark.slow
def test_bytes_of_a_real_run_folder(tmp_path, tmp_path_factory):
  with running.compilation_cache(tmp_path_factory):
    running.train(tmp_path / "run")
  held = sum(path.stat().st_size for path in (tmp_path / "run").rglob("*") if path.is_file())
  assert footprint.disk_bytes("R14x0.5", 10, "float32") == pytest.approx(held, rel=0.25)


def test_momentum_in_bfloat16_saves_a_fifth_of_the_bytes():
  full, half = (footprint.disk_bytes("R50x1", 10, dtype) for dtype in ("float32", "bfloat16"))
  assert full - half == 2 * 2 * architectures.num_parameters(architectures.find("R50x1"), 10)


def test_the_test_images_are_evaluated_once_where_weights_are_chosen_on_others():
  config, spec = resolving.resolve(cifar10.get_config("shots=10"))
  apart = dataclasses.replace(spec, num_val=300)
  image = architectures.forward_flops(architectures.find("R50x1"), 10, 128)
  images = 3 * 500 * 512 + 5 * 300 + 10_000
  assert footprint.flops(config, apart) == pytest.approx(images * image)
