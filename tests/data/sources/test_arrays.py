"""Tests of bit_jax.data.sources.arrays."""

import pathlib
import zipfile

import numpy as np
import pytest
from sklearn import datasets as sklearn_datasets

from bit_jax.data.sources import arrays
from bit_jax.runtime import errors

VAL = {"val_images": np.ones((2, 4, 5), np.uint8), "val_labels": np.array([[1], [2]])}


def contents(**changes):
  rng = np.random.default_rng(0)
  good = {
    "train_images": rng.integers(0, 256, (6, 4, 5, 3), dtype=np.uint8),
    "train_labels": np.array([0, 1, 2, 0, 1, 2]),
    "test_images": rng.integers(0, 256, (3, 4, 5, 3), dtype=np.uint8),
    "test_labels": np.array([2, 1, 0], np.uint8),
  }
  return {k: v for k, v in {**good, **changes}.items() if v is not None}


def load(path):
  contents = arrays.describe_npz(path)
  return [arrays.read_npz(path, contents, part) for part in ("train", "test")]


@pytest.fixture
def write(tmp_path):
  def _write(save=np.savez, **changes):
    path = tmp_path / "set.npz"
    save(path, **contents(**changes))
    return str(path)

  return _write


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_an_npz_comes_back_as_it_was_written(write, save):
  train, test = load(write(save))
  np.testing.assert_array_equal(train.images, contents()["train_images"])
  np.testing.assert_array_equal(test.images, contents()["test_images"])
  assert test.labels.tolist() == [2, 1, 0]
  assert {train.images.dtype, test.images.dtype} == {np.dtype(np.uint8)}
  assert {train.labels.dtype, test.labels.dtype} == {np.dtype(np.int32)}
  assert train.class_names == test.class_names == ("0", "1", "2")
  assert (len(train), len(test)) == (6, 3)


def test_arrays_with_the_later_header_of_numpy_are_read(write):
  path = write()
  with zipfile.ZipFile(path, "w") as archive:
    for name, array in contents().items():
      with archive.open(f"{name}.npy", "w") as member:
        np.lib.format.write_array(member, array, version=(2, 0))
  train, test = load(path)
  np.testing.assert_array_equal(train.images, contents()["train_images"])
  assert test.labels.tolist() == [2, 1, 0]


@pytest.mark.parametrize("trailing", [(), (1,)])
def test_grey_images_become_three_equal_channels(write, trailing):
  grey = np.arange(6 * 4 * 5, dtype=np.uint8).reshape(6, 4, 5)
  train, _ = load(write(train_images=grey.reshape(6, 4, 5, *trailing)))
  assert train.images.shape == (6, 4, 5, 3)
  for channel in range(3):
    np.testing.assert_array_equal(train.images[..., channel], grey)


@pytest.mark.parametrize("names", [["a", "b", "c", "ü"], [b"a", b"b", b"c", "ü".encode()]])
def test_class_names_are_kept_even_of_classes_without_images(write, names):
  path = write(class_names=np.array(names))
  train, _ = load(path)
  assert train.class_names == ("a", "b", "c", "ü")
  (warning,) = arrays.describe_npz(path).warnings
  assert "no training images of class 3 (ü)" in warning


@pytest.mark.parametrize(
  ("names", "said"),
  [
    (["a\n", "b", "c"], r"class name 0, 'a\\n', has a line end"),
    (["a", "b\u2028", "c"], r"class name 1, 'b\\u2028', has a line end"),
    (["a", "b", "c\x85d"], r"class name 2, 'c\\x85d'"),
    (["a", "\x1b[31mb", "c"], "class name 1, .* can't be printed"),
    (["a", "", "c"], "class name 1, '', is empty"),
    (["a", " \u00a0", "c"], "class name 1, .* is empty"),
    (["a", "b", "a"], "class names 0 and 2, 'a' and 'a', are the same"),
    (["great white", "b", " great  white "], "class names 0 and 2, .* look the same"),
    (["e\u0301", "b", "\u00e9"], "class names 0 and 2, .* look the same"),
  ],
)
def test_class_names_without_a_line_of_their_own_are_refused(write, names, said):
  with pytest.raises(errors.UserError, match=said) as caught:
    arrays.describe_npz(write(class_names=np.array(names)))
  assert len(str(caught.value).splitlines()) == 1


def test_blanks_at_the_ends_of_class_names_are_left_out_and_mentioned(write):
  contents = arrays.describe_npz(write(class_names=np.array([" a", "b  ", "c d"])))
  assert contents.class_names == ("a", "b", "c d")
  (remark,) = contents.remarks
  assert remark.startswith("Blanks at the ends of class_names in ")


