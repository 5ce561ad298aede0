"""Tests of experiments.throughput."""

import json

import pytest

from bit_jax import architectures
from experiments import throughput
from experiments.benchmarks import roofline

KNOWN = [
  throughput.Measured("R50x1", 128, 8.0),
  throughput.Measured("R50x1", 128, 6.0),
  throughput.Measured("R50x1", 128, 7.5),
  throughput.Measured("R50x1", 480, 0.5),
  throughput.Measured("R14x0.5", 48, 240.0),
]
ENVIRONMENT = {
  "platform": "cpu",
  "machine": "Linux x86_64, 2 cores",
  "dtype": "float32",
  "num_devices": 1,
}
CONFIG = {"model": "R14x0.5", "crop": 48, "batch_size": 64}


def record(**changes):
  return {
    "benchmark": "train_step",
    "machine": "Some CPU, 2 cores",
    "configuration": "R50x1 128 px batch 16 float32",
    "quantity": "training",
    "unit": "images/s",
    "ours": 8.0,
    **changes,
  }


def test_the_measurements_that_there_are():
  known = throughput.measurements()
  cases = {(m.architecture, m.size) for m in known}
  assert {("R50x1", 128), ("R50x1", 480), ("R14x0.5", 48), ("R14x0.5", 128)} <= cases
  assert len(known) == len(set(known))
  small = [m.rate for m in known if (m.architecture, m.size) == ("R14x0.5", 48)]
  assert small == [pytest.approx(8 / 0.033878149995871354)]  # steps of 8 images


def test_lines_that_are_no_measurement_of_ours(tmp_path):
  path = tmp_path / "results.jsonl"
  lines = [
    record(),
    record(ours=8.5),
    record(),  # against another peer
    record(machine="Some CPU, 16 cores"),
    record(machine="NVIDIA H200, Some CPU, 2 cores"),
    record(ours=None),
    record(quantity="peak memory"),
    record(benchmark="inference"),
    record(configuration="R50x1 128 px batch 16 bfloat16"),
    record(
      benchmark="scaling",
      configuration="R14x0.5, 2,304 pixels of an image (48 x 48)",
      unit="s",
      ours=0.04,
    ),
    record(benchmark="scaling", configuration="R14x0.5, pixels of an image", unit="%", ours=4.0),
    record(benchmark="scaling", configuration="R14x0.5, 8 images of a batch", unit="s"),
  ]
  path.write_text("".join(json.dumps(line) + "\n" for line in lines))
  assert throughput.measurements(path) == [
    throughput.Measured("R50x1", 128, 8.0),
    throughput.Measured("R50x1", 128, 8.5),
    throughput.Measured("R14x0.5", 48, 200.0),
  ]


def test_what_was_measured_is_taken_as_it_is():
  found = throughput.on_cpu(KNOWN, "R50x1", 128)
  assert (found.rate, found.measured, found.bound) == (pytest.approx(7.5), True, False)


def test_another_size_goes_by_its_operations():
  found = throughput.on_cpu(KNOWN, "R50x1", 384)  # 480 is nearer than 128
  ratio = throughput.training_flops("R50x1", 480) / throughput.training_flops("R50x1", 384)
  assert found.rate == pytest.approx(0.5 * ratio)
  assert (found.measured, found.basis) == (False, "FLOP/s of R50x1 at 480 pixels")


def test_another_network_goes_by_the_r50x1():
  found = throughput.on_cpu(KNOWN, "R101x3", 128)
  ratio = throughput.training_flops("R50x1", 128) / throughput.training_flops("R101x3", 128)
  assert found.rate == pytest.approx(7.5 * ratio)
  assert throughput.on_cpu(KNOWN[-1:], "R101x3", 128) is None


def test_a_step_takes_three_forward_passes():
  forward = architectures.forward_flops(architectures.find("R50x1"), 10, 128)
  assert throughput.training_flops("R50x1", 128) == 3 * forward


def test_a_run_on_two_cores():
  assert throughput.of_run(KNOWN, CONFIG, ENVIRONMENT).rate == pytest.approx(240)


@pytest.mark.parametrize(
  "changes",
  [
    {"machine": "Linux x86_64, 32 cores"},
    {"dtype": "bfloat16"},
    {"platform": "gpu", "device": "NVIDIA T4", "dtype": "bfloat16"},
    {"platform": "gpu", "device": "NVIDIA H200", "dtype": "float32"},
  ],
)
def test_devices_of_which_nothing_is_known(changes):
  assert throughput.of_run(KNOWN, CONFIG, {**ENVIRONMENT, **changes}) is None


def test_a_run_on_cards_is_bounded_by_their_roofline():
  environment = {
    **ENVIRONMENT,
    "platform": "gpu",
    "device": "NVIDIA H200",
    "dtype": "bfloat16",
    "num_devices": 4,
  }
  found = throughput.of_run([], {**CONFIG, "batch_size": 512}, environment)
  one = roofline.images_per_second(
    roofline.ACCELERATORS["H200"], architectures.find("R14x0.5"), 48, 128, training=True
  )
  assert (found.rate, found.bound) == (pytest.approx(4 * one), True)
