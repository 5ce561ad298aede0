"""Tests of bit_jax.data.sources.folder and bit_jax.data.sources.scan."""

import hashlib
import os
import shutil
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from bit_jax.configs import folder as folder_config
from bit_jax.data import images
from bit_jax.data.sources import folder, scan
from bit_jax.runtime import errors


def put(path, height=6, width=8, colour=0):
  path.parent.mkdir(parents=True, exist_ok=True)
  Image.new("RGB", (width, height), (colour, 0, 0)).save(path)


def fill(root, counts, extension=".png"):
  """Writes {folder: number of images}; the red level is the number of the image."""
  for name, count in counts.items():
    (root / name).mkdir(parents=True, exist_ok=True)
    for i in range(count):
      put(root / name / f"{i}{extension}", colour=i)
  return str(root)


def paths(listing):
  return set(listing.paths)


def names(described, listing):
  return [described.class_names[label] for label in listing.labels]


@pytest.fixture
def parts(tmp_path):
  return fill(tmp_path, {"train/b": 10, "train/a": 5, "test/a": 2, "test/b": 3})


def write(tmp_path, text, name="list.csv", encoding="utf-8"):
  (tmp_path / name).write_text(text, encoding)
  return str(tmp_path / name)


class TestParts:
  def test_final_is_train_and_test(self, parts):
    described = folder.describe(parts, "final")
    assert described.class_names == ("a", "b")
    assert (described.num_train, described.num_test) == (15, 5)
    assert (described.image_size, described.fixed_size) == ((6, 8), True)
    assert "left out" not in described.origin
    for listing, part in ((described.train, "train"), (described.test, "test")):
      assert listing.labels.dtype == np.int32
      expected = [f"{part}/{n}" for n in names(described, listing)]
      assert [p.rsplit("/", 1)[0] for p in listing.paths] == expected

  def test_classes_are_mixed_in_the_order_of_their_md5(self, parts):
    listed = folder.describe(parts, "final").train.paths
    assert list(listed) == sorted(listed, key=lambda p: hashlib.md5(p.encode()).digest())

  def test_select_holds_out_a_fifth_of_train(self, parts):
    final, select = (folder.describe(parts, p) for p in ("final", "select"))
    assert np.bincount(select.test.labels).tolist() == [1, 2]
    assert paths(select.train) | paths(select.test) == paths(final.train)
    assert not paths(select.train) & paths(select.test)
    assert "test" in select.origin

  @pytest.mark.parametrize("name", ["val", "Valid", "VALIDATION", "eval"])
  def test_three_parts(self, tmp_path, name):
    path = fill(tmp_path, {f"{p}/{c}": 4 for p in ("Training", name, "Testing") for c in "ab"})
    final, select = (folder.describe(path, p) for p in ("final", "select"))
    assert {p.split("/")[0] for p in final.train.paths} == {"Training", name}
    assert {p.split("/")[0] for p in final.test.paths} == {"Testing"}
    assert {p.split("/")[0] for p in select.train.paths} == {"Training"}
    assert {p.split("/")[0] for p in select.test.paths} == {name}
    assert (select.num_train, select.num_test, final.num_train) == (8, 8, 16)

  def test_val_is_the_test_set_where_there_is_none(self, tmp_path):
    path = fill(tmp_path, {"train/a": 5, "train/b": 5, "val/a": 2, "val/b": 2})
    final, select = (folder.describe(path, p) for p in ("final", "select"))
    assert {p.split("/")[0] for p in final.test.paths} == {"val"}
    assert {p.split("/")[0] for p in select.test.paths} == {"train"}
    assert (final.num_train, select.num_train, select.num_test) == (10, 8, 2)

  def test_train_alone_is_split(self, tmp_path):
    described = folder.describe(fill(tmp_path, {"train/a": 10, "train/b": 5}), "final")
    assert np.bincount(described.test.labels).tolist() == [2, 1]
    assert described.origin.startswith("Only a train part")

  def test_classes_without_test_images_are_told(self, tmp_path):
    described = folder.describe(fill(tmp_path, {"train/a": 2, "train/b": 2, "test/b": 2}), "final")
    assert described.class_names == ("a", "b")
    assert described.test.labels.tolist() == [1, 1]
    assert described.origin.endswith("without evaluated images: a.")