@pytest.mark.parametrize(
  "labels", [[[0], [1], [2], [0], [1], [2]], np.array([0, 1, 1, 0, 1, 0], bool)]
)
def test_labels_in_a_column_or_of_two_truth_values_are_labels(write, labels):
  (train, test) = load(write(train_labels=np.array(labels), test_labels=np.array([[1], [1], [0]])))
  assert train.labels.tolist() == np.ravel(labels).astype(int).tolist()
  assert test.labels.tolist() == [1, 1, 0]
  assert {train.labels.dtype, test.labels.dtype} == {np.dtype(np.int32)}


def test_a_validation_part_is_read_and_other_arrays_are_named(write):
  path = write(**VAL, ids=np.arange(9), Val_Masks=np.zeros(3), label_names=np.array(["a"]))
  contents = arrays.describe_npz(path)
  assert {part: len(labels) for part, labels in contents.labels.items()} == {
    "train": 6,
    "test": 3,
    "val": 2,
  }
  val = arrays.read_npz(path, contents, "val")
  assert (val.images.shape, val.images.sum(), val.labels.tolist()) == ((2, 4, 5, 3), 120, [1, 2])
  assert contents.remarks == (f"Other arrays in {path} are ignored: ids, Val_Masks.",)
  (warning,) = contents.warnings
  assert warning.startswith(f"The array label_names in {path} is ignored.")
  assert warning.endswith("rename it to class_names.")


def test_take_keeps_images_and_labels_together(write):
  train, _ = load(write())
  some = train.take(np.array([4, 0]))
  np.testing.assert_array_equal(some.images, train.images[[4, 0]])
  assert some.labels.tolist() == [1, 0]


@pytest.mark.parametrize(
  ("changes", "said"),
  [
    ({"train_images": None}, r"no train_images\. It needs"),
    ({"train_images": None, "test_labels": None}, "no train_images or test_labels"),
    ({"train_images": None, "train_image": 0}, "rename train_image to train_images"),
    ({"test_labels": None, "y_test": 0}, "y_test to test_labels"),
    ({"val_images": VAL["val_images"], "val_label": 0}, r"no val_labels\. .* val_label to val_lab"),
    ({"val_labels": VAL["val_labels"]}, r"no val_images\. It needs .*val_images"),
    (
      {**VAL, "val_labels": np.array([1, 3])},
      r"no training images of class 3 \(3\), .* val_labels",
    ),
    ({**VAL, "val_images": np.zeros((2, 4, 4), np.uint8)}, r"\(4, 5\) .* val_images of \(4, 4\)"),
    ({"train_labels": np.zeros(6, int), "test_labels": np.zeros(3, int)}, "only one class .*, 0"),
    (
      {"train_labels": np.arange(6) % 2, "test_labels": np.array([2, 3, 2])},
      r"2 classes \(2: 2, 3",
    ),
    ({"train_labels": np.array(list("abcabc"))}, r"<U1; .* return_inverse"),
    ({"train_images": np.zeros((6, 4, 5, 3), np.float32)}, r"\[6, 4, 5, 3\] float32; .* uint8"),
    ({"train_images": np.zeros((6, 4, 5, 4), np.uint8)}, r"train_images of \[6, 4, 5, 4\] uint8"),
    ({"train_images": np.zeros((6, 20), np.uint8)}, r"train_images of \[6, 20\] uint8"),
    ({"train_images": np.zeros((6, 0, 5, 3), np.uint8)}, r"\[6, 0, 5, 3\]"),
    ({"train_images": np.zeros((6, 3, 4, 5), np.uint8)}, r"channels first .*\(0, 2, 3, 1\)"),
    ({"train_images": np.zeros((5, 4, 5, 3), np.uint8)}, "5 train_images but 6 train_labels"),
    ({"test_images": np.zeros((3, 5, 5, 3), np.uint8)}, r"\(4, 5\) .* \(5, 5\)"),
    ({"test_images": np.array([{}] * 3)}, "test_images: it holds pickled"),
    ({"train_labels": np.array([0.0, 1, 2, 0, 1, 2])}, r"train_labels of \[6\] float64"),
    ({"train_labels": np.eye(6, dtype=int)}, r"train_labels of \[6, 6\]"),
    ({"train_labels": np.array([0, 1, -1, 0, 1, 2])}, "negative label, -1, in train_labels"),
    ({"train_labels": np.array([0, 1, 2**40, 0, 1, 2])}, f"label {2**40} in train_labels"),
    ({"train_labels": np.array([1, 2, 3] * 2), "test_labels": np.array([3, 2, 1])}, "no label 0"),
    ({"train_labels": np.array([0, 1, 4] * 2)}, "up to 4 but no label 3"),
    ({"train_labels": np.array([], int)}, "empty train_labels"),
    ({"test_labels": np.array([None] * 3)}, "pickled"),
    ({"class_names": np.array(["a", "b"])}, "label 2 but only 2 class_names"),
    ({"class_names": np.array([["a", "b", "c"]])}, r"class_names of \[1, 3\]"),
    ({"class_names": np.array([1, 2, 3])}, "class_names of .* strings"),
    ({"class_names": np.array(["a", "b", "c"], object)}, "pickled"),
    ({"class_names": np.array([b"\xff", b"b", b"c"])}, "not UTF-8"),
  ],
)
def test_a_faulty_npz_is_refused_in_one_sentence(write, changes, said):
  path = write(**changes)
  with pytest.raises(errors.UserError, match=said) as caught:
    load(path)
  assert path in str(caught.value)
  assert "\n" not in str(caught.value)


