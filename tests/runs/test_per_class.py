"""Accuracy of each class and confusions, against counts made by hand."""

import csv

import matplotlib as mpl
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib import image as mpl_image

from bit_jax.runs import per_class

LABELS = np.array([0, 0, 0, 1, 1, 3], np.int32)
PREDICTIONS = np.array([0, 0, 1, 1, 3, 0], np.int32)
MATRIX = [[2, 1, 0, 0], [0, 1, 0, 1], [0, 0, 0, 0], [1, 0, 0, 0]]


def read(path):
  with path.open(newline="", encoding="utf-8") as file:
    return list(csv.reader(file))


def test_rows_are_classes_and_columns_what_they_were_taken_for():
  matrix = per_class.confusion(LABELS, PREDICTIONS, 4)
  assert matrix.tolist() == MATRIX
  assert matrix.dtype == np.int64


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4))))
def test_every_example_is_counted_once(pairs):
  expected = np.zeros((5, 5), int)
  for label, prediction in pairs:
    expected[label, prediction] += 1
  labels, predictions = np.array(pairs, np.int32).reshape(-1, 2).T
  assert per_class.confusion(labels, predictions, 5).tolist() == expected.tolist()
  totals, hits = per_class.totals_and_hits(labels, predictions, 5).tolist()
  assert totals == expected.sum(axis=1).tolist()
  assert hits == expected.diagonal().tolist()


@pytest.mark.parametrize(
  ("counts", "said"),
  [
    ((1200, 1200), "Every class has 1,200 training images."),
    ((1, 1), "Every class has 1 training image."),
    ((2, 5), "Classes have 2 (a) to 5 (b) training images."),
    (
      (1500, 500),
      "Classes have 500 (b) to 1,500 (a) training images. They are imbalanced: see the accuracy of "
      "each class in per_class.csv.",
    ),
    (
      (4, 0),
      "Classes have 0 (b) to 4 (a) training images. They are imbalanced: see the accuracy of each "
      "class in per_class.csv.",
    ),
  ],
)
def test_balance(counts, said):
  labels = np.repeat(np.arange(2, dtype=np.int32), counts)
  assert per_class.balance(labels, ("a", "b")) == said


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4))), st.integers(1, 30))
def test_the_largest_confusions_are_those_of_the_matrix(pairs, most):
  labels, predictions = np.array(pairs, np.int32).reshape(-1, 2).T
  matrix = per_class.confusion(labels, predictions, 5)
  expected = [
    (i, j, matrix[i, j]) for i in range(5) for j in range(5) if i != j and matrix[i, j] > 0
  ]
  expected.sort(key=lambda entry: -entry[2])
  found = per_class.largest_confusions(labels, predictions, most)
  assert found.dtype == np.int64
  assert [tuple(row) for row in found.tolist()] == expected[:most]


@pytest.mark.parametrize(
  ("labels", "predictions", "balanced_accuracy", "macro_f1"),
  [
    (LABELS, PREDICTIONS, (2 / 3 + 1 / 2 + 0) / 3, (2 / 3 + 1 / 2 + 0) / 3),
    ([0, 0, 1], [0, 0, 1], 1.0, 1.0),
    ([7, 7, 7, 7], [7, 7, 7, 7], 1.0, 1.0),
    ([0, 0, 0, 0, 1], [0, 0, 0, 0, 0], 1 / 2, (8 / 9 + 0) / 2),  # always the largest class
    # Class 2 has no images: it has no recall, but it was predicted, wrongly.
    ([0, 0, 0, 0, 1], [0, 0, 0, 1, 2], (3 / 4 + 0) / 2, (6 / 7 + 0 + 0) / 3),
    ([0, 1], [1, 0], 0.0, 0.0),
  ],
)
def test_means_count_every_class_equally(labels, predictions, balanced_accuracy, macro_f1):
  means = per_class.means(np.array(labels, np.int32), np.array(predictions, np.int32))
  assert means == {
    "balanced_accuracy": pytest.approx(balanced_accuracy, abs=1e-12),
    "macro_f1": pytest.approx(macro_f1, abs=1e-12),
  }
  assert all(type(value) is float for value in means.values())  # as JSON holds them


def test_means_of_many_classes_need_no_matrix():
  """A matrix of ImageNet-21k's would take 4 GB."""
  labels = np.arange(30_000, dtype=np.int32) % 21_843
  predictions = np.where(labels == 5, 6, labels).astype(np.int32)
  means = per_class.means(labels, predictions)
  assert means["balanced_accuracy"] == pytest.approx(21_842 / 21_843, abs=1e-9)
  assert means["macro_f1"] == pytest.approx((21_841 + 2 / 3) / 21_843, abs=1e-9)


def quiet(text):
  pytest.fail(text)


