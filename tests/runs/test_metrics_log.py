"""Reads metrics.jsonl after damage too, and draws its curves with the right numbers."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib import image as mpl_image

from bit_jax.runs import metrics_log
from bit_jax.runtime import plots
from bit_jax.training import optimizer

ROWS = [
  {"step": 2, "kind": "train", "loss": 0.5, "top1": 0.25, "learning_rate": 0.003},
  {"step": 2, "kind": "eval", "loss": 0.75, "top1": 0.125, "top5": 1},
  {"step": 4, "kind": "val", "loss": 0.5, "top1": 0.5},
]
LINES = [json.dumps(row).encode() for row in ROWS]


def read(folder, content):
  (folder / "metrics.jsonl").write_bytes(content)
  return metrics_log.read(folder / "metrics.jsonl")


def test_whole_files(tmp_path):
  assert metrics_log.read(tmp_path / "none") == ([], 0)
  assert read(tmp_path, b"") == ([], 0)
  whole = b"\n".join(LINES) + b"\n"
  assert read(tmp_path, whole) == (ROWS, 0)
  assert read(tmp_path, whole + b'{"step": 6, "ki') == (ROWS, 0)  # killed as it wrote


@pytest.mark.parametrize(
  "damage",
  [
    b"\0" * 512,
    b"",
    b" ",
    b'{"step": 4, "ki',
    b"\xff\xfe{",
    b"[]",
    b"null",
    b"3",
    b"{}",
    b'{"kind": "eval", "loss": 1, "top1": 1}',
    b'{"step": 4, "loss": 1, "top1": 1}',
    b'{"step": 4, "kind": "eval"}',
    b'{"step": "4", "kind": "eval", "loss": 1, "top1": 1}',
    b'{"step": 4.5, "kind": "eval", "loss": 1, "top1": 1}',
    b'{"step": true, "kind": "eval", "loss": 1, "top1": 1}',
    b'{"step": 4, "kind": 3, "loss": 1, "top1": 1}',
    b'{"step": 4, "kind": "eval", "loss": 1, "top1": null}',
    b'{"step": 4, "kind": "eval", "loss": NaN, "top1": 1}',
    b'{"step": 4, "kind": "eval", "loss": 1e999, "top1": 1}',
    b'{"step": 4, "kind": "eval", "loss": -1e308, "top1": 1}',
    b'{"step": 4, "kind": "eval", "loss": 1, "top1": 1' + b"0" * 400 + b"}",
    b'{"step": ' + b"1" * 5000 + b', "kind": "eval", "loss": 1, "top1": 1}',
    b"[" * 100_000,
  ],
)
def test_damaged_lines_are_counted_and_left_out(tmp_path, damage):
  content = LINES[0] + b"\n" + damage + b"\n" + LINES[1] + b"\n" + LINES[2] + b"\n"
  assert read(tmp_path, content) == (ROWS, 1)


@pytest.mark.parametrize("before", [b"\0" * 4096, b'{"step": 1, "kind": "tr', b"\xff", b"{}"])
def test_a_row_behind_damage_is_kept(tmp_path, before):
  content = LINES[0] + b"\n" + before + LINES[1] + b"\n" + LINES[2] + b"\n"
  assert read(tmp_path, content) == (ROWS, 1)


@settings(max_examples=200)
@given(st.binary())
def test_no_content_raises(tmp_path_factory, content):
  rows, damaged = read(tmp_path_factory.getbasetemp(), content)
  assert (rows, damaged) == ([], content.count(b"\n"))


def write_rows(path, rows):
  path.write_text("".join(json.dumps(r) + "\n" for r in rows))
  return path


CURVE_ROWS = [
  {"step": 1, "kind": "train", "loss": 2.0, "top1": 0.25, "learning_rate": 0.1},
  {"step": 1, "kind": "eval", "loss": 2.5, "top1": 0.125},
  {"step": 2, "kind": "train", "loss": 1.0, "top1": 0.5, "learning_rate": 0.01},
]


def test_curves_hold_the_numbers(tmp_path, saved_figures):
  metrics_log.draw(
    write_rows(tmp_path / "m.jsonl", CURVE_ROWS), tmp_path / "c.png", "a title", "test images"
  )
  loss, accuracy, rate = saved_figures[0].axes
  lines = [line.get_xydata().tolist() for axes in (loss, accuracy, rate) for line in axes.lines]
  assert lines == [
    [[1, 2.0], [2, 1.0]],
    [[1, 2.5]],
    [[1, 25.0], [2, 50.0]],
    [[1, 12.5]],
    [[1, 0.1], [2, 0.01]],
  ]
  assert saved_figures[0].get_suptitle() == "a title"
  assert all(axes.get_xlabel() == "step" and axes.get_ylabel() for axes in saved_figures[0].axes)
  assert mpl_image.imread(tmp_path / "c.png").shape[:2] == (432, 1440)


def test_curves_tell_validation_from_test_images(tmp_path, saved_figures):
  rows = [*CURVE_ROWS, {"step": 2, "kind": "val", "loss": 3.0, "top1": 0.75}]
  metrics_log.draw(write_rows(tmp_path / "m.jsonl", rows), tmp_path / "c.png", "", "test images")
  for axes, val, test in zip(saved_figures[0].axes[:2], (3.0, 75.0), (2.5, 12.5), strict=True):
    lines = {line.get_label(): line.get_xydata().tolist() for line in axes.lines}
    assert lines["validation images"] == [[2, val]]
    assert lines["test images"] == [[1, test]]


def rates_of(saved_figures, tmp_path, values):
  """Returns the axes on which learning rates are drawn, and the numbers beside it."""
  rows = [{**CURVE_ROWS[0], "step": i + 1, "learning_rate": float(v)} for i, v in enumerate(values)]
  metrics_log.draw(write_rows(tmp_path / "m.jsonl", rows), tmp_path / "c.png", "", "test images")
  axes = saved_figures[-1].axes[2]
  low, high = axes.get_ylim()
  shown = [t.get_text() for t in axes.get_yticklabels() if low <= t.get_position()[1] <= high]
  return axes, shown


def test_the_levels_of_the_rule_are_apart(tmp_path, saved_figures):
  rates = optimizer.learning_rates(0.003, 100, (200, 300, 400), 500)
  axes, shown = rates_of(saved_figures, tmp_path, rates)
  assert shown == ["3e-06", "3e-05", "0.0003", "0.003"]
  (line,) = axes.lines
  heights = axes.transData.transform(line.get_xydata()[[150, 250, 350, 450]])[:, 1]
  assert np.all(-np.diff(heights) > 50)  # pixels, of some 300
  assert np.isnan(line.get_ydata()[0])  # 0, of the warm-up, has no place on the axis


@pytest.mark.parametrize(
  ("rates", "scale", "shown"),
  [
    ([0.003] * 3, "log", ["0.003"]),
    ([0.02], "log", ["0.02"]),
    ([0, 0.003, 0.003, 0.0003], "log", ["0.0003", "0.003"]),
    ([*range(1, 10), 10, 10, 1e-2], "log", ["0.01", "10"]),
    ([0.1, 0.2, 0.3, 0.4], "log", ["0.1", "0.2", "0.3", "0.4"]),
    ([1.5, 1.5, 0.75, 0.75], "log", ["0.75", "1.5"]),
    ([1, 10, 100], "log", ["1", "10", "100"]),
    (np.linspace(0.01, 1, 100), "log", ["0.01", "0.03", "0.1", "0.3", "1"]),
    ([0, 0], "linear", None),
    ([], "linear", None),
  ],
)
def test_learning_rates_have_plain_numbers(tmp_path, saved_figures, rates, scale, shown):
  axes, numbers = rates_of(saved_figures, tmp_path, rates)
  assert axes.get_yscale() == scale
  assert shown in (None, numbers)


def test_a_single_point_is_visible(tmp_path):
  blue = [round(int(plots.BLUE[i : i + 2], 16) / 255, 2) for i in (1, 3, 5)]
  for n in (0, 1):
    rows = [*[CURVE_ROWS[0]][:n], CURVE_ROWS[1]]
    metrics_log.draw(
      write_rows(tmp_path / "m.jsonl", rows), tmp_path / f"{n}.png", "", "test images"
    )
  counts = [
    np.sum(np.all(np.abs(mpl_image.imread(tmp_path / f"{n}.png")[..., :3] - blue) < 0.02, axis=2))
    for n in (0, 1)
  ]
  assert counts[1] > counts[0] + 20