def test_what_is_no_npz_file_is_refused(tmp_path):
  plain, array = tmp_path / "a.txt", tmp_path / "a.npy"
  plain.write_text("hello")
  np.save(array, np.zeros(3))
  for path in (plain, array):
    with pytest.raises(errors.UserError, match="not an npz file"):
      load(str(path))
  with pytest.raises(errors.UserError, match=r"not found: .*absent\.npz"):
    load(str(tmp_path / "absent.npz"))
  with pytest.raises(errors.UserError, match="can't be read"):
    load(str(tmp_path))


def test_a_damaged_or_cut_npz_is_refused(write, tmp_path):
  data = bytearray(pathlib.Path(write()).read_bytes())
  (tmp_path / "cut.npz").write_bytes(data[: len(data) // 2])
  data[300] ^= 0xFF  # in the first array's pixels, where only the checksum sees it
  (tmp_path / "flipped.npz").write_bytes(data)
  for name, said in (("cut", "truncated"), ("flipped", "damaged .* train_images")):
    with pytest.raises(errors.UserError, match=said):
      load(str(tmp_path / f"{name}.npz"))


def test_a_home_folder_is_understood(write, tmp_path, monkeypatch):
  write()
  monkeypatch.setenv("HOME", str(tmp_path))
  assert arrays.describe_npz("~/set.npz").image_size == (4, 5)


def test_digits_are_those_of_scikit_learn_exactly_scaled():
  pool, test = arrays.load_digits()
  original = sklearn_datasets.load_digits()
  # Exact: 0 -> 0, 16 -> 255, and 8 -> 127.5, rounded to even, 128.
  scaled = np.array([round(v * 255 / 16) for v in range(17)])[original.images.astype(int)]
  expected = sorted(
    (int(label), image.astype(np.uint8).tobytes())
    for label, image in zip(original.target, scaled, strict=True)
  )
  found = sorted(
    (int(label), image[..., 0].tobytes())
    for part in (pool, test)
    for label, image in zip(part.labels, part.images, strict=True)
  )
  assert found == expected
  for part in (pool, test):
    np.testing.assert_array_equal(part.images, part.images[..., :1].repeat(3, axis=-1))


def test_the_digits_test_set_is_balanced_and_fixed():
  pool, test = arrays.load_digits()
  assert np.bincount(test.labels).tolist() == [100] * 10
  assert np.bincount(pool.labels).tolist() == [78, 82, 77, 83, 81, 82, 81, 79, 74, 80]
  assert pool.images.sum(dtype=int) == 11_945_169


def test_selection_holds_out_a_fifth_of_each_class():
  labels = np.repeat(np.arange(4), [10, 1, 3, 8])
  kept, held_out = arrays.split_for_selection(labels, ("a", "b", "c", "d"))
  assert np.bincount(labels[held_out], minlength=4).tolist() == [2, 0, 1, 2]
  np.testing.assert_array_equal(np.sort(np.concatenate([kept, held_out])), np.arange(22))
  again, _ = arrays.split_for_selection(labels, ("a", "b", "c", "d"))
  np.testing.assert_array_equal(kept, again)


def test_selection_from_next_to_nothing_is_refused():
  with pytest.raises(errors.UserError, match="protocol=final"):
    arrays.split_for_selection(np.array([0, 0, 1]), ("a", "b"))


def test_class_names_that_differ_in_case_are_warned_of(write):
  (warning,) = arrays.describe_npz(write(class_names=np.array(["Cat", "cat", "c"]))).warnings
  assert warning.endswith("differ only in upper and lower case: Cat, cat.")


def test_classes_without_test_images_are_told(write):
  contents = arrays.describe_npz(write(test_labels=np.array([1, 1, 1])))
  assert contents.warnings == ("No test images of 2 classes (0: 0, 2: 2).",)
  assert contents.remarks == ()
