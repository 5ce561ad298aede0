"""Names of classes in a folder, and those of the network."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bit_jax.inference import class_matching
from bit_jax.runtime import errors

CLASSES = ("Cat", "golden_retriever", "café", "o", "O", "ice cream")


def match(*names, classes=CLASSES, other_names=None):
  return class_matching.match(names, classes, "photos", other_names)


@pytest.mark.parametrize(
  ("name", "label"),
  [
    *((name, label) for label, name in enumerate(CLASSES)),
    ("cat", 0),
    ("CAT", 0),
    ("Golden Retriever", 1),
    ("golden  retriever", 1),
    ("cafe\u0301", 2),
    ("Ice_Cream", 5),
  ],
)
def test_a_name_may_be_spelt_in_another_way(name, label):
  labels = match(name)
  assert labels.tolist() == [label]
  assert labels.dtype == np.int32


@given(st.lists(st.sampled_from(CLASSES), unique=True))
def test_the_same_names_in_any_order_mean_their_classes(names):
  assert [CLASSES[label] for label in match(*names)] == names


def test_classes_may_go_by_other_names():
  assert match("n01", "Cat", other_names={"n01": 3}).tolist() == [3, 0]


def test_unknown_names_are_listed_with_close_ones():
  with pytest.raises(errors.UserError) as error:
    match("Cat", "golden-retriver", "zebra")
  lines = str(error.value).splitlines()
  assert lines == [
    "2 classes in photos are not classes of the network:",
    "  golden-retriver (close: golden_retriever)",
    "  zebra",
    "Its 6 classes are Cat, golden_retriever, café, o, O and 1 more. Rename the unknown ones, or "
    "leave their images out.",
  ]
  with pytest.raises(errors.UserError, match=r"^1 class in photos is not a class of the network:"):
    match("zebra")


def test_of_many_unknown_names_the_first_are_listed():
  with pytest.raises(errors.UserError) as error:
    match(*(f"n{i}" for i in range(500)))
  lines = str(error.value).splitlines()
  assert lines[20:22] == ["  n19", "  and 480 more"]
  assert len(lines) == 23


def test_a_spelling_of_several_classes_is_an_error():
  with pytest.raises(errors.UserError, match=r"'a b' in photos may be any of .* A B, A_b, which"):
    match("a b", classes=("A B", "A_b"))
  assert match("A_b", classes=("A B", "A_b")).tolist() == [1]


def test_two_spellings_of_a_class_are_an_error():
  with pytest.raises(errors.UserError, match="'Cat' and 'cat' in photos are the same class"):
    match("Cat", "cat")
