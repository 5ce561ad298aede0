"""Tests of bit_jax.data.sources.layouts and bit_jax.data.sources.tree."""

import os

import numpy as np
import pytest
from PIL import Image

from bit_jax.data.sources import folder
from bit_jax.runtime import errors


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
    ("train/a/images train/b/images val/a/images", "train ab val a", "in its subfolder images"),
    ("data/2750/a data/2750/b", " ab", "the folder data/2750 is read"),
    ("a/images b/images", " ab", "in its subfolder images"),
    ("foo_train/a foo_train/b", " ab", "the folder foo_train is read"),
  ],
)
def test_layouts_that_are_read(tmp_path, folders, expected, note):
  if note is None:  # a folder without images beside
    folders, beside = folders.rsplit(" ", 1)
    (tmp_path / beside).mkdir(parents=True)
    (tmp_path / beside / "a.txt").touch()
  found = folder.find(lay(tmp_path, folders))
  assert (found.faults, found.warnings, found.empty) == ([], [], [])
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
  assert (found.faults, found.warnings) == ([], [])
  for entry in found.entries:
    assert entry.path.split("/")[:2] == [entry.part, entry.label]


@pytest.mark.parametrize(
  ("folders", "said"),
  [
    ("train test bus", "Read as classes, despite the name of a part: test, train."),
    ("train bus car", "Read as a class, despite the name of a part: train."),
    ("test_tube bullet_train", ""),
    ("training_shoes dev_board evaluation_board validator tests", ""),
  ],
)
def test_classes_whose_names_hold_a_part(tmp_path, folders, said):
  found = folder.find(lay(tmp_path, folders))
  assert found.faults == []
  assert {(e.label, e.part) for e in found.entries} == {(name, "") for name in folders.split()}
  assert " ".join(found.notes + found.warnings) == said


@pytest.mark.parametrize(
  ("folders", "message"),
  [
    ("amazon/images/bag amazon/images/bike dslr/images/bag dslr/images/bike", "path={}/amazon,"),
    (
      "set/a set/b set/set/a set/set/b",
      "set/set is next to the classes and has folders of the same names (a, b)",
    ),
    ("x/Art/bag x/Art/bike x/Clipart/bag x/Clipart/bike", "path={}/x/Art,"),
    ("color/a color/b gray/a small/b", "color has only folders (color/a, color/b)"),
    ("a_train/x a_train/y a_test/x b_train/x b_train/y b_test/x", "only folders (a_train/x,"),
    ("cat dog/old dog/young", "dog has only folders (dog/old, dog/young)"),
    ("train/amazon/a train/amazon/b train/dslr/a train/dslr/b", "only folders (train/amazon/a"),
    ("train/train train/test", "train/test and train/train have images but no class folders"),
    ("train/train test1/test1", "test1 and train have images but no class folders"),
    ("cars_train/cars_train cars_test/cars_test", "cars_test and cars_train have images but no"),
    ("seg_train seg_test", "seg_test and seg_train have images but no class folders"),
    ("train/a/images train/b/images val/images test/images", "val and test have images but no"),
    ("train/a train/b test/a wild/a", "another folder, wild, with 2 images: move it out"),
    ("cat/train cat/test dog/train dog/test", "cat/test, cat/train, dog/test, dog/train are insid"),
    ("set set/a set/b", "the classes, use path={}/set."),
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
    ("a a/x a/y/z b", "Class a combines 2 subfolders (x, y/z)."),
    ("train/a train/a/x train/b", "Class a combines 1 subfolder in train (x)."),
    ("a b c/x c/y", "Class c combines 2 subfolders (x, y)."),
    ("a/x b/y", "Class a combines 1 subfolder (x). Class b combines 1 subfolder (y)."),
    ("a/x b/x c/x d/x e/x f/x g", "Class e combines 1 subfolder (x). The same for 1 more class."),
  ],
)
def test_what_is_pooled_is_said(tmp_path, folders, warning):
  (said,) = folder.find(lay(tmp_path, folders)).warnings
  assert said.endswith(warning)


def test_images_without_labels_beside_parts_are_left_out(tmp_path):
  folders = "seg_train/a seg_train/b seg_test/a seg_pred/seg_pred test-many"
  found = folder.find(lay(tmp_path, folders))
  assert found.faults == []
  assert {p.rpartition("/")[0] for p in found.unclassified} == {"seg_pred/seg_pred", "test-many"}
  assert "seg_pred has 2 images but no class folders: it is left out." in found.warnings
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
  assert (found.empty, found.ignored, found.faults) == ([], ["loop"], [])


def test_a_pipe_is_no_image_whatever_its_name(tmp_path):
  """Reading it would wait for ever."""
  path = lay(tmp_path, "a b")
  os.mkfifo(tmp_path / "a" / "pipe.png")
  (tmp_path / "b" / "link.png").symlink_to(tmp_path / "a" / "pipe.png")
  (tmp_path / "b" / "gone.png").symlink_to(tmp_path / "nowhere.png")
  found = folder.find(path)
  assert found.ignored == ["a/pipe.png", "b/link.png"]
  assert "b/gone.png" in [e.path for e in found.entries]  # it is reported as unreadable
  assert "Left out: 2 files of unknown type (a/pipe.png, b/link.png)." in folder.left_out(found)


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