def test_files(tmp_path):
  names = ("a", 'b, "B"', "c", "d é")
  training = np.array([0, 1, 1, 3, 3, 3], np.int32)
  per_class.write(tmp_path, names, LABELS, PREDICTIONS, training, quiet)
  per_class.draw(tmp_path, names, LABELS, PREDICTIONS, "")
  assert read(tmp_path / "per_class.csv") == [
    ["class", "training_images", "evaluated_images", "top1"],
    ["a", "1", "3", "0.6667"],
    ['b, "B"', "2", "2", "0.5000"],
    ["c", "0", "0", ""],  # without images there is no accuracy
    ["d é", "3", "1", "0.0000"],
  ]
  header, *rows = read(tmp_path / "confusion.csv")
  assert header == ["class \\ predicted", *names]
  assert rows == [[n, *map(str, r)] for n, r in zip(names, MATRIX, strict=True)]
  assert np.ptp(mpl_image.imread(tmp_path / "confusion.png")[..., :3]) > 0.9


def test_labels_that_were_not_read_leave_their_column_empty(tmp_path):
  per_class.write(tmp_path, tuple("abcd"), LABELS, PREDICTIONS, None, quiet)
  assert [r[1] for r in read(tmp_path / "per_class.csv")[1:]] == [""] * 4


def test_of_many_classes_the_largest_confusions_are_listed(tmp_path, monkeypatch):
  """A matrix of ImageNet-21k's would take 4 GB."""
  monkeypatch.setattr(per_class, "confusion", lambda *_: pytest.fail("a matrix was made"))
  names = tuple(f"class {i}" for i in range(21_843))
  labels = np.arange(40_000, dtype=np.int32) % 21_843  # two images of the first 18,157 classes
  predictions = labels.copy()
  predictions[5_000:8_000] = 21_842
  predictions[21_843 + 7_000] = 21_842
  told = []
  per_class.write(tmp_path, names, labels, predictions, labels[:7], told.append)
  per_class.draw(tmp_path, names, labels, predictions, "")
  (line,) = told
  assert "1,000 classes" in line
  assert "confusion.csv" in line
  assert {p.name for p in tmp_path.iterdir()} == {"per_class.csv", "confusion.csv"}
  header, *rows = read(tmp_path / "confusion.csv")
  assert header == ["class", "predicted", "count", "share"]
  assert len(rows) == 1_000
  assert rows[0] == ["class 7000", "class 21842", "2", "1.0000"]
  assert rows[1] == ["class 5000", "class 21842", "1", "0.5000"]
  classes = read(tmp_path / "per_class.csv")
  assert len(classes) == 21_844
  assert classes[1] == ["class 0", "1", "2", "1.0000"]
  assert classes[7_001] == ["class 7000", "0", "2", "0.0000"]


def test_a_table_that_cannot_be_written_costs_a_warning(tmp_path):
  (tmp_path / "per_class.csv").mkdir()
  told = []
  per_class.write(tmp_path, tuple("abcd"), LABELS, PREDICTIONS, None, told.append)
  assert told == ["warning: per_class.csv was not written (IsADirectoryError: Is a directory)."]
  assert len(read(tmp_path / "confusion.csv")) == 5


def test_a_confusion_matrix_shows_shares_in_percent(tmp_path, saved_figures):
  labels, predictions = np.array([0, 0, 0, 0, 1]), np.array([0, 0, 0, 1, 1])
  per_class.draw(tmp_path, ["b$_1", "cat"], labels, predictions, "run: top-1 80%")
  axes, colours = saved_figures[0].axes
  np.testing.assert_array_equal(axes.images[0].get_array(), [[75, 25], [0, 100]])
  assert axes.images[0].get_clim() == (0, 100)
  for labels in (axes.get_xticklabels(), axes.get_yticklabels()):
    assert [t.get_text() for t in labels] == ["b$_1", "cat"]
  assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted class", "class")
  assert colours.get_ylabel() == "% of the images of a class"
  written = {t.get_position(): (t.get_text(), t.get_color()) for t in axes.texts}
  assert written == {(0, 0): ("75", "black"), (1, 0): ("25", "white"), (1, 1): ("100", "black")}
  assert saved_figures[0].get_suptitle() == "run: top-1 80%"
  pixels = mpl_image.imread(tmp_path / "confusion.png")[..., :3]
  for value in (0, 25, 75, 100):  # each cell is there in its colour
    colour = np.array(mpl.colormaps["cividis"](value / 100)[:3])
    assert np.all(np.abs(pixels - colour) < 0.01, axis=2).sum() > 1_000


@pytest.mark.parametrize(("count", "width"), [(2, 200), (40, 30), (41, 200), (1_000, 5)])
def test_a_confusion_matrix_has_room_whatever_the_names(tmp_path, saved_figures, count, width):
  names = [f"{i:>04} ".ljust(width, "x") for i in range(count)]
  per_class.draw(tmp_path, names, np.arange(count), np.arange(count), "")
  axes = saved_figures[0].axes[0]
  assert axes.get_window_extent().width > 100
  ticks = [t.get_text() for t in axes.get_yticklabels()]
  if count <= 40:
    assert len(ticks) == count
    assert all(t.endswith("…") and n.startswith(t[:-1]) for t, n in zip(ticks, names, strict=True))
  else:
    assert not any("x" in t for t in ticks)
