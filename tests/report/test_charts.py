"""Line charts: every point lies where its axis says, and every tick is a round number."""

import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bit_jax.report import charts

VALUES = st.floats(-1e12, 1e12).filter(lambda v: v == 0 or abs(v) > 1e-12)


def places(svg, kind):
  """Returns [(x, y)] of the corners of a line."""
  (path,) = re.findall(rf'<path class="line {kind}" d="([^"]*)"', svg)
  return np.array([[float(v) for v in p.split()] for p in re.split("[ML]", path)[1:]])


def ticks(svg):
  """Returns [(y, text)] of the ticks of the vertical axis."""
  root = ET.fromstring(svg)
  return [(float(t.get("y")) - 4, t.text) for t in root.iter("text") if t.get("class") == "end"]


def test_points_lie_where_the_ticks_say():
  points = [(0, 1.0), (10, 2.0), (40, 4.0)]
  svg = charts.draw("Loss", [charts.Line("a", "train", points)], unit="%")
  found, marked = places(svg, "train"), ticks(svg)
  (high, low) = (next(y for y, t in marked if t == text) for text in ("4%", "1%"))
  assert found[0][1] == pytest.approx(low, abs=0.1)
  assert found[2][1] == pytest.approx(high, abs=0.1)
  assert found[1][1] == pytest.approx(low + (high - low) / 3, abs=0.1)
  np.testing.assert_allclose(np.diff(found[:, 0])[1] / np.diff(found[:, 0])[0], 3, rtol=1e-3)


def test_a_logarithmic_axis_leaves_out_what_is_not_positive():
  points = [(0, 0.0), (10, 1e-5), (20, 1e-4), (30, 1e-3)]
  svg = charts.draw("Rate", [charts.Line("a", "train", points)], logarithmic=True)
  steps = np.diff(places(svg, "train")[:, 1])
  assert len(steps) == 2
  assert steps[0] == pytest.approx(steps[1], abs=0.2)
  assert {"1e-5", "1e-4", "0.001"} <= {text for _, text in ticks(svg)}
  assert charts.draw("Rate", [charts.Line("a", "train", points[:1])], logarithmic=True) == ""


@given(st.lists(st.tuples(st.integers(0, 10**7), VALUES), min_size=1, max_size=20), st.booleans())
def test_any_line_is_drawn_within_the_picture(points, logarithmic):
  lines = [charts.Line('<"&', style, sorted(points)) for style in ("train", "val", "test")]
  svg = charts.draw("<&", lines, unit="%", logarithmic=logarithmic)
  if not svg:
    assert logarithmic
    assert all(y <= 0 for _, y in points)
    return
  root = ET.fromstring(svg)  # well formed
  for tag, names in (("text", "xy"), ("circle", ("cx", "cy")), ("rect", "xy")):
    for element in root.iter(tag):
      x, y = (float(element.get(n)) for n in names)
      assert -4 <= x <= 360
      assert -4 <= y <= 220
  assert 2 <= len(ticks(svg)) <= 14


@given(st.integers(1, 5000), st.integers(2, 500))
def test_thinned_lines_keep_their_mean_and_end(count, most):
  points = [(i, float(i % 7)) for i in range(count)]
  found = charts.thinned(points, most)
  assert len(found) <= most
  assert found[-1] == points[-1]
  assert [x for x, _ in found] == sorted({x for x, _ in found})
  if count > most:
    width = -(-(count - 1) // (most - 1))
    assert found[0] == (width - 1, pytest.approx(np.mean([y for _, y in points[:width]])))
  else:
    assert found == points


@pytest.mark.parametrize(
  ("value", "text"),
  [(0, "0"), (0.125, "0.125"), (12345.6, "12,346"), (3e-5, "3e-5"), (0.001, "0.001"), (-2, "-2")],
)
def test_numbers(value, text):
  assert charts.format_number(value) == text


@pytest.mark.parametrize("logarithmic", [False, True])
@pytest.mark.parametrize("values", [(5e-324, 1e-323), (1e-99, 9e99), (1.0, 1.0 + 2.3e-16)])
def test_numbers_at_the_ends_of_floats_are_drawn(values, logarithmic):
  line = charts.Line("a", "train", list(enumerate(values)))
  svg = charts.draw("Loss", [line], logarithmic=logarithmic)
  if logarithmic and values[1] < 1e-100:
    assert svg == ""
  else:
    assert np.isfinite(places(svg, "train")).all()
