"""Tests of bit_jax.data.sources.folder."""

import hashlib
import os
import shutil
import sys

import image_files
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from bit_jax.configs import folder as folder_config
from bit_jax.data import images
from bit_jax.data.sources import folder
from bit_jax.runtime import errors


@pytest.fixture
def parts(tmp_path):
  return image_files.fill(tmp_path, {"train/b": 10, "train/a": 5, "test/a": 2, "test/b": 3})


class TestParts:
  def test_final_is_train_and_test(self, parts):
    described = folder.describe(parts, "final")
    assert described.class_names == ("a", "b")
    assert (len(described.train), len(described.test)) == (15, 5)
    assert (described.image_size, described.fixed_size) == ((6, 8), True)
    assert "left out" not in described.origin
    for listing, part in ((described.train, "train"), (described.test, "test")):
      assert listing.labels.dtype == np.int32
      expected = [f"{part}/{n}" for n in image_files.names(described, listing)]
      assert [p.rsplit("/", 1)[0] for p in listing.paths] == expected

  def test_classes_are_mixed_in_the_order_of_their_md5(self, parts):
    listed = folder.describe(parts, "final").train.paths
    assert list(listed) == sorted(listed, key=lambda p: hashlib.md5(p.encode()).digest())

  def test_select_holds_out_a_fifth_of_train(self, parts):
    final, select = (folder.describe(parts, p) for p in ("final", "select"))
    assert np.bincount(select.test.labels).tolist() == [1, 2]
    assert image_files.paths(select.train) | image_files.paths(select.test) == image_files.paths(
      final.train
    )
    assert not image_files.paths(select.train) & image_files.paths(select.test)
    assert "test" in select.origin

  @pytest.mark.parametrize("name", ["val", "Valid", "VALIDATION", "eval"])
  def test_three_parts(self, tmp_path, name):
    path = image_files.fill(
      tmp_path, {f"{p}/{c}": 4 for p in ("Training", name, "Testing") for c in "ab"}
    )
    final, select = (folder.describe(path, p) for p in ("final", "select"))
    assert {p.split("/")[0] for p in final.train.paths} == {"Training", name}
    assert {p.split("/")[0] for p in final.test.paths} == {"Testing"}
    assert {p.split("/")[0] for p in select.train.paths} == {"Training"}
    assert {p.split("/")[0] for p in select.test.paths} == {name}
    assert (len(select.train), len(select.test), len(final.train)) == (8, 8, 16)

  def test_val_is_the_test_set_where_there_is_none(self, tmp_path):
    path = image_files.fill(tmp_path, {"train/a": 5, "train/b": 5, "val/a": 2, "val/b": 2})
    final, select = (folder.describe(path, p) for p in ("final", "select"))
    assert {p.split("/")[0] for p in final.test.paths} == {"val"}
    assert {p.split("/")[0] for p in select.test.paths} == {"train"}
    assert (len(final.train), len(select.train), len(select.test)) == (10, 8, 2)

  def test_train_alone_is_split(self, tmp_path):
    described = folder.describe(image_files.fill(tmp_path, {"train/a": 10, "train/b": 5}), "final")
    assert np.bincount(described.test.labels).tolist() == [2, 1]
    assert described.origin.startswith("Only a train part")

  def test_classes_without_test_images_are_told(self, tmp_path):
    described = folder.describe(
      image_files.fill(tmp_path, {"train/a": 2, "train/b": 2, "test/b": 2}), "final"
    )
    assert described.class_names == ("a", "b")
    assert described.test.labels.tolist() == [1, 1]
    assert described.warnings == ("Classes without evaluated images: a.",)


