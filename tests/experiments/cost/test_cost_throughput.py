"""Tests of experiments.cost.throughput."""

import json

import pytest

from bit_jax.models import architectures
from experiments.benchmarks import comparison, roofline
from experiments.cost import throughput

KNOWN = [
  throughput.Measured("R50x1", 128, 16, 8.0),
  throughput.Measured("R50x1", 128, 16, 6.0),
  throughput.Measured("R50x1", 128, 16, 7.5),
  throughput.Measured("R50x1", 480, 2, 0.5),
  throughput.Measured("R14x0.5", 48, 8, 240.0),
]
CARDS = [
  throughput.Measured("R50x1", 128, 512, 5000.0, "H200"),
  throughput.Measured("R50x1", 128, 64, 2000.0, "H200"),
  throughput.Measured("R101x3", 128, 128, 700.0, "H200"),
  throughput.Measured("R50x1", 128, 512, 300.0, "L4"),
]


def bound(card, architecture, size, batch):
  operations = roofline.operations(architectures.find(architecture), size, batch, training=True)
  return roofline.ACCELERATORS[card].images_per_second(operations)


def training_flops(architecture, size):
  return comparison.Case(architecture, size, 1).flops("training")


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
    record(machine="NVIDIA H200, Some CPU, 16 cores", ours=None),
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
    throughput.Measured("R50x1", 128, 16, 8.0),
    throughput.Measured("R50x1", 128, 16, 8.5),
    throughput.Measured("R14x0.5", 48, 8, 200.0),
  ]


def test_what_was_measured_on_cards(tmp_path):
  """Lines as the benchmark writes them there (`results.Row`, `machine.Machine`)."""
  path = tmp_path / "results.jsonl"
  on_card = {"configuration": "R50x1 128 px batch 512 bfloat16", "ours": 5000.0}
  lines = [
    record(machine="NVIDIA H200, Some CPU, 16 cores", **on_card),
    record(machine="NVIDIA A100-SXM4-80GB, NVIDIA A100-SXM4-80GB, Some CPU, 2 cores", **on_card),
    record(machine="NVIDIA L4, Some CPU, 2 cores", **on_card),
    record(machine="NVIDIA H200, Some CPU, 16 cores", **on_card, quantity="peak memory"),
    record(machine="NVIDIA H200, Some CPU, 16 cores"),  # --device=cpu
  ]
  path.write_text("".join(json.dumps(line) + "\n" for line in lines))
  known = throughput.measurements(path)
  assert known == [
    throughput.Measured("R50x1", 128, 512, 5000.0, card) for card in ("H200", "A100", "L4")
  ]
  assert throughput.predict(known, throughput.CPU, "R50x1", 128, 8) is None


def test_what_was_measured_is_taken_as_it_is():
  found = throughput.predict(KNOWN, throughput.CPU, "R50x1", 128, 8)
  assert found == (pytest.approx(7.5), "m")


def test_another_size_goes_by_its_operations():
  found = throughput.predict(KNOWN, throughput.CPU, "R50x1", 384, 8)  # 480 is nearer than 128
  ratio = training_flops("R50x1", 480) / training_flops("R50x1", 384)
  assert found == (pytest.approx(0.5 * ratio), "~")


@pytest.mark.parametrize(
  ("architecture", "like"),
  [
    ("R101x1", "R50x1"),  # as wide
    ("R152x2", "R101x3"),  # 3 is nearer to 2 than 1 is, as a ratio
    ("R152x4", "R101x3"),
    ("R50x3", "R101x3"),
    ("R14x0.5", "R50x1"),
  ],
)
def test_another_network_goes_by_the_one_most_like_it(architecture, like):
  known = [throughput.Measured("R50x1", 128, 8, 8.0), throughput.Measured("R101x3", 480, 8, 0.5)]
  (m,) = [m for m in known if m.architecture == like]
  found = throughput.predict(known, throughput.CPU, architecture, 128, 8)
  flops = [training_flops(*case) for case in ((like, m.size), (architecture, 128))]
  assert found == (pytest.approx(m.rate * flops[0] / flops[1]), "~")


def test_nothing_is_known_where_nothing_was_measured():
  assert throughput.predict([], throughput.CPU, "R50x1", 128, 8) is None
  assert throughput.predict(CARDS, throughput.CPU, "R50x1", 128, 8) is None
  assert throughput.predict(KNOWN, "L4", "R50x1", 128, 512) is None


def test_a_card_of_which_nothing_was_measured_has_its_roofline():
  found = throughput.predict(KNOWN, "H200", "R50x1", 128, 512)
  assert found == (pytest.approx(bound("H200", "R50x1", 128, 512)), ">=")


def test_what_was_measured_on_a_card_replaces_its_roofline():
  found = throughput.predict(CARDS, "H200", "R50x1", 128, 512)
  assert found == (pytest.approx(5000), "m")
  assert throughput.predict(CARDS, "L4", "R50x1", 128, 512).rate == pytest.approx(300)
  assert throughput.predict(CARDS, "A100", "R50x1", 128, 512).basis == ">="


def test_of_several_batches_the_largest_counts():
  assert throughput.predict(CARDS[:2], "H200", "R50x1", 128, 512).rate == pytest.approx(5000)
  assert throughput.predict(CARDS[1::-1], "H200", "R50x1", 128, 512).rate == pytest.approx(5000)


def test_an_estimate_stays_below_the_roofline():
  slow = [throughput.Measured("R50x1", 128, 512, 100.0, "H200")]
  ratio = training_flops("R50x1", 128) / training_flops("R101x1", 128)
  found = throughput.predict(slow, "H200", "R101x1", 128, 512)
  assert found == (pytest.approx(100 * ratio), "~")
  fast = [throughput.Measured("R50x1", 128, 512, 1e6, "H200")]
  found = throughput.predict(fast, "H200", "R101x1", 128, 512)
  assert found == (pytest.approx(bound("H200", "R101x1", 128, 512)), ">=")


def test_a_step_takes_three_forward_passes():
  forward = architectures.forward_flops(architectures.find("R50x1"), 10, 128)
  assert training_flops("R50x1", 128) == 3 * forward
