"""Tests of bit_jax.data.sources.csv_list, through the folder that it describes."""

import os
import re

import image_files
import numpy as np
import pytest

from bit_jax.data.sources import folder
from bit_jax.runtime import errors

ROWS = "a/0.png,a\na/1.png,a\nb/0.png,b\nb/1.png,b\n"


@pytest.fixture(autouse=True)
def _images(tmp_path):
  image_files.fill(tmp_path, {"a": 3, "b": 3})


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
def test_forms(tmp_path, text):
  described = folder.describe(image_files.write(tmp_path, text), "final")
  assert described.class_names == ("a", "b")
  assert image_files.paths(described.train) | image_files.paths(described.test) == {
    f"{c}/{i}.png" for c in "ab" for i in (0, 1)
  }
  assert np.bincount(described.test.labels).tolist() == [1, 1]
  assert [p[0] for p in described.train.paths] == image_files.names(described, described.train)


@pytest.mark.parametrize("header", ["", "path,label,split\n"])
def test_splits(tmp_path, header):
  rows = "a/0.png,x y,train\nb/0.png,z,Training\na/1.png,x y,test\nb/1.png,z,val\n"
  described = folder.describe(image_files.write(tmp_path, header + rows), "final")
  assert described.test.paths == ("a/1.png",)
  assert image_files.paths(described.train) == {"a/0.png", "b/0.png", "b/1.png"}
  assert folder.describe(str(tmp_path / "list.csv"), "select").test.paths == ("b/1.png",)


def test_names_that_begin_with_a_tilde(tmp_path, monkeypatch):
  for name in ("~b.png", "~no-such-user/x.png", "~a/1.png", "~a/2.png"):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    image_files.put(tmp_path / name)
  (tmp_path / "home").mkdir()
  image_files.put(tmp_path / "home" / "h.png")
  monkeypatch.setenv("HOME", str(tmp_path / "home"))
  rows = "~b.png,a,train\n~no-such-user/x.png,b,train\n~/h.png,a,train\n~a/1.png,a,test\n"
  described = folder.describe(image_files.write(tmp_path, rows + "~a/2.png,b,test\n"), "final")
  assert image_files.paths(described.train) == {"~b.png", "~no-such-user/x.png", "home/h.png"}
  assert image_files.paths(described.test) == {"~a/1.png", "~a/2.png"}


def test_absolute_paths(tmp_path):
  inside, outside = tmp_path / "sub", tmp_path / "a" / "0.png"
  image_files.fill(inside, {"b": 3})
  rows = f"{outside},a\n../a/1.png,a\n{inside}/b/0.png,b\nb/1.png,b\n"
  described = folder.describe(image_files.write(inside, rows), "final")
  listed = image_files.paths(described.train) | image_files.paths(described.test)
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
    ("path,label,split\na/0.png,a,train\nb/0.png,b,\n", "Line 3 .* no split"),
    ("a/0.png,a\na/1.png,a\n", "All images in .* belong to one class: a"),
  ],
)
def test_mistakes(tmp_path, text, message):
  with pytest.raises(errors.UserError, match=message):
    folder.describe(image_files.write(tmp_path, text), "final")


PARTS = ("train", "train", "test") * 2


def table(tmp_path, columns, name="list.csv", delimiter=","):
  """Describes a CSV of a/0.png to b/2.png with their labels and further columns."""
  listed = [(f"{c}/{i}.png", c) for c in "ab" for i in range(3)]
  rows = [("path", "label", *columns)]
  rows += [(*row, *more) for row, *more in zip(listed, *columns.values(), strict=True)]
  text = "\n".join(delimiter.join(row) for row in rows)
  return folder.describe(image_files.write(tmp_path, text, name), "final")


@pytest.mark.parametrize(
  "name",
  ["set", "Subset", "partition", "part", "fold", "Usage", "phase", "mode", "train_test", "foo"],
)
def test_a_column_whose_values_all_name_parts_is_the_split(tmp_path, name):
  described = table(tmp_path, {name: ("Train", "TRAINING", "test") * 2})
  assert image_files.paths(described.test) == {"a/2.png", "b/2.png"}
  assert f"Split column: {name}." in described.origin
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
def test_a_column_that_may_be_a_split_is_warned_of(tmp_path, name, values):
  described = table(tmp_path, {name: (values * 6)[:6]})
  (warning,) = described.warnings
  assert warning.startswith(f"The column {name} of list.csv may be a split but is not used")
  assert ", ".join(sorted(values)) in warning
  assert np.bincount(described.test.labels).tolist() == [1, 1]


@pytest.mark.parametrize(
  ("name", "values", "test", "warning"),
  [
    (
      "is_train",
      "110110",
      {"a/2.png", "b/2.png"},
      "true means train, false means test",
    ),
    (
      "IsTest",
      "FFTFFT",
      {"a/2.png", "b/2.png"},
      "true means test, false means train",
    ),
    (
      "is_valid",
      "NYNNYN",
      {"a/1.png", "b/1.png"},
      "true means val, false means train",
    ),
  ],
)
def test_a_column_of_true_and_false(tmp_path, name, values, test, warning):
  described = table(tmp_path, {name: tuple(values)})
  assert image_files.paths(described.test) == test
  assert warning in described.warnings[0]


def test_of_two_splits_the_one_of_that_name_is_used(tmp_path):
  other = ("test", "train", "train") * 2
  described = table(tmp_path, {"set": other, "Split": PARTS, "phase": PARTS})
  assert image_files.paths(described.test) == {"a/2.png", "b/2.png"}
  (warning,) = described.warnings
  assert re.search("column set of list.csv .* than Split, which is used", warning)
  assert table(tmp_path, {"set": PARTS, "phase": PARTS}).warnings == ()