class TestClasses:
  def test_a_fifth_of_each_class_is_held_out_twice(self, tmp_path):
    path = image_files.fill(tmp_path, {"a": 20, "b": 10, "c": 2, "d": 1})
    final, select = (folder.describe(path, p) for p in ("final", "select"))
    assert np.bincount(final.test.labels, minlength=4).tolist() == [4, 2, 1, 0]
    assert np.bincount(final.train.labels).tolist() == [16, 8, 1, 1]
    assert np.bincount(select.test.labels, minlength=4).tolist() == [3, 2, 0, 0]
    assert np.bincount(select.train.labels).tolist() == [13, 6, 1, 1]
    assert not image_files.paths(final.test) & (
      image_files.paths(select.test) | image_files.paths(select.train)
    )
    assert "80/20 split" in final.origin

  def test_the_split_is_recorded_once_and_for_all(self, tmp_path):
    # Golden: results on folders without parts depend on it.
    described = folder.describe(image_files.fill(tmp_path, {"a": 10, "b": 10}), "final")
    assert described.test.paths == ("b/0.png", "b/7.png", "a/7.png", "a/1.png")

  def test_the_split_does_not_depend_on_where_the_folder_lies(self, tmp_path):
    first = image_files.fill(tmp_path / "x", {"a": 10, "b": 10})
    shutil.copytree(first, tmp_path / "y")
    listings = [folder.describe(str(tmp_path / n), "final").test.paths for n in "xy"]
    assert listings[0] == listings[1]

  def test_added_images_move_few_others(self, tmp_path):
    path = image_files.fill(tmp_path, {"a": 50, "b": 50})
    before = image_files.paths(folder.describe(path, "final").test)
    image_files.fill(tmp_path, {"c": 50})
    image_files.put(tmp_path / "a" / "new.png")
    after = image_files.paths(folder.describe(path, "final").test)
    assert len(before - after) <= 1
    assert {p for p in after - before if not p.startswith("c/")} <= {"a/new.png"}

  def test_subfolders_count_to_their_class(self, tmp_path):
    path = image_files.fill(tmp_path, {"a/x/y": 3, "a": 2, "b/z": 5})
    described = folder.describe(path, "final")
    assert described.class_names == ("a", "b")
    every = [*described.train.labels, *described.test.labels]
    assert np.bincount(every).tolist() == [5, 5]

  @pytest.mark.parametrize("extension", [".JPG", ".jpeg", ".Png", ".bmp", ".gif", ".webp"])
  def test_extensions_in_any_case(self, tmp_path, extension):
    path = image_files.fill(tmp_path, {"a": 2, "b": 2}, extension)
    assert len(folder.describe(path, "final").train) == 2

  def test_other_files_are_told_and_hidden_ones_ignored(self, tmp_path):
    path = image_files.fill(tmp_path, {"a": 2, "b": 2, ".git/c": 3, "__MACOSX/a": 3})
    for name in ("README.md", "a/Thumbs.db", "b/._0.png", "a/.DS_Store", "b/x.tif"):
      (tmp_path / name).write_text("x")
    described = folder.describe(path, "final")
    assert "3 files of unknown type (README.md, a/Thumbs.db, b/x.tif)" in described.origin
    assert len(described.train) + len(described.test) == 4
    assert described.class_names == ("a", "b")

  def test_images_in_no_class_are_told(self, tmp_path):
    path = image_files.fill(tmp_path, {"a": 2, "b": 2})
    image_files.put(tmp_path / "cover.png")
    described = folder.describe(path, "final")
    assert "1 image outside the class folders (cover.png)" in described.origin
    assert len(described.train) + len(described.test) == 4

  def test_links_are_followed_and_circles_left(self, tmp_path):
    path = image_files.fill(tmp_path / "set", {"a": 2})
    image_files.fill(tmp_path / "elsewhere", {"": 3})
    (tmp_path / "set" / "b").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "set" / "a" / "again").symlink_to(tmp_path / "set")
    (tmp_path / "set" / "a" / "link.png").symlink_to(tmp_path / "elsewhere" / "2.png")
    described = folder.describe(path, "final")
    every = image_files.paths(described.train) | image_files.paths(described.test)
    assert {"b/0.png", "b/1.png", "b/2.png", "a/link.png"} <= every
    assert not any("again/a" in p for p in every)

  def test_a_class_may_be_called_train(self, tmp_path):
    described = folder.describe(image_files.fill(tmp_path, {"train": 3, "bus": 3}), "final")
    assert described.class_names == ("bus", "train")

  def test_names_with_spaces_and_letters_of_any_language(self, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    image_files.fill(tmp_path / "my photos", {"Löwe, groß": 3, "猫": 3})
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
    described = folder.describe(image_files.fill(tmp_path, dict.fromkeys(names, 2)), "final")
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
    path = image_files.fill(tmp_path, {"a": 2, name: 2})
    with pytest.raises(errors.UserError, match=r"1 class name in .* can't be printed") as caught:
      folder.describe(path, "final")
    assert repr(name) in str(caught.value)
    assert advice in str(caught.value)
    str(caught.value).encode()

  def test_names_that_the_locale_cannot_hold_ask_for_utf8(self, tmp_path, monkeypatch):
    path = image_files.fill(tmp_path, {"a": 2, os.fsdecode(b"caf\xc3"): 2})
    monkeypatch.setattr(sys, "getfilesystemencoding", lambda: "ascii")
    with pytest.raises(errors.UserError, match=r"can't be printed, .*: set PYTHONUTF8=1"):
      folder.describe(path, "final")

  @pytest.mark.parametrize(
    "names", [("cat", "cat "), ("e\u0301", "\u00e9"), ("a b", "a  b"), ("ab", "a\u200bb")]
  )
  def test_names_that_look_the_same_are_refused(self, tmp_path, names):
    path = image_files.fill(tmp_path, {f"train/{names[0]}": 2, "train/x": 2, f"test/{names[1]}": 2})
    with pytest.raises(errors.UserError, match=r"class names . and ., .* look the same") as caught:
      folder.describe(path, "final")
    assert all(repr(name) in str(caught.value) for name in names)

  def test_names_may_hold_spaces_and_joiners_of_any_script(self, tmp_path):
    names = {"caf\u00a0noir", "\u0645\u06cc\u200c\u0631\u0648\u062f"}
    described = folder.describe(image_files.fill(tmp_path, dict.fromkeys(names, 2)), "final")
    assert set(described.class_names) == names

  def test_sizes(self, tmp_path):
    for i, (height, width) in enumerate([(10, 90), (20, 50), (300, 60)]):
      image_files.put(tmp_path / "a" / f"{i}.png", height, width)
    image_files.fill(tmp_path, {"b": 1})
    described = folder.describe(str(tmp_path), "final")
    assert described.image_size == (15, 55)
    assert not described.fixed_size

  def test_unreadable_images_stay_listed(self, tmp_path):
    path = image_files.fill(tmp_path, {"train/a": 3, "train/b": 3, "test/a": 1})
    (tmp_path / "train" / "a" / "1.png").write_text("no image")
    (tmp_path / "test" / "a" / "0.png").write_bytes(b"")
    described = folder.describe(path, "final")
    assert (len(described.train), len(described.test)) == (6, 1)
    assert described.image_size == (6, 8)
    unknown = {
      files.paths[i]
      for files in (described.train, described.test)
      for i, (height, _) in enumerate(files.read_sizes())
      if height < 0
    }
    assert unknown == {"train/a/1.png", "test/a/0.png"}

  def test_a_link_to_nowhere_is_an_unreadable_image(self, tmp_path):
    path = image_files.fill(tmp_path, {"train/a": 3, "train/b": 3, "test/a": 1})
    (tmp_path / "train/b/gone.png").symlink_to(tmp_path / "nowhere.png")
    described = folder.describe(path, "final")
    assert (len(described.train), described.image_size) == (7, (6, 8))
    files = described.train
    index = described.train.paths.index("train/b/gone.png")
    assert files.read_sizes()[index].tolist() == [-1, -1]
    with pytest.raises(images.Unreadable, match=r"The image .*train/b/gone\.png"):
      files.read(index)
    before = files.fingerprint()
    image_files.put(tmp_path / "nowhere.png")
    files = folder.describe(path, "final").train
    assert files.fingerprint() != before
    assert files.read_sizes()[index].tolist() == [6, 8]
    assert files.read(index)[0].shape == (6, 8, 3)


@pytest.mark.parametrize(
  ("counts", "message"),
  [
    ({}, "no class folders"),
    ({"": 3}, "no class folders"),
    ({"a": 3}, "All images in .* belong to one class: a"),
    ({"a": 3, "b": 0, "c": 3, "d": 0}, "without images in .*: b, d"),
    ({"a": 0, "b": 0}, r"without images in .*: a, b\. .* \.bmp, .*\.webp\."),
    ({"a": 1, "b": 1}, "No class in .* has 2 images"),
    ({"train/a": 1, "train/b": 1}, "No class in .* has 2 images"),
    ({"train": 3, "test": 3}, "test and train have images but no class folders"),
    ({"train/a": 3, "train/b": 3, "test": 3}, "test has images but no class folders"),
    ({"train/a": 3, "train/b": 3, "test": 0}, "without images in .*: test"),
    ({"train/a": 3, "train/b": 3, "test/a": 0}, "without images in .*: test/a"),
    ({"train/a": 3, "train/b": 3, "test/c": 3, "test/d": 1}, "lacks 2 classes .*: c, d"),
    ({"train/a": 3, "test/a": 3}, "one class: a"),
    ({"test/a": 3, "test/b": 3}, "test part but no train"),
    ({"train/a": 3, "train/b": 3, "extra": 3}, "extra, with 3 images"),
    (
      {"train/a": 3, "train/b": 3, "val/a": 1, "valid/a": 1},
      "val and valid, names of the same part",
    ),
  ],
)
def test_mistakes_in_folders(tmp_path, counts, message):
  with pytest.raises(errors.UserError, match=message):
    folder.describe(image_files.fill(tmp_path, counts), "final")


def test_select_needs_two_images_of_a_class(tmp_path):
  path = image_files.fill(tmp_path, {"a": 2, "b": 2})
  assert len(folder.describe(path, "final").train) == 2
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
    with pytest.raises(images.Unreadable, match=rf"The image .*{name} is truncated"):
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
    image_files.fill(tmp_path, {"a": 4})
    rows = "a/0.png,x\na/1.png,y\na/2.png,{}\na/3.png,y\n"
    found = []
    for label in "xy":
      text = "path,label,split\n" + "\n".join(
        r + (",train" if i < 3 else ",test") for i, r in enumerate(rows.format(label).split())
      )
      described = folder.describe(image_files.write(tmp_path, text), "final")
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
    image_files.put(copy / "train" / "a" / "0.png", width=90)
    assert of(copy)[0] != identity


def test_changed_files_are_read_again(tmp_path):
  path = image_files.fill(tmp_path, {"a": 2, "b": 2})
  assert folder.describe(path, "final").image_size == (6, 8)
  for name in ("a/0", "a/1", "b/0"):
    image_files.put(tmp_path / f"{name}.png", 60, 80)
  assert folder.describe(path, "final").image_size == (60, 80)


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


def test_arguments_after_the_path_are_noticed(tmp_path):
  with pytest.raises(errors.UserError, match=r"shots=5,path=\.\.\."):
    folder.describe(f"{tmp_path},shots=5", "final")
