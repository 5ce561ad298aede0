"""Tests of the tables of experiments.cost."""

import pytest

from bit_jax.models import architectures, resnet_v2
from bit_jax.training import memory
from experiments.cost import __main__ as tables
from experiments.cost import throughput

KNOWN = [throughput.Measured("R50x1", 128, 16, 8.0)]
ON_CARDS = [
  throughput.Measured("R50x1", 128, 512, 5120.0, "H200"),
  throughput.Measured("R50x1", 128, 512, 512.0, "L4"),
]


@pytest.fixture(scope="module")
def rows():
  return read(KNOWN)


def read(known):
  """{name of the table: cells of its rows}."""
  return {
    name: [[cell.strip() for cell in line.strip("|").split("|")] for line in list(lines)[2:]]
    for name, lines in tables.document(known).items()
  }


def test_operations(rows):
  found = rows["operations"]
  assert len(found) == 7 * 3
  forward = architectures.forward_flops(architectures.find("R101x3"), 1000, 480)
  (cells,) = [c for c in found if c[:2] == ["R101x3", "480"]]
  values = [float(c.split()[0]) for c in cells[2:]]
  units = [c.split()[1] for c in cells[2:]]
  assert units == ["GFLOP", "PFLOP", "EFLOP", "EFLOP"]
  images = [500 * 512, 10_000 * 512, 20_000 * 512]
  expected = [
    forward / 1e9,
    *(3 * forward * n / u for n, u in zip(images, (1e15, 1e18, 1e18), strict=True)),
  ]
  assert values == pytest.approx(expected, rel=5e-3)


@pytest.mark.parametrize(("resize", "crop"), [(160, 128), (448, 384), (512, 480)])  # the rule's
def test_memory(rows, resize, crop):
  found = rows["memory"]
  assert len(found) == 7 * 3 * 2
  (cells,) = [c for c in found if c[:3] == ["R50x1", str(crop), "bfloat16"]]
  model = resnet_v2.create("R50x1", 1000, "bfloat16", "gpu")
  task = memory.Task(model, resize, crop, (resize, resize))
  need = memory.bound(task)
  expected = [task.state_bytes, *(task.state_bytes + need.of(n) for n in (8, 32, 128, 512))]
  assert [float(c) for c in cells[3:]] == pytest.approx([e / 1e9 for e in expected], rel=5e-3)


def test_time(rows):
  found = rows["time"]
  (cells,) = [c for c in found if c[:2] == ["R50x1", "128"]]
  assert cells[2] == "m 8.9 h / 7 d / 15 d"  # 256,000 images, 5 million, 10 million at 8 a second
  assert all(c.startswith(">= ") for c in cells[3:])
  (other,) = [c for c in found if c[:2] == ["R101x1", "128"]]
  assert other[2].startswith("~ ")


def test_a_card_that_was_measured():
  found = read(KNOWN + ON_CARDS)["time"]
  (cells,) = [c for c in found if c[:2] == ["R50x1", "128"]]
  a100, h100, h200, l4 = cells[3:]
  assert (a100[:3], h100[:3]) == (">= ", ">= ")
  assert (h200, l4) == ("m 50 s / 17 min / 33 min", "m 8.3 min / 2.8 h / 5.6 h")
  (other,) = [c for c in found if c[:2] == ["R101x1", "128"]]
  assert [c.split()[0] for c in other[2:]] == ["~", ">=", ">=", "~", "~"]
  (short,) = [c for c in tables.summary(KNOWN + ON_CARDS) if c.startswith("| R50x1 | 128")]
  assert short.endswith("| m 50 s / 17 min / 33 min |")


def test_cards_are_listed_with_their_data_sheets():
  found = [line.split(":")[0] for line in tables.document(KNOWN + ON_CARDS)["cards"]]
  assert found == ["- A100", "- H100", "- H200"]


@pytest.mark.parametrize(
  ("seconds", "text"),
  [
    (5, "5.0 s"),
    (119, "119 s"),
    (120, "2.0 min"),
    (7_199, "120 min"),
    (7_200, "2.0 h"),
    (172_799, "48 h"),
    (172_800, "2 d"),
    (86_400_000, "1,000 d"),
  ],
)
def test_durations(seconds, text):
  assert tables._duration(seconds) == text


@pytest.mark.parametrize(
  ("number", "text"),
  [(999, "999 FLOP"), (2.67e9, "2.67 GFLOP"), (5.2e19, "52 EFLOP"), (1e22, "1e+04 EFLOP")],
)
def test_operations_have_prefixes(number, text):
  assert tables._flop(number) == text
