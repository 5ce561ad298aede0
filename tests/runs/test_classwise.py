"""Accuracy of each class and confusions, against counts made by hand."""

import csv

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib import image as mpl_image

from bit_jax.runs import classwise

LABELS = np.array([0, 0, 0, 1, 1, 3], np.int32)
PREDICTIONS = np.array([0, 0, 1, 1, 3, 0], np.int32)
MATRIX = [[2, 1, 0, 0], [0, 1, 0, 1], [0, 0, 0, 0], [1, 0, 0, 0]]


def read(path):
  with path.open(newline="", encoding="utf-8") as file:
    return list(csv.reader(file))


def test_rows_are_classes_and_columns_what_they_were_taken_for():
  matrix = classwise.confusion(LABELS, PREDICTIONS, 4)
  assert matrix.tolist() == MATRIX
  assert matrix.dtype == np.int64


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4))))
def test_every_example_is_counted_once(pairs):
  expected = np.zeros((5, 5), int)
  for label, prediction in pairs:
    expected[label, prediction] += 1
  labels, predictions = np.array(pairs, np.int32).reshape(-1, 2).T
  assert classwise.confusion(labels, predictions, 5).tolist() == expected.tolist()


@pytest.mark.parametrize(
  ("counts", "said"),
  [
    ((1200, 1200), "Every class has 1,200 training images."),
    ((1, 1), "Every class has 1 training image."),
    ((2, 5), "Classes have 2 (a) to 5 (b) training images."),
    (
      (1500, 500),
      "Classes have 500 (b) to 1,500 (a) training images: they are imbalanced, so look at the "
      "accuracy of each in per_class.csv.",
    ),
    (
      (4, 0),
      "Classes have 0 (b) to 4 (a) training images: they are imbalanced, so look at the "
      "accuracy of each in per_class.csv.",
    ),
  ],
)
def test_balance(counts, said):
  labels = np.repeat(np.arange(2, dtype=np.int32), counts)
  assert classwise.balance(labels, ("a", "b")) == said


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4))), st.integers(1, 30))
def test_the_largest_confusions_are_those_of_the_matrix(pairs, most):
  labels, predictions = np.array(pairs, np.int32).reshape(-1, 2).T
  matrix = classwise.confusion(labels, predictions, 5)
  expected = [
    (i, j, matrix[i, j]) for i in range(5) for j in range(5) if i != j and matrix[i, j] > 0
  ]
  expected.sort(key=lambda entry: -entry[2])
  found = classwise.largest_confusions(labels, predictions, most)
  assert found.dtype == np.int64
  assert [tuple(row) for row in found.tolist()] == expected[:most]


def quiet(text):
  pytest.fail(text)


def test_files(tmp_path):
  names = ("a", 'b, "B"', "c", "d é")
  training = np.array([0, 1, 1, 3, 3, 3], np.int32)
  classwise.write(tmp_path, names, LABELS, PREDICTIONS, training, quiet)
  classwise.draw(tmp_path, names, LABELS, PREDICTIONS, "")
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
  assert not classwise.has_list(tmp_path)


def test_labels_that_were_not_read_leave_their_column_empty(tmp_path):
  classwise.write(tmp_path, tuple("abcd"), LABELS, PREDICTIONS, None, quiet)
  assert [r[1] for r in read(tmp_path / "per_class.csv")[1:]] == [""] * 4


def test_of_many_classes_the_largest_confusions_are_listed(tmp_path, monkeypatch):
  """A matrix of ImageNet-21k's would take 4 GB."""
  monkeypatch.setattr(classwise, "confusion", lambda *_: pytest.fail("a matrix was made"))
  names = tuple(f"class {i}" for i in range(21_843))
  labels = np.arange(40_000, dtype=np.int32) % 21_843  # two images of the first 18,157 classes
  predictions = labels.copy()
  predictions[5_000:8_000] = 21_842
  predictions[21_843 + 7_000] = 21_842
  told = []
  classwise.write(tmp_path, names, labels, predictions, labels[:7], told.append)
  classwise.draw(tmp_path, names, labels, predictions, "")
  assert told == [
    "With more than 1,000 classes confusion.csv lists the 1,000 most frequent confusions, and "
    "confusion.png is not drawn."
  ]
  assert {p.name for p in tmp_path.iterdir()} == {"per_class.csv", "confusion.csv"}
  assert classwise.has_list(tmp_path)
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
  classwise.write(tmp_path, tuple("abcd"), LABELS, PREDICTIONS, None, told.append)
  assert told == ["warning: per_class.csv was not written (IsADirectoryError: Is a directory)."]
  assert len(read(tmp_path / "confusion.csv")) == 5
