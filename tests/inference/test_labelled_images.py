"""Labelled images at a path or of a data set, with their labels as classes of a network."""

import dataclasses

import numpy as np
import pytest
from PIL import Image

from bit_jax.data import datasets, opening, pipeline
from bit_jax.inference import labelled_images
from bit_jax.runtime import errors
from bit_jax.weights import classes

CLASSES = ("ant", "bee fly", "cat")
SELECTION = datasets.Selection(8, 8)


def known(*names, **other_names):
  return labelled_images.Classes(names or CLASSES, other_names)


def picture(path, grey, size=(10, 12)):
  path.parent.mkdir(parents=True, exist_ok=True)
  Image.fromarray(np.full((*size, 3), grey, np.uint8)).save(path)


def at_path(path, part=None, names=None):
  data = labelled_images.AtPath(str(path), part, names or known())
  return data, pipeline.load_part(data, SELECTION)


def test_a_folder_needs_no_training_images_and_no_second_class(tmp_path):
  picture(tmp_path / "a/Bee_Fly/1.png", 7)
  (tmp_path / "a/empty").mkdir()
  data, loaded = at_path(tmp_path / "a")
  assert (data.part, loaded.paths) == (None, ["Bee_Fly/1.png"])
  assert (loaded.part.class_names, loaded.part.labels.tolist()) == (CLASSES, [1])
  assert (data.origin, loaded.left_out, loaded.warnings) == (None, {}, [])


def test_images_without_a_class_are_named(tmp_path):
  picture(tmp_path / "a/ant/1.png", 7)
  picture(tmp_path / "a/loose.png", 7)
  data, loaded = at_path(tmp_path / "a")
  assert data.origin == "Left out: 1 image outside the class folders (loose.png)."
  assert loaded.paths == ["ant/1.png"]


@pytest.mark.parametrize(
  ("parts", "wanted", "taken"),
  [
    (("train", "val", "test"), None, "test"),
    (("train", "val", "test"), "train", "train"),
    (("train", "val"), None, "val"),
    (("val",), "val", "val"),
  ],
)
def test_of_a_folder_with_parts_one_is_taken(tmp_path, parts, wanted, taken):
  for grey, part in enumerate(parts):
    for name in ("ant", "cat"):
      picture(tmp_path / "set" / part / name / "1.png", grey)
  data, loaded = at_path(tmp_path / "set", wanted)
  assert data.part == taken
  images, labels = loaded.part.some(np.arange(2))
  assert (images == parts.index(taken)).all()
  assert sorted(labels.tolist()) == [0, 2]
  missing = next(p for p in ("test", "x") if p not in parts)
  with pytest.raises(errors.UserError, match=f"has no {missing} part; it has the parts"):
    at_path(tmp_path / "set", missing)


def test_images_of_one_small_size_are_resized_on_the_devices(tmp_path):
  picture(tmp_path / "small/ant/1.png", 7, (4, 6))
  picture(tmp_path / "small/cat/1.png", 7, (4, 6))
  loaded = at_path(tmp_path / "small")[1]
  assert (loaded.part.size, loaded.image_size) == (None, (4, 6))
  picture(tmp_path / "small/cat/2.png", 7, (4, 5))
  loaded = at_path(tmp_path / "small")[1]
  assert (loaded.part.size, loaded.image_size) == (8, (8, 8))


def test_a_csv_lists_labels(tmp_path):
  picture(tmp_path / "x.png", 1)
  picture(tmp_path / "y.png", 2)
  (tmp_path / "list.csv").write_text("path,label,split\nx.png,CAT,train\ny.png,ant,test\n")
  data, loaded = at_path(tmp_path / "list.csv")
  assert (data.part, loaded.paths, loaded.part.labels.tolist()) == ("test", ["y.png"], [0])


def save(path, part, labels, **more):
  images = np.arange(len(labels), dtype=np.uint8)[:, None, None] * np.ones((1, 3, 3), np.uint8)
  np.savez(path, **{f"{part}_images": images, f"{part}_labels": np.array(labels)}, **more)


def test_an_npz_file_has_the_classes_that_occur(tmp_path):
  save(tmp_path / "a.npz", "val", [2, 0, 2], class_names=np.array(["cat", "unknown", "ant"]))
  data, loaded = at_path(tmp_path / "a.npz")
  assert (data.part, loaded.paths, loaded.image_size) == ("val", None, (3, 3))
  assert loaded.part.labels.tolist() == [0, 2, 0]
  images, _ = loaded.part.some(np.array([2]))
  assert images.shape == (1, 3, 3, 3)
  assert (images == 2).all()
  with pytest.raises(errors.UserError, match=r"has no test_images and no test_labels \(it has the"):
    at_path(tmp_path / "a.npz", "test")


