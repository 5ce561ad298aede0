"""Tests of experiments.benchmarks.load, scaling and startup."""

import subprocess

import pytest

from bit_jax.data.sources import arrays
from bit_jax.models import architectures
from experiments.benchmarks import (
  inputs,
  load,
  scaling,
  startup,
  workers,
)


def test_loading_side_by_side(tmp_path):
  architecture = architectures.find("R14x0.5")
  time, hashing, memory = load.compare(architecture, 2, tmp_path)
  size = 4 * architectures.num_parameters(architecture, 21843)
  assert time.configuration == f"R14x0.5, {size / 1e9:.2f} GB"
  assert (time.peer, time.quantity, time.unit) == ("numpy.load", "time", "s")
  assert time.ratio > 0
  assert hashing.theirs == time.theirs
  assert list((tmp_path / "sha256").iterdir())  # not among the user's own
  for figure in (memory.ours, memory.theirs):
    assert 0.9 * size < 1e9 * figure < 3 * size
  assert memory.more["of its size"] == pytest.approx(1e9 * memory.ours / size)


def test_a_straight_line_and_the_distance_from_it(monkeypatch):
  costs = {"1": 1.0, "2": 2.6, "3": 3.0}  # the line is 0.2 + x: 1.2, 2.2, 3.2
  figures = {name: workers.Figures((8 / cost,), 0) for name, cost in costs.items()}
  monkeypatch.setattr(workers, "measure", lambda specs, rounds: figures)
  axis = scaling.AXES[2]._replace(values=(1, 2, 3), spec={**scaling.AXES[2].spec, "examples": 8})
  *points, straightness = scaling.compare(axis, "R14x0.5", rounds=1, seconds=0)
  assert [p.ours for p in points] == pytest.approx([1.0, 2.6, 3.0])
  assert [p.theirs for p in points] == pytest.approx([1.2, 2.2, 3.2])
  assert straightness.ours == pytest.approx(100 * 0.4 / 2.2)
  assert straightness.more == {"cost of none": "200 ms", "of one more": "1 s"}


@pytest.mark.slow
@pytest.mark.parametrize(("index", "values"), [(2, (1, 2)), (3, (2, 4))])
def test_costs_along_an_axis(index, values):
  axis = scaling.AXES[index]
  spec = {**axis.spec, "batch": 2, "size": 16}
  axis = axis._replace(values=values, spec=spec)
  *points, straightness = scaling.compare(axis, "R14x0.5", rounds=1, seconds=0)
  assert [p.peer for p in points] == ["the straight line"] * 2
  assert all(p.ours > 0 and p.ratio == pytest.approx(1) for p in points)  # two points make a line
  assert straightness.ours == pytest.approx(0, abs=1e-6)


def test_a_set_for_the_first_steps(tmp_path):
  startup.write_images(tmp_path / "images.npz")
  path = str(tmp_path / "images.npz")
  contents = arrays.describe_npz(path)
  train, test = (arrays.read_npz(path, contents, part) for part in ("train", "test"))
  assert train.images.shape == (64, 128, 128, 3)
  assert (len(test), len(train.class_names)) == (16, inputs.NUM_CLASSES)


def test_lines_of_steps():
  lines = [
    "step 1/4  loss 2.30  top-1 10.0%  (compiled)",
    "step 4: evaluated 16 images",
    "step 1/40",
  ]
  assert [bool(startup.STEP_LINE.match(line)) for line in lines] == [True, False, False]


def test_imports_are_timed_by_module():
  assert set(startup.import_seconds(("json", "csv"), 1)) == {"json", "csv"}
  with pytest.raises(subprocess.CalledProcessError):
    startup.import_seconds(("no_such_module",), 1)
