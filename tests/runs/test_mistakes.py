"""The table and the picture of the most confident mistakes."""

import csv

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib import image as mpl_image

from bit_jax.data import pipeline
from bit_jax.data.sources import arrays
from bit_jax.runs import mistakes

NAMES = ("cat", 'd"o,g', "é")
LABELS = np.array([0, 1, 2, 0, 1], np.int32)
PREDICTIONS = np.array([0, 2, 1, 1, 1], np.int32)
CONFIDENCE = np.array([0.99, 0.5, 0.875, 0.5, 0.6], np.float32)
EXPECTED = [
  ["image", "label", "predicted", "confidence"],
  ["2", "é", 'd"o,g', "0.8750"],
  ["1", 'd"o,g', "é", "0.5000"],
  ["3", "cat", 'd"o,g', "0.5000"],
]


def part(count=5):
  """Returns images of one grey level each, which is ten times their index."""
  images = np.full((count, 6, 6, 3), 10 * np.arange(count)[:, None, None, None], np.uint8)
  labels = np.resize(LABELS, count)
  examples = arrays.Examples(images, labels, NAMES)
  return pipeline.Part(examples, None, NAMES, examples, labels)


def quiet(text):
  pytest.fail(text)


def rows(folder):
  with (folder / "mistakes.csv").open(newline="", encoding="utf-8") as file:
    return list(csv.reader(file))


def write(folder, paths=None, say=quiet, predictions=PREDICTIONS):
  mistakes.write(folder, NAMES, LABELS, predictions, CONFIDENCE, paths, say)


def draw(folder, say=quiet, predictions=PREDICTIONS):
  mistakes.draw(folder, part(), LABELS, predictions, CONFIDENCE, "A run: top-1 40%", say)


@given(
  st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2), st.sampled_from([0.25, 0.5, 0.75, 1])))
)
def test_all_and_only_mistakes_by_falling_confidence(rows):
  labels, predictions, confidence = np.array(rows, np.float32).reshape(-1, 3).T
  expected = [
    i for i in sorted(range(len(rows)), key=lambda i: (-rows[i][2], i)) if rows[i][0] != rows[i][1]
  ]
  assert mistakes.most_confident(labels, predictions, confidence).tolist() == expected


def test_the_table_names_images_by_their_number(tmp_path):
  write(tmp_path)
  assert rows(tmp_path) == EXPECTED


def test_the_table_names_images_by_their_path(tmp_path):
  write(tmp_path, ["a.jpg", "b,\n.jpg", "c\udce9.jpg", "d.jpg", "e.jpg"])
  raw = (tmp_path / "mistakes.csv").read_bytes()
  assert b"c\xe9.jpg,\xc3\xa9," in raw  # a name that isn't UTF-8 stays as it is
  assert b'"b,\n.jpg"' in raw


def test_the_picture_shows_mistakes_with_confidence_prediction_and_label(tmp_path, saved_figures):
  draw(tmp_path)
  (figure,) = saved_figures
  shown = [axes for axes in figure.axes if axes.images]
  assert [axes.get_title() for axes in shown] == [
    '88% d"o,g\nlabel é',
    '50% é\nlabel d"o,g',
    '50% d"o,g\nlabel cat',
  ]
  assert [axes.images[0].get_array()[0, 0, 0] for axes in shown] == [20, 10, 30]
  title = " ".join(figure.get_suptitle().split())
  assert "A run: top-1 40% All 3 mistakes in 5 images" in title
  assert "many of them are wrong" in title
  assert mpl_image.imread(tmp_path / "mistakes.png").ndim == 3


def test_of_many_mistakes_the_picture_shows_the_first(tmp_path, saved_figures):
  labels, predictions = np.zeros(5000, np.int32), np.ones(5000, np.int32)
  confidence = np.linspace(0.5, 1, 5000, dtype=np.float32)
  mistakes.draw(tmp_path, part(5000), labels, predictions, confidence, "A run", quiet)
  assert sum(bool(axes.images) for axes in saved_figures[0].axes) == 24
  title = " ".join(saved_figures[0].get_suptitle().split())
  assert "The 24 most confident of 5,000 mistakes in 5,000 images" in title


def test_without_mistakes_no_picture_is_left(tmp_path):
  write(tmp_path)
  draw(tmp_path)
  write(tmp_path, predictions=LABELS)
  draw(tmp_path, predictions=LABELS)
  assert rows(tmp_path) == EXPECTED[:1]
  assert [p.name for p in tmp_path.iterdir()] == ["mistakes.csv"]


def test_what_cannot_be_written_costs_a_warning(tmp_path):
  said = []
  write(tmp_path / "missing", say=said.append)
  draw(tmp_path / "missing", say=said.append)
  assert [s.partition(" (")[0] for s in said] == [
    "warning: mistakes.csv was not written",
    "warning: mistakes.png was not written",
  ]
