"""Accuracy of each class and confusions, against counts made by hand."""

import csv

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib import image as mpl_image

from bit_jax import classwise

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


def test_files(tmp_path):
  names = ("a", 'b, "B"', "c", "d é")
  training = np.array([0, 1, 1, 3, 3, 3], np.int32)
  classwise.write(tmp_path, names, LABELS, PREDICTIONS, training)
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
  classwise.write(tmp_path, tuple("abcd"), LABELS, PREDICTIONS, None)
  assert [r[1] for r in read(tmp_path / "per_class.csv")[1:]] == [""] * 4