def test_eval_beside_val_is_the_test_set(tmp_path):
  described = table(tmp_path, {"split": ("train", "dev", "eval") * 2})
  assert image_files.paths(described.test) == {"a/2.png", "b/2.png"}
  assert image_files.paths(table(tmp_path, {"set": ("train", "eval", "test") * 2}).test) == {
    "a/2.png",
    "b/2.png",
  }


def test_a_word_of_a_part_among_others_is_no_split(tmp_path):
  described = table(tmp_path, {"vehicle": ("train", "bus", "bus") * 2})
  assert described.warnings == ()
  assert "80/20 split" in described.origin


@pytest.mark.parametrize(
  ("columns", "message"),
  [
    (
      {"Usage": ("Training", "PublicTest", "test") * 2},
      r"Line 3 .* 'PublicTest' \(column Usage\)",
    ),
    ({"set": PARTS, "phase": ("train", "test", "test") * 2}, "set, phase of .* different splits"),
    (
      {"is_train": tuple("110110"), "is_test": tuple("001001")},
      "is_train, is_test of .* one part",
    ),
    ({"set": ("train", "", "test") * 2}, "Line 3 .* no split"),
  ],
)
def test_splits_that_contradict(tmp_path, columns, message):
  with pytest.raises(errors.UserError, match=message):
    table(tmp_path, columns)


def test_folders_of_parts_in_the_paths_are_warned_of(tmp_path):
  image_files.fill(tmp_path, {f"{p}/{c}": 2 for p in ("train", "test") for c in "ab"})
  listed = [(f"{p}/{c}/{i}.png", c) for p in ("train", "test") for c in "ab" for i in range(2)]
  text = "\n".join(",".join(row) for row in listed)
  (warning,) = folder.describe(image_files.write(tmp_path, text), "final").warnings
  assert "in folders of parts (test, train)" in warning


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
def test_delimiters_and_names_of_columns(tmp_path, name, text, classes):
  described = folder.describe(image_files.write(tmp_path, text, name), "final")
  assert described.class_names == classes
  assert {"a/0.png", "b/0.png"} < image_files.paths(described.train) | image_files.paths(
    described.test
  )


def test_several_columns_of_labels_are_a_mistake(tmp_path):
  path = image_files.write(tmp_path, "filepath,species,category\na/0.png,x,y\nb/0.png,z,y\n")
  with pytest.raises(
    errors.UserError, match=r"\(species, category\): rename the right one to label"
  ):
    folder.describe(path, "final")


def test_beside_a_column_called_label_another_is_not_used(tmp_path):
  path = image_files.write(tmp_path, "path,label,class\na/0.png,x,y\nb/0.png,z,y\n")
  found = folder.find(path)
  assert {e.label for e in found.entries} == {"x", "z"}
  assert found.notes == ["Label column: label; class is not used."]


@pytest.mark.parametrize("label", ["NA", "nan", "#N/A"])
def test_labels_that_stand_for_missing_ones_are_warned_of(tmp_path, label):
  path = image_files.write(tmp_path, f"path,label\na/0.png,{label}\na/1.png,x\nb/0.png,x\n")
  (warning,) = folder.find(path).warnings
  assert f"The label {label} in " in warning
  assert "is read as a class" in warning


def test_labels_that_differ_in_case_are_warned_of(tmp_path):
  path = image_files.write(tmp_path, "path,label\na/0.png,Cat\na/1.png,cat\nb/0.png,a\nb/1.png,A\n")
  (warning,) = folder.find(path).warnings
  assert warning.endswith("differ only in upper and lower case: Cat, cat.")


def test_values_without_a_column_are_refused(tmp_path):
  path = image_files.write(tmp_path, "path,label\na/0.png,big cat,\na/1.png,cat, big\n")
  with pytest.raises(errors.UserError, match=r"Line 3 .* has 3 values, .* 2 columns: quote"):
    folder.find(path)


@pytest.mark.parametrize("url", ["https://x.org/0.png", "gs://bucket/0.png"])
def test_urls_are_no_paths(tmp_path, url):
  with pytest.raises(errors.UserError, match=f"Line 2 of .*: {url} can't be .* gcsfuse or s3fs"):
    folder.find(image_files.write(tmp_path, f"path,label\n{url},x\n"))


def test_another_encoding_is_named(tmp_path):
  path = image_files.write(tmp_path, "a/0.png,Löwe\n", encoding="latin-1")
  with pytest.raises(errors.UserError, match="UTF-8"):
    folder.describe(path, "final")


def test_endless_columns_are_refused_at_once(tmp_path):
  wide = ",".join(map(str, range(10_001)))
  for text in (f"path,label,{wide}\n{ROWS}", f"path,label\na/0.png,a\na/1.png,a,{wide}"):
    with pytest.raises(errors.UserError, match=r"line [13] has 10,003 columns, over 10,000\.$"):
      folder.describe(image_files.write(tmp_path, text), "final")


def test_an_endless_row_is_cut_in_the_message(tmp_path):
  with pytest.raises(errors.UserError, match="its first row is 'xxx") as e:
    folder.describe(image_files.write(tmp_path, "x" * 10_000 + ",y\n"), "final")
  assert len(str(e.value)) < 1000


@pytest.mark.parametrize("path", ["a\0.png", "~\0/a.png", "\0"])
def test_a_path_with_a_null_character(tmp_path, path):
  with pytest.raises(errors.UserError, match=r"^Line 5 of .* has a path with a null character"):
    folder.describe(image_files.write(tmp_path, f"{ROWS}{path},a\n"), "final")