class TestClasses:
  def test_a_fifth_of_each_class_is_held_out_twice(self, tmp_path):
    path = fill(tmp_path, {"a": 20, "b": 10, "c": 2, "d": 1})
    final, select = (folder.describe(path, p) for p in ("final", "select"))
    assert np.bincount(final.test.labels, minlength=4).tolist() == [4, 2, 1, 0]
    assert np.bincount(final.train.labels).tolist() == [16, 8, 1, 1]
    assert np.bincount(select.test.labels, minlength=4).tolist() == [3, 2, 0, 0]
    assert np.bincount(select.train.labels).tolist() == [13, 6, 1, 1]
    assert not paths(final.test) & (paths(select.test) | paths(select.train))
    assert "80/20 split" in final.origin

  def test_the_split_is_recorded_once_and_for_all(self, tmp_path):
    # Golden: results on folders without parts depend on it.
    described = folder.describe(fill(tmp_path, {"a": 10, "b": 10}), "final")
    assert described.test.paths == ("b/0.png", "b/7.png", "a/7.png", "a/1.png")

  def test_the_split_does_not_depend_on_where_the_folder_lies(self, tmp_path):
    first = fill(tmp_path / "x", {"a": 10, "b": 10})
    shutil.copytree(first, tmp_path / "y")
    listings = [folder.describe(str(tmp_path / n), "final").test.paths for n in "xy"]
    assert listings[0] == listings[1]

  def test_added_images_move_few_others(self, tmp_path):
    path = fill(tmp_path, {"a": 50, "b": 50})
    before = paths(folder.describe(path, "final").test)
    fill(tmp_path, {"c": 50})
    put(tmp_path / "a" / "new.png")
    after = paths(folder.describe(path, "final").test)
    assert len(before - after) <= 1
    assert {p for p in after - before if not p.startswith("c/")} <= {"a/new.png"}

  def test_subfolders_count_to_their_class(self, tmp_path):
    path = fill(tmp_path, {"a/x/y": 3, "a": 2, "b/z": 5})
    described = folder.describe(path, "final")
    assert described.class_names == ("a", "b")
    every = [*described.train.labels, *described.test.labels]
    assert np.bincount(every).tolist() == [5, 5]

  @pytest.mark.parametrize("extension", [".JPG", ".jpeg", ".Png", ".bmp", ".gif", ".webp"])
  def test_extensions_in_any_case(self, tmp_path, extension):
    path = fill(tmp_path, {"a": 2, "b": 2}, extension)
    assert folder.describe(path, "final").num_train == 2

  def test_other_files_are_told_and_hidden_ones_ignored(self, tmp_path):
    path = fill(tmp_path, {"a": 2, "b": 2, ".git/c": 3, "__MACOSX/a": 3})
    for name in ("README.md", "a/Thumbs.db", "b/._0.png", "a/.DS_Store", "b/x.tif"):
      (tmp_path / name).write_text("x")
    described = folder.describe(path, "final")
    assert "3 files of unknown type (README.md, a/Thumbs.db, b/x.tif)" in described.origin
    assert described.num_train + described.num_test == 4
    assert described.class_names == ("a", "b")

  def test_images_in_no_class_are_told(self, tmp_path):
    path = fill(tmp_path, {"a": 2, "b": 2})
    put(tmp_path / "cover.png")
    described = folder.describe(path, "final")
    assert "1 image outside the class folders (cover.png)" in described.origin
    assert described.num_train + described.num_test == 4

  def test_links_are_followed_and_circles_left(self, tmp_path):
    path = fill(tmp_path / "set", {"a": 2})
    fill(tmp_path / "elsewhere", {"": 3})
    (tmp_path / "set" / "b").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "set" / "a" / "again").symlink_to(tmp_path / "set")
    (tmp_path / "set" / "a" / "link.png").symlink_to(tmp_path / "elsewhere" / "2.png")
    described = folder.describe(path, "final")
    every = paths(described.train) | paths(described.test)
    assert {"b/0.png", "b/1.png", "b/2.png", "a/link.png"} <= every
    assert not any("again/a" in p for p in every)

  def test_a_class_may_be_called_train(self, tmp_path):
    described = folder.describe(fill(tmp_path, {"train": 3, "bus": 3}), "final")
    assert described.class_names == ("bus", "train")

  def test_names_with_spaces_and_letters_of_any_language(self, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    fill(tmp_path / "my photos", {"Löwe, groß": 3, "猫": 3})
    described = folder.describe("~/my photos", "final")
    assert described.class_names == ("Löwe, groß", "猫")
    assert described.train.read(0)[0].shape == (6, 8, 3)

  @pytest.mark.parametrize(
    ("names", "expected"),
    [
      (("10", "9", "100", "1"), ("1", "9", "10", "100")),
      (("010", "9", "10"), ("9", "010", "10")),
      (("10", "9", "1a"), ("10", "1a", "9")),
      (("10", "9", "-1"), ("-1", "10", "9")),
      (("10", "9", "2²"), ("10", "2²", "9")),
    ],
  )
  def test_names_that_are_all_numbers_are_in_the_order_of_numbers(self, tmp_path, names, expected):
    described = folder.describe(fill(tmp_path, dict.fromkeys(names, 2)), "final")
    assert described.class_names == expected
    held = zip(described.train.paths, described.train.labels, strict=True)
    assert all(path.split("/")[0] == expected[label] for path, label in held)

  @pytest.mark.parametrize(
    ("name", "advice"),
    [
      (os.fsdecode(b"caf\xe9"), "rename the folder (in UTF-8)"),
      ("a\nb", "control character"),
      ("a\tb", "control character"),
      ("\x1b[31m", "control character"),
      ("a\u2028", "control character"),
    ],
  )
  def test_names_that_cannot_be_printed_are_refused(self, tmp_path, name, advice):
    path = fill(tmp_path, {"a": 2, name: 2})
    with pytest.raises(errors.UserError, match=r"1 class name in .* can't be printed") as caught:
      folder.describe(path, "final")
    assert repr(name) in str(caught.value)
    assert advice in str(caught.value)
    str(caught.value).encode()

  def test_names_that_the_locale_cannot_hold_ask_for_utf8(self, tmp_path, monkeypatch):
    path = fill(tmp_path, {"a": 2, os.fsdecode(b"caf\xc3"): 2})
    monkeypatch.setattr(sys, "getfilesystemencoding", lambda: "ascii")
    with pytest.raises(errors.UserError, match=r"can't be printed, .*: set PYTHONUTF8=1"):
      folder.describe(path, "final")

  @pytest.mark.parametrize(
    "names", [("cat", "cat "), ("e\u0301", "\u00e9"), ("a b", "a  b"), ("ab", "a\u200bb")]
  )
  def test_names_that_look_the_same_are_refused(self, tmp_path, names):
    path = fill(tmp_path, {f"train/{names[0]}": 2, "train/x": 2, f"test/{names[1]}": 2})
    with pytest.raises(errors.UserError, match=r"class names . and ., .* look the same") as caught:
      folder.describe(path, "final")
    assert all(repr(name) in str(caught.value) for name in names)

  def test_names_may_hold_spaces_and_joiners_of_any_script(self, tmp_path):
    names = {"caf\u00a0noir", "\u0645\u06cc\u200c\u0631\u0648\u062f"}
    described = folder.describe(fill(tmp_path, dict.fromkeys(names, 2)), "final")
    assert set(described.class_names) == names

  def test_sizes(self, tmp_path):
    for i, (height, width) in enumerate([(10, 90), (20, 50), (300, 60)]):
      put(tmp_path / "a" / f"{i}.png", height, width)
    fill(tmp_path, {"b": 1})
    described = folder.describe(str(tmp_path), "final")
    assert described.image_size == (15, 55)
    assert not described.fixed_size

  def test_unreadable_images_stay_listed(self, tmp_path):
    path = fill(tmp_path, {"train/a": 3, "train/b": 3, "test/a": 1})
    (tmp_path / "train" / "a" / "1.png").write_text("no image")
    (tmp_path / "test" / "a" / "0.png").write_bytes(b"")
    described = folder.describe(path, "final")
    assert (described.num_train, described.num_test) == (6, 1)
    assert described.image_size == (6, 8)
    unknown = {
      files.paths[i]
      for files in (described.train, described.test)
      for i, (height, _) in enumerate(files.read_sizes())
      if height < 0
    }
    assert unknown == {"train/a/1.png", "test/a/0.png"}

  def test_a_link_to_nowhere_is_an_unreadable_image(self, tmp_path):
    path = fill(tmp_path, {"train/a": 3, "train/b": 3, "test/a": 1})
    (tmp_path / "train/b/gone.png").symlink_to(tmp_path / "nowhere.png")
    described = folder.describe(path, "final")
    assert (described.num_train, described.image_size) == (7, (6, 8))
    files = described.train
    index = described.train.paths.index("train/b/gone.png")
    assert files.read_sizes()[index].tolist() == [-1, -1]
    with pytest.raises(images.Unreadable, match=r"The image .*train/b/gone\.png"):
      files.read(index)
    before = files.fingerprint()
    put(tmp_path / "nowhere.png")
    files = folder.describe(path, "final").train
    assert files.fingerprint() != before
    assert files.read_sizes()[index].tolist() == [6, 8]
    assert files.read(index)[0].shape == (6, 8, 3)


class TestCsv:
  ROWS = "a/0.png,a\na/1.png,a\nb/0.png,b\nb/1.png,b\n"

  @pytest.fixture(autouse=True)
  def _images(self, tmp_path):
    fill(tmp_path, {"a": 3, "b": 3})

  @pytest.mark.parametrize(
    "text",
    [
      ROWS,
      "path,label\n" + ROWS,
      "\ufeffFile,Class\n\n" + ROWS,
      "id,label,image\n7,a,a/0.png\n7,a,a/1.png\n7,b,b/0.png\n7,b,b/1.png",
      ("filename,label\n" + ROWS).replace(",", ";").replace("\n", "\r\n"),
      ("image,class\n" + ROWS).replace(",", "\t"),
    ],
  )
  def test_forms(self, tmp_path, text):
    described = folder.describe(write(tmp_path, text), "final")
    assert described.class_names == ("a", "b")
    assert paths(described.train) | paths(described.test) == {
      f"{c}/{i}.png" for c in "ab" for i in (0, 1)
    }
    assert np.bincount(described.test.labels).tolist() == [1, 1]
    assert [p[0] for p in described.train.paths] == names(described, described.train)

  @pytest.mark.parametrize("header", ["", "path,label,split\n"])
  def test_splits(self, tmp_path, header):
    rows = "a/0.png,x y,train\nb/0.png,z,Training\na/1.png,x y,test\nb/1.png,z,val\n"
    described = folder.describe(write(tmp_path, header + rows), "final")
    assert described.test.paths == ("a/1.png",)
    assert paths(described.train) == {"a/0.png", "b/0.png", "b/1.png"}
    assert folder.describe(str(tmp_path / "list.csv"), "select").test.paths == ("b/1.png",)

  def test_names_that_begin_with_a_tilde(self, tmp_path, monkeypatch):
    for name in ("~b.png", "~no-such-user/x.png", "~a/1.png", "~a/2.png"):
      (tmp_path / name).parent.mkdir(exist_ok=True)
      put(tmp_path / name)
    (tmp_path / "home").mkdir()
    put(tmp_path / "home" / "h.png")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    rows = "~b.png,a,train\n~no-such-user/x.png,b,train\n~/h.png,a,train\n~a/1.png,a,test\n"
    described = folder.describe(write(tmp_path, rows + "~a/2.png,b,test\n"), "final")
    assert paths(described.train) == {"~b.png", "~no-such-user/x.png", "home/h.png"}
    assert paths(described.test) == {"~a/1.png", "~a/2.png"}

  def test_absolute_paths(self, tmp_path):
    inside, outside = tmp_path / "sub", tmp_path / "a" / "0.png"
    fill(inside, {"b": 3})
    rows = f"{outside},a\n../a/1.png,a\n{inside}/b/0.png,b\nb/1.png,b\n"
    described = folder.describe(write(inside, rows), "final")
    listed = paths(described.train) | paths(described.test)
    expected = {str(outside), str(tmp_path / "a" / "1.png"), "b/0.png", "b/1.png"}
    assert listed == {p.replace(os.sep, "/") for p in expected}
    files = described.train
    assert all(files.read(i)[0].shape == (6, 8, 3) for i in range(len(files)))

  @pytest.mark.parametrize(
    ("text", "message"),
    [
      ("", "is empty"),
      (",,,\n", "is empty"),
      ("path,label\n", "a header but no rows"),
      ("picture,kind\na/0.png,a\n", "'picture,kind'.* Name one column path"),
      ("path,kind\na/0.png,a\n", "no columns of paths and labels"),
      ("a/0.png\n", "no columns of paths and labels"),
      (ROWS + "a/2.png,\n", "Line 5 of .*list.csv has no label"),
      (ROWS + ",a\n", "Line 5 of .*list.csv has no path"),
      (ROWS + "a/2.png\n", "Line 5 of .*list.csv has no label"),
      (ROWS + "a/7.png,a\n", r"list.csv .* 1 file .*: a/7.png \(line 5\)"),
      (
        ROWS + "a/7.png,a\na/8.png,a\n",
        r"2 files .*: a/7.png, a/8.png \(first in line 5\)",
      ),
      (ROWS + "a/1.png,b\n", "lists 1 file more than once: a/1.png"),
      ("path,label,split\na/0.png,a,train\nb/0.png,b,hold\n", "Line 3 .* 'hold'"),
      ("path,label,split\na/0.png,a,train\nb/0.png,b,\n", "Line 3 .* names no split"),
      ("a/0.png,a\na/1.png,a\n", "All images in .* are of one class, a"),
    ],
  )
  def test_mistakes(self, tmp_path, text, message):
    with pytest.raises(errors.UserError, match=message):
      folder.describe(write(tmp_path, text), "final")

  PARTS = ("train", "train", "test") * 2

  def table(self, tmp_path, columns, name="list.csv", delimiter=","):
    """Describes a CSV of a/0.png to b/2.png with their labels and further columns."""
    listed = [(f"{c}/{i}.png", c) for c in "ab" for i in range(3)]
    rows = [("path", "label", *columns)]
    rows += [(*row, *more) for row, *more in zip(listed, *columns.values(), strict=True)]
    text = "\n".join(delimiter.join(row) for row in rows)
    return folder.describe(write(tmp_path, text, name), "final")

  @pytest.mark.parametrize(
    "name",
    ["set", "Subset", "partition", "part", "fold", "Usage", "phase", "mode", "train_test", "foo"],
  )
  def test_a_column_whose_values_all_name_parts_is_the_split(self, tmp_path, name):
    described = self.table(tmp_path, {name: ("Train", "TRAINING", "test") * 2})
    assert paths(described.test) == {"a/2.png", "b/2.png"}
    assert f"column {name} " in described.origin
    assert described.warnings == ()

  @pytest.mark.parametrize(
    ("name", "values"),
    [
      ("Usage", ("Public", "Private")),
      ("fold", ("0", "1")),
      ("setid", ("1", "3")),
      ("train", ("0.2", "0.8")),
      ("valid", ("False", "True")),
      ("anything", ("train", "test", "neither")),
    ],
  )
  def test_a_column_that_may_be_a_split_is_warned_of(self, tmp_path, name, values):
    described = self.table(tmp_path, {name: (values * 6)[:6]})
    (warning,) = described.warnings
    assert warning.startswith(f"The column {name} of list.csv may be a split, but not all its")
    assert ", ".join(sorted(values)) in warning
    assert np.bincount(described.test.labels).tolist() == [1, 1]

  @pytest.mark.parametrize(
    ("name", "values", "test", "warning"),
    [
      (
        "is_train",
        "110110",
        {"a/2.png", "b/2.png"},
        "where it is true, a row is train, elsewhere te",
      ),
      (
        "IsTest",
        "FFTFFT",
        {"a/2.png", "b/2.png"},
        "where it is true, a row is test, elsewhere train",
      ),
      (
        "is_valid",
        "NYNNYN",
        {"a/1.png", "b/1.png"},
        "where it is true, a row is val, elsewhere tra",
      ),
    ],
  )
  def test_a_column_of_true_and_false(self, tmp_path, name, values, test, warning):
    described = self.table(tmp_path, {name: tuple(values)})
    assert paths(described.test) == test
    assert warning in described.warnings[0]

  def test_of_two_splits_the_one_of_that_name_is_used(self, tmp_path):
    other = ("test", "train", "train") * 2
    described = self.table(tmp_path, {"set": other, "Split": self.PARTS, "phase": self.PARTS})
    assert paths(described.test) == {"a/2.png", "b/2.png"}
    assert described.warnings == (
      "The column set of list.csv names other parts than Split, which is used.",
    )
    assert self.table(tmp_path, {"set": self.PARTS, "phase": self.PARTS}).warnings == ()

  def test_eval_beside_val_is_the_test_set(self, tmp_path):
    described = self.table(tmp_path, {"split": ("train", "dev", "eval") * 2})
    assert paths(described.test) == {"a/2.png", "b/2.png"}
    assert paths(self.table(tmp_path, {"set": ("train", "eval", "test") * 2}).test) == {
      "a/2.png",
      "b/2.png",
    }

  def test_a_word_of_a_part_among_others_is_no_split(self, tmp_path):
    described = self.table(tmp_path, {"vehicle": ("train", "bus", "bus") * 2})
    assert described.warnings == ()
    assert "80/20 split" in described.origin

  @pytest.mark.parametrize(
    ("columns", "message"),
    [
      ({"Usage": ("Training", "PublicTest", "test") * 2}, r"Line 3 .* 'PublicTest' \(Usage\)"),
      ({"set": PARTS, "phase": ("train", "test", "test") * 2}, "all name parts, but not the same"),
      (
        {"is_train": tuple("110110"), "is_test": tuple("001001")},
        "is_train, is_test of .* one part",
      ),
      ({"set": ("train", "", "test") * 2}, "Line 3 .* names no split"),
    ],
  )
  def test_splits_that_contradict(self, tmp_path, columns, message):
    with pytest.raises(errors.UserError, match=message):
      self.table(tmp_path, columns)

  def test_folders_of_parts_in_the_paths_are_warned_of(self, tmp_path):
    fill(tmp_path, {f"{p}/{c}": 2 for p in ("train", "test") for c in "ab"})
    listed = [(f"{p}/{c}/{i}.png", c) for p in ("train", "test") for c in "ab" for i in range(2)]
    text = "\n".join(",".join(row) for row in listed)
    (warning,) = folder.describe(write(tmp_path, text), "final").warnings
    assert "lie in folders of parts (test, train), but no column gives the split" in warning

  @pytest.mark.parametrize(
    ("name", "text", "classes"),
    [
      ("x.tsv", "a/0.png\tLöwe, groß\na/1.png\tLöwe, groß\nb/0.png\tb", ("Löwe, groß", "b")),
      ("x.TSV", "path\tlabel\ta,b\na/0.png\tx\t1\nb/0.png\ty\t1\nb/1.png\ty\t", ("x", "y")),
      ("x.csv", "a/0.png;Löwe, groß\na/1.png;Löwe, groß\nb/0.png;b", ("Löwe, groß", "b")),
      ("x.csv", "a/0.png\tx, y\na/1.png\tx, y\nb/0.png\tb", ("b", "x, y")),
      ("x.csv", "label;path;a, b\nx;a/0.png;\nx;a/1.png;\ny;b/0.png;", ("x", "y")),
      ("x.csv", "path|label\na/0.png|x\na/1.png|x\nb/0.png|y", ("x", "y")),
      ("x.csv", "sep=;\npath;label\na/0.png;x\na/1.png;x\nb/0.png;y", ("x", "y")),
      ("x.csv", '"path", "label"\n"a/0.png", "x, y"\n"a/1.png","x, y"\nb/0.png,z', ("x, y", "z")),
      ("x.csv", "\ufeff Image Path ,Class-Name\na/0.png,x\na/1.png,x\nb/0.png,y", ("x", "y")),
      (
        "x.csv",
        ",file_name,category,class_id\n0,a/0.png,x,0\n1,a/1.png,x,0\n2,b/0.png,y,1",
        ("x", "y"),
      ),
      ("x.csv", "image_id,breed\na/0,x\na/1,x\nb/0,y", ("x", "y")),
      ("x.csv", "class id,filepaths,labels\n0,a/0.png,x\n0,a/1.png,x\n1,b/0.png,y", ("x", "y")),
      ("x.csv", "path,label\na\\0.png,x\n.\\a\\1.png,x\nb\\0.png,y", ("x", "y")),
    ],
  )
  def test_delimiters_and_names_of_columns(self, tmp_path, name, text, classes):
    described = folder.describe(write(tmp_path, text, name), "final")
    assert described.class_names == classes
    assert {"a/0.png", "b/0.png"} < paths(described.train) | paths(described.test)

  def test_several_columns_of_labels_are_a_mistake(self, tmp_path):
    path = write(tmp_path, "filepath,species,category\na/0.png,x,y\nb/0.png,z,y\n")
    with pytest.raises(errors.UserError, match=r"\(species, category\): name the right one label"):
      folder.describe(path, "final")

  @pytest.mark.parametrize("label", ["NA", "nan", "#N/A"])
  def test_labels_that_stand_for_missing_ones_are_warned_of(self, tmp_path, label):
    path = write(tmp_path, f"path,label\na/0.png,{label}\na/1.png,x\nb/0.png,x\n")
    (warning,) = folder.find(path).warnings
    assert f"The label {label} in " in warning
    assert "is read as a class" in warning

  def test_labels_that_differ_in_case_are_warned_of(self, tmp_path):
    path = write(tmp_path, "path,label\na/0.png,Cat\na/1.png,cat\nb/0.png,a\nb/1.png,A\n")
    (warning,) = folder.find(path).warnings
    assert warning.endswith("differ only in upper and lower case: Cat, cat.")

  def test_values_without_a_column_are_refused(self, tmp_path):
    path = write(tmp_path, "path,label\na/0.png,big cat,\na/1.png,cat, big\n")
    with pytest.raises(
      errors.UserError, match=r"Line 3 .* has 3 values, .* names 2 columns: quote"
    ):
      folder.find(path)

  @pytest.mark.parametrize("url", ["https://x.org/0.png", "gs://bucket/0.png"])
  def test_urls_are_no_paths(self, tmp_path, url):
    with pytest.raises(errors.UserError, match=f"Line 2 of .* names a URL, {url}: download"):
      folder.find(write(tmp_path, f"path,label\n{url},x\n"))

  def test_another_encoding_is_named(self, tmp_path):
    path = write(tmp_path, "a/0.png,Löwe\n", encoding="latin-1")
    with pytest.raises(errors.UserError, match="UTF-8"):
      folder.describe(path, "final")


@pytest.mark.parametrize(
  ("counts", "message"),
  [
    ({}, "holds no class folders"),
    ({"": 3}, "holds no class folders"),
    ({"a": 3}, "All images in .* are of one class, a"),
    ({"a": 3, "b": 0, "c": 3, "d": 0}, "without images in .*: b, d"),
    ({"a": 0, "b": 0}, r"without images in .*: a, b\. .* \.bmp, .*\.webp\."),
    ({"a": 1, "b": 1}, "No class in .* has 2 images"),
    ({"train/a": 1, "train/b": 1}, "No class in .* has 2 images"),
    ({"train": 3, "test": 3}, "test and train hold images but no class folders"),
    ({"train/a": 3, "train/b": 3, "test": 3}, "test holds images but no class folders"),
    ({"train/a": 3, "train/b": 3, "test": 0}, "without images in .*: test"),
    ({"train/a": 3, "train/b": 3, "test/a": 0}, "without images in .*: test/a"),
    ({"train/a": 3, "train/b": 3, "test/c": 3, "test/d": 1}, "lacks 2 classes .*: c, d"),
    ({"train/a": 3, "test/a": 3}, "of one class, a"),
    ({"test/a": 3, "test/b": 3}, "test part but no train"),
    ({"train/a": 3, "train/b": 3, "extra": 3}, "beside them extra, with 3 images"),
    ({"train/a": 3, "train/b": 3, "val/a": 1, "valid/a": 1}, "val and valid, which mean the same"),
  ],
)
def test_mistakes_in_folders(tmp_path, counts, message):
  with pytest.raises(errors.UserError, match=message):
    folder.describe(fill(tmp_path, counts), "final")


def test_select_needs_two_images_of_a_class(tmp_path):
  path = fill(tmp_path, {"a": 2, "b": 2})
  assert folder.describe(path, "final").num_train == 2
  with pytest.raises(errors.UserError, match="protocol=final"):
    folder.describe(path, "select")


@pytest.mark.parametrize(
  ("name", "message"),
  [
    ("none", "not found"),
    ("none.csv", "not found"),
    ("a.npz", r"configs/npz.py:path="),
    ("a.txt", "neither a folder nor a CSV"),
  ],
)
def test_paths_that_are_neither(tmp_path, name, message):
  for existing in ("a.npz", "a.txt"):
    (tmp_path / existing).write_text("x")
  with pytest.raises(errors.UserError, match=message):
    folder.describe(str(tmp_path / name), "final")


def test_a_folder_of_which_nothing_can_be_read(tmp_path):
  for name in ("a/0.png", "a/1.png", "b/0.png"):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("x")
  with pytest.raises(errors.UserError, match=r"None of the 3 images .* can be read"):
    folder.describe(str(tmp_path), "final")


@given(st.lists(st.integers(0, 40), min_size=1, max_size=5))
def test_a_fifth_leaves_four(counts):
  labels = np.repeat(np.arange(len(counts)), counts)
  held_out = folder.quotas(labels, len(counts))
  for have, out in zip(counts, held_out, strict=True):
    assert out < max(have, 1)
    assert (out >= 1) == (have >= 2)
    assert out == 1 or abs(out - have / 5) <= 0.5


class TestFiles:
  @pytest.fixture
  def described(self, parts):
    return folder.describe(parts, "final")

  @pytest.fixture
  def files(self, described):
    return described.train

  def test_random_access(self, described, files):
    assert len(files) == 15
    assert files.class_names == ("a", "b")
    labels = files.read_labels()
    assert (labels.shape, labels.dtype) == ((15,), np.int32)
    for i in (3, 0, 14):
      _, name, file = described.train.paths[i].split("/")
      image, label = files.read(i)
      np.testing.assert_array_equal(image, np.full((6, 8, 3), (int(file.split(".")[0]), 0, 0)))
      assert files.class_names[label] == name
      assert label == labels[i]

  def test_sizes_come_from_headers(self, parts, described):
    bad, other = (os.path.join(parts, described.train.paths[i]) for i in (4, 9))
    with open(bad, "wb") as file:
      file.write(b"no image")
    Image.new("RGB", (30, 20)).save(other)
    expected = np.tile([6, 8], (15, 1))
    expected[4], expected[9] = -1, (20, 30)
    np.testing.assert_array_equal(folder.describe(parts, "final").train.read_sizes(), expected)

  def test_a_broken_file_is_named(self, parts, described, files):
    name = described.train.paths[2]
    with open(os.path.join(parts, name), "r+b") as file:
      file.truncate(50)
    with pytest.raises(images.Unreadable, match=rf"The image .*{name} is cut short"):
      files.read(2)

  def test_the_fingerprint_changes_with_the_data_alone(self, parts, described, files):
    def fingerprint():
      described = folder.describe(parts, "final")
      return described.train.fingerprint()

    before = files.fingerprint()
    assert len(before) == 64
    assert fingerprint() == before
    path = os.path.join(parts, described.train.paths[0])
    status = os.stat(path)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    touched = fingerprint()
    os.rename(path, path.replace(".png", "x.png"))
    assert len({before, touched, fingerprint()}) == 3

  def test_it_covers_the_labels(self, tmp_path):
    fill(tmp_path, {"a": 4})
    rows = "a/0.png,x\na/1.png,y\na/2.png,{}\na/3.png,y\n"
    found = []
    for label in "xy":
      text = "path,label,split\n" + "\n".join(
        r + (",train" if i < 3 else ",test") for i, r in enumerate(rows.format(label).split())
      )
      described = folder.describe(write(tmp_path, text), "final")
      found.append(described.train.fingerprint())
    assert found[0] != found[1]

  def test_a_file_that_is_gone_is_named(self, parts, described, files):
    name = described.train.paths[1]
    os.remove(os.path.join(parts, name))
    with pytest.raises(images.Unreadable, match=name):
      files.read(1)

  def test_a_copy_has_the_identity_of_the_original_but_not_its_fingerprint(
    self, parts, tmp_path_factory
  ):
    def of(root):
      described = folder.describe(str(root), "final")
      files = described.train
      return files.identity(), files.fingerprint()

    copy = tmp_path_factory.mktemp("copies") / "copy"
    shutil.copytree(parts, copy)
    for path in copy.glob("*/*/*"):
      os.utime(path, ns=(1, 1))
    (identity, fingerprint), (same, other) = of(parts), of(copy)
    assert identity == same
    assert fingerprint != other
    put(copy / "train" / "a" / "0.png", width=90)
    assert of(copy)[0] != identity


def test_changed_files_are_read_again(tmp_path):
  path = fill(tmp_path, {"a": 2, "b": 2})
  assert folder.describe(path, "final").image_size == (6, 8)
  for name in ("a/0", "a/1", "b/0"):
    put(tmp_path / f"{name}.png", 60, 80)
  assert folder.describe(path, "final").image_size == (60, 80)


def test_by_digest_is_an_order_of_its_own_for_each_salt():
  listed = [f"a/{i}.png" for i in range(50)]
  first, second = scan.by_digest(listed), scan.by_digest(listed, "salt")
  assert sorted(first) == sorted(second) == list(range(50))
  assert first != second


@pytest.mark.parametrize(
  ("path", "name"),
  [
    ("~/photos", "folder-photos"),
    ("/x/My photos (2)/", "folder-My-photos-2"),
    ("/x/labels.csv", "folder-labels"),
    ("/x/v1.5", "folder-v1.5"),
    ("/", "folder"),
  ],
)
def test_the_config_is_named_after_the_folder(path, name):
  config = folder_config.get_config(f"shots=5,path={path}")
  assert (config.name, config.dataset, config.data_path) == (name, "folder", path)


def test_real_flowers(shared):
  described = folder.describe(str(shared / "data" / "folders" / "flowers"), "final")
  assert described.class_names == ("daisy", "dandelion", "roses", "sunflowers", "tulips")
  assert np.bincount(described.train.labels).tolist() == [40] * 5
  assert np.bincount(described.test.labels).tolist() == [20] * 5
  assert (described.train.read_sizes() > 0).all()
  assert not described.fixed_size


def lay(root, folders):
  """Writes two empty files into each folder, which a reading of the layout never opens."""
  for name in folders.split():
    (root / name).mkdir(parents=True, exist_ok=True)
    for file in ("0.png", "1.jpg"):
      (root / name / file).touch()
  return str(root)


def labels_of_parts(found):
  parts = {}
  for entry in found.entries:
    parts.setdefault(entry.part, set()).add(entry.label)
  return {part: "".join(sorted(labels)) for part, labels in parts.items()}


@pytest.mark.parametrize(
  ("folders", "expected", "note"),
  [
    ("training_set/a training_set/b test_set/a", "train ab test a", "training_set as train"),
    ("seg_train/seg_train/a seg_train/seg_train/b seg_test/seg_test/a", "train ab test a", "seg_"),
    ("ILSVRC2012_img_train/a ILSVRC2012_img_val/a", "train a val a", "ILSVRC2012_img_val as val"),
    ("train-images/a train-images/b test_images/b", "train ab test b", "test_images as test"),
    ("my.set.train/a my.set.train/b my.set.dev/a", "train ab val a", "my.set.dev as val"),
    ("train2017/a train2017/b val2017/a test-dev2017/b", "train ab val a test b", "val2017"),
    ("trainset/a trainset/b testing_data/a", "train ab test a", "testing_data as test"),
    ("trainingSet/a trainingSet/b testSet/a", "train ab test a", "testSet as test"),
    ("Final_Training/Images/a Final_Training/Images/b Final_Test/Images/a", "train ab test a", "F"),
    ("train/a train/b my_test/a", "train ab test a", "my_test as test"),
    ("trainval/a trainval/b test/a", "train ab test a", ""),
    (
      "training/a training/b validation/a evaluation/b",
      "train ab val a test b",
      "evaluation as te",
    ),
    ("train/a train/b eval/a test/b", "train ab val a test b", ""),
    ("train/train/a train/train/b test/test/b", "train ab test b", "train/train as train"),
    ("train/train/a train/train/b train/test/b", "train ab test b", "the folder train is read"),
    ("x/y/train/a x/y/train/b x/y/test/b x/labels", "train ab test b", None),
    ("train/a/images train/b/images val/a/images", "train ab val a", "lie in its subfolder images"),
    ("data/2750/a data/2750/b", " ab", "the folder data/2750 is read"),
    ("a/images b/images", " ab", "lie in its subfolder images"),
    ("foo_train/a foo_train/b", " ab", "the folder foo_train is read"),
  ],
)
def test_layouts_that_are_read(tmp_path, folders, expected, note):
  if note is None:  # a folder without images beside
    folders, beside = folders.rsplit(" ", 1)
    (tmp_path / beside).mkdir(parents=True)
    (tmp_path / beside / "a.txt").touch()
  found = folder.find(lay(tmp_path, folders))
  assert (found.faults, found.warnings, found.empty) == ((), (), ())
  words = expected.split(" ")
  assert labels_of_parts(found) == dict(zip(words[::2], words[1::2], strict=True))
  assert (note or "") in " ".join(found.notes)


@pytest.mark.parametrize(
  "folders",
  [
    "train/train train/bus test/train test/bus",
    "train/test train/bus test/test test/bus",
    "train/test_tube train/bus test/test_tube",
    "val/val val/bus train/val train/bus",
  ],
)
def test_a_class_that_is_called_like_a_part(tmp_path, folders):
  found = folder.find(lay(tmp_path, folders))
  assert (found.faults, found.warnings) == ((), ())
  for entry in found.entries:
    assert entry.path.split("/")[:2] == [entry.part, entry.label]


@pytest.mark.parametrize(
  ("folders", "said"),
  [
    ("train test bus", "Read as classes, although named like parts of a data set: test, train."),
    ("train bus car", "Read as a class, although named like parts of a data set: train."),
    ("test_tube bullet_train", ""),
    ("training_shoes dev_board evaluation_board validator tests", ""),
  ],
)
def test_classes_whose_names_hold_a_part(tmp_path, folders, said):
  found = folder.find(lay(tmp_path, folders))
  assert found.faults == ()
  assert {(e.label, e.part) for e in found.entries} == {(name, "") for name in folders.split()}
  assert " ".join(found.notes + found.warnings) == said


@pytest.mark.parametrize(
  ("folders", "message"),
  [
    ("amazon/images/bag amazon/images/bike dslr/images/bag dslr/images/bike", "path={}/amazon,"),
    (
      "set/a set/b set/set/a set/set/b",
      "set/set lies beside the classes and holds folders of the same names (a, b)",
    ),
    ("x/Art/bag x/Art/bike x/Clipart/bag x/Clipart/bike", "path={}/x/Art,"),
    ("color/a color/b gray/a small/b", "color holds only folders (color/a, color/b)"),
    ("a_train/x a_train/y a_test/x b_train/x b_train/y b_test/x", "only folders (a_train/x,"),
    ("cat dog/old dog/young", "dog holds only folders (dog/old, dog/young)"),
    ("train/amazon/a train/amazon/b train/dslr/a train/dslr/b", "only folders (train/amazon/a"),
    ("train/train train/test", "train/test and train/train hold images but no class folders"),
    ("train/train test1/test1", "test1 and train hold images but no class folders"),
    ("cars_train/cars_train cars_test/cars_test", "cars_test and cars_train hold images but no"),
    ("seg_train seg_test", "seg_test and seg_train hold images but no class folders"),
    ("train/a/images train/b/images val/images test/images", "val and test hold images but no"),
    ("train/a train/b test/a wild/a", "beside them wild, with 2 images: move it out"),
    ("cat/train cat/test dog/train dog/test", "cat/test, cat/train, dog/test, dog/train are insid"),
    ("set set/a set/b", "if these are the classes, give path={}/set."),
    ("test_set/a test_set/b", "has a test part but no train part"),
  ],
)
def test_layouts_that_are_refused(tmp_path, folders, message):
  with pytest.raises(errors.UserError) as caught:
    folder.describe(lay(tmp_path, folders), "final")
  assert message.format(tmp_path) in str(caught.value)


@pytest.mark.parametrize(
  ("folders", "warning"),
  [
    ("a a/x a/y/z b", "Class a pools 2 subfolders (x, y/z)."),
    ("train/a train/a/x train/b", "Class a pools 1 subfolder in train (x)."),
    ("a b c/x c/y", "Class c pools 2 subfolders (x, y)."),
    ("a/x b/y", "Class a pools 1 subfolder (x). Class b pools 1 subfolder (y)."),
    ("a/x b/x c/x d/x e/x f/x g", "Class e pools 1 subfolder (x). 1 more class folder likewise."),
  ],
)
def test_what_is_pooled_is_said(tmp_path, folders, warning):
  (said,) = folder.find(lay(tmp_path, folders)).warnings
  assert said.endswith(warning)


def test_images_without_labels_beside_parts_are_left_out(tmp_path):
  folders = "seg_train/a seg_train/b seg_test/a seg_pred/seg_pred test-many"
  found = folder.find(lay(tmp_path, folders))
  assert found.faults == ()
  assert {p.rpartition("/")[0] for p in found.unclassified} == {"seg_pred/seg_pred", "test-many"}
  assert "seg_pred holds 2 images but no class folders: it is left out." in found.warnings
  assert {e.part for e in found.entries} == {"train", "test"}


HOUSEKEEPING = (
  "lost+found",
  "$RECYCLE.BIN",
  "RECYCLER",
  "System Volume Information",
  "__pycache__",
  ".ipynb_checkpoints",
  "@Recycle",
  "FOUND.000",
)


@pytest.mark.parametrize("layout", ["a b", "train/a train/b"])
@pytest.mark.parametrize("below", ["", "train/", "train/a/"])
def test_housekeeping_folders_are_left_whether_they_can_be_read_or_not(
  tmp_path, monkeypatch, layout, below
):
  path = lay(tmp_path, layout)
  before = folder.find(path)
  for name in HOUSEKEEPING:
    (tmp_path / below.replace("train/", "" if layout == "a b" else "train/") / name).mkdir()
  real = os.scandir

  def scandir(opened):
    if os.path.basename(opened) in HOUSEKEEPING:
      raise PermissionError(13, "Permission denied", opened)
    return real(opened)

  monkeypatch.setattr(os, "scandir", scandir)
  assert folder.find(path) == before


def test_another_folder_that_cannot_be_read_is_named(tmp_path, monkeypatch):
  path = lay(tmp_path, "a b c/secret")
  real = os.scandir

  def scandir(opened):
    if os.path.basename(opened) == "secret":
      raise PermissionError(13, "Permission denied", opened)
    return real(opened)

  monkeypatch.setattr(os, "scandir", scandir)
  with pytest.raises(errors.UserError, match=r"c/secret can't be read: Permission denied\. Make"):
    folder.find(path)


def test_a_link_to_itself_is_no_folder(tmp_path):
  path = lay(tmp_path, "a b")
  (tmp_path / "loop").symlink_to(tmp_path / "loop")
  found = folder.find(path)
  assert (found.empty, found.ignored, found.faults) == ((), ("loop",), ())


@pytest.mark.parametrize(
  ("path", "said"),
  [("set/a/test/x.png", "a/test is inside a class"), ("set/a/deep/Train/x.png", "a/deep/Train is")],
)
def test_a_data_set_that_is_taken_for_a_class_is_noticed(tmp_path, path, said):
  for name in (path, "set/a/y.png", "set/b/z.png"):
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(tmp_path / name)
  with pytest.raises(errors.UserError, match=said):
    folder.describe(str(tmp_path / "set"), "final")


def test_arguments_after_the_path_are_noticed(tmp_path):
  with pytest.raises(errors.UserError, match=r"shots=5,path=\.\.\."):
    folder.describe(f"{tmp_path},shots=5", "final")
