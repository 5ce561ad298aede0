"""Pictures: that they are PNG files which show what they should, as far as pixels can tell."""

import json

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib import image as mpl_image
from matplotlib.text import Text

from bit_jax.runs import pictures
from bit_jax.runtime import plots
from bit_jax.training import optimizer


def write_rows(path, rows):
  path.write_text("".join(json.dumps(r) + "\n" for r in rows))
  return path


ROWS = [
  {"step": 1, "kind": "train", "loss": 2.0, "top1": 0.25, "learning_rate": 0.1},
  {"step": 1, "kind": "eval", "loss": 2.5, "top1": 0.125},
  {"step": 2, "kind": "train", "loss": 1.0, "top1": 0.5, "learning_rate": 0.01},
]


def test_curves_hold_the_numbers(tmp_path, saved_figures):
  pictures.curves(
    write_rows(tmp_path / "m.jsonl", ROWS), tmp_path / "c.png", "a title", "test images"
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
  rows = [*ROWS, {"step": 2, "kind": "val", "loss": 3.0, "top1": 0.75}]
  pictures.curves(write_rows(tmp_path / "m.jsonl", rows), tmp_path / "c.png", "", "test images")
  for axes, val, test in zip(saved_figures[0].axes[:2], (3.0, 75.0), (2.5, 12.5), strict=True):
    lines = {line.get_label(): line.get_xydata().tolist() for line in axes.lines}
    assert lines["validation images"] == [[2, val]]
    assert lines["test images"] == [[1, test]]


def rates_of(saved_figures, tmp_path, values):
  """Returns the axes on which learning rates are drawn, and the numbers beside it."""
  rows = [{**ROWS[0], "step": i + 1, "learning_rate": float(v)} for i, v in enumerate(values)]
  pictures.curves(write_rows(tmp_path / "m.jsonl", rows), tmp_path / "c.png", "", "test images")
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


NAMES = [
  "price_$5_to_$9",
  "$$",
  "_x",
  "猫",
  "\ud83d",
  "a\nb",
  "%d {x} \\frac{",
  "x" * 90,
  "",
  "\x00",
]


def test_every_picture_takes_any_name(tmp_path, saved_figures):
  shown = ["price_$5_to_$9", "$$", "_x", "猫", r"\ud83d", "a b", r"%d {x} \frac{"]
  pictures.confusion(np.eye(10), NAMES, tmp_path / "1.png", "")
  names = [t.get_text() for t in saved_figures[0].axes[0].get_xticklabels()]
  assert names == [*shown, "x" * 23 + "…", "", r"\x00"]
  title = " ".join(NAMES)
  plots.sheet(np.zeros((10, 8, 8, 3), np.uint8), NAMES, tmp_path / "2.png", title)
  pictures.curves(write_rows(tmp_path / "m.jsonl", ROWS), tmp_path / "3.png", title, "test images")
  captions = [axes.get_title() for axes in saved_figures[1].axes[:10]]
  assert captions == [*shown, "x" * 18 + "\n" + "…", "", r"\x00"]
  assert not any(t.get_parse_math() for f in saved_figures for t in f.findobj(Text))


def test_a_single_point_is_visible(tmp_path):
  blue = [round(int(plots.BLUE[i : i + 2], 16) / 255, 2) for i in (1, 3, 5)]
  for n in (0, 1):
    rows = [*[ROWS[0]][:n], ROWS[1]]
    pictures.curves(
      write_rows(tmp_path / "m.jsonl", rows), tmp_path / f"{n}.png", "", "test images"
    )
  counts = [
    np.sum(np.all(np.abs(mpl_image.imread(tmp_path / f"{n}.png")[..., :3] - blue) < 0.02, axis=2))
    for n in (0, 1)
  ]
  assert counts[1] > counts[0] + 20


def test_a_confusion_matrix_shows_shares_in_percent(tmp_path, saved_figures):
  shares = np.array([[0.75, 0.25], [0.0, 1.0]])
  pictures.confusion(shares, ["b$_1", "cat"], tmp_path / "c.png", "run: top-1 75%")
  axes, colours = saved_figures[0].axes
  np.testing.assert_array_equal(axes.images[0].get_array(), 100 * shares)
  assert axes.images[0].get_clim() == (0, 100)
  for labels in (axes.get_xticklabels(), axes.get_yticklabels()):
    assert [t.get_text() for t in labels] == ["b$_1", "cat"]
  assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted class", "class")
  assert colours.get_ylabel() == "% of the images of a class"
  written = {t.get_position(): (t.get_text(), t.get_color()) for t in axes.texts}
  assert written == {(0, 0): ("75", "black"), (1, 0): ("25", "white"), (1, 1): ("100", "black")}
  assert saved_figures[0].get_suptitle() == "run: top-1 75%"
  pixels = mpl_image.imread(tmp_path / "c.png")[..., :3]
  for value in (0, 25, 75, 100):  # each cell is there in its colour
    colour = np.array(mpl.colormaps["cividis"](value / 100)[:3])
    assert np.all(np.abs(pixels - colour) < 0.01, axis=2).sum() > 1_000


@pytest.mark.parametrize(("count", "width"), [(2, 200), (40, 30), (41, 200), (1_000, 5)])
def test_a_confusion_matrix_has_room_whatever_the_names(tmp_path, saved_figures, count, width):
  names = [f"{i:>04} ".ljust(width, "x") for i in range(count)]
  pictures.confusion(np.eye(count), names, tmp_path / "c.png", "")
  axes = saved_figures[0].axes[0]
  assert axes.get_window_extent().width > 100
  ticks = [t.get_text() for t in axes.get_yticklabels()]
  if count <= 40:
    assert len(ticks) == count
    assert all(t.endswith("…") and n.startswith(t[:-1]) for t, n in zip(ticks, names, strict=True))
  else:
    assert not any("x" in t for t in ticks)