def test_classes_of_an_npz_file_without_names_are_numbers(tmp_path):
  save(tmp_path / "a.npz", "test", [2_000_000_000, 1])
  with pytest.raises(errors.UserError, match="1\n  2000000000\n"):
    at_path(tmp_path / "a.npz")
  save(tmp_path / "a.npz", "test", [2, 1, 1])
  unnamed = classes.unnamed(3)
  names = labelled_images.Classes(unnamed, classes.other_names(unnamed))
  assert at_path(tmp_path / "a.npz", names=names)[1].part.labels.tolist() == [2, 1, 1]


def test_folders_may_go_by_other_names(tmp_path):
  picture(tmp_path / "a/n02123045/1.png", 7)
  names = known(*CLASSES, n02123045=2)
  assert at_path(tmp_path / "a", names=names)[1].part.labels.tolist() == [2]


@pytest.mark.parametrize(
  ("make", "message"),
  [
    (lambda p: None, "Folder or CSV file not found"),
    (lambda p: p.mkdir(), "has no class folders"),
    (lambda p: p.write_text(""), "neither a folder nor a CSV file"),
    (lambda p: picture(p / "zebra/1.png", 1), "zebra"),
    (lambda p: picture(p / "1.png", 1), "images"),
  ],
)
def test_what_cannot_be_evaluated_is_named(tmp_path, make, message):
  make(tmp_path / "set")
  with pytest.raises(errors.UserError, match=message):
    at_path(tmp_path / "set")


class Split:
  """A split as that of tfds: not in memory, with a quick way to read all of it."""

  class_names = ("cat", "Ant")

  def __len__(self):
    return 4

  def read(self, index):
    return np.full((8, 8, 3), index, np.uint8), index % 2

  def read_labels(self):
    return np.array([0, 1, 0, 1], np.int32)

  def read_sizes(self):
    return np.full((4, 2), 8)

  def fingerprint(self):
    return "split"

  def load(self, size):
    images = np.stack([self.read(i)[0] for i in range(4)])
    return labelled_images.arrays.Examples(images, self.read_labels(), self.class_names)


class TwoClasses(opening.Opened):
  """A data set with another order of classes."""

  def __init__(self):
    digits = datasets.find("digits", "final")
    self.spec = dataclasses.replace(digits, num_test=4, num_classes=2, num_train=4)

  def sources(self, *, test_only=False):
    return opening.Sources(Split(), Split(), "1.0", prepared=True)


@pytest.mark.parametrize("memory", [1e9, 0])
def test_a_data_set_gets_the_classes_of_the_network(memory):
  data = labelled_images.OfDataSet(TwoClasses(), known())
  loaded = pipeline.load_part(data, SELECTION, "test", memory)
  assert loaded.part.class_names == CLASSES
  assert (loaded.part.examples is None) == (memory == 0)
  images, labels = loaded.part.some(np.arange(4))
  assert labels.tolist() == [2, 0, 2, 0]
  assert images[:, 0, 0, 0].tolist() == [0, 1, 2, 3]
  assert data.sources().train.read_labels().tolist() == [2, 0, 2, 0]
  assert data.sources().train.fingerprint() != Split().fingerprint()


def test_the_same_classes_change_nothing():
  names = known(*Split.class_names)
  data = labelled_images.OfDataSet(TwoClasses(), names)
  assert isinstance(data.sources().test, Split)


def test_a_network_without_class_names_gets_those_of_the_data_set():
  data = labelled_images.OfDataSet(TwoClasses(), known(*classes.unnamed(2)))
  for _ in range(2):  # it says so once, however often it is read
    loaded = pipeline.load_part(data, SELECTION)
    assert loaded.part.class_names == Split.class_names
    assert [text for text in loaded.warnings if "doesn't state its classes" in text] == [
      f"The network doesn't state its classes. They are taken to be those of digits, in its order "
      f"({', '.join(Split.class_names)}): if they are others, or in another order, the accuracy is "
      f"meaningless."
    ]
  data = labelled_images.OfDataSet(TwoClasses(), known(*classes.unnamed(3)))
  with pytest.raises(errors.UserError, match="The network has 3 classes, which have no names"):
    data.sources()


def test_a_data_set_with_other_classes_is_an_error():
  data = labelled_images.OfDataSet(TwoClasses(), known("cat", "dog"))
  with pytest.raises(errors.UserError, match="Ant"):
    data.sources()
