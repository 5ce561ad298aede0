"""Images of a program become a file that a run reads: the same pixels, labels and classes."""

import csv
import pathlib

import numpy as np
import pytest
from PIL import Image

from bit_jax.data import datasets, opening
from bit_jax.data.sources import arrays, in_memory
from bit_jax.runtime import errors

IMAGES = np.random.default_rng(0).integers(0, 256, (20, 5, 4, 3), dtype=np.uint8)
LABELS = np.arange(20) % 2
NAMES = np.array(["cat", "dog"])[LABELS]


def opened(path, name="npz", **more):
  return opening.open_set(datasets.Request(name, path=str(path), **more)).sources()


@pytest.fixture
def photos(tmp_path):
  paths = [tmp_path / f"{i}.png" for i in range(20)]
  for path, image in zip(paths, IMAGES, strict=True):
    Image.fromarray(image).save(path)
  return paths


def test_arrays_with_a_test_part_come_back():
  path = in_memory.written((IMAGES, LABELS), (IMAGES[:6], LABELS[:6]), ["cat", "dog"])
  found = opened(path)
  np.testing.assert_array_equal(found.train.images, IMAGES)
  np.testing.assert_array_equal(found.test.images, IMAGES[:6])
  assert found.train.labels.tolist() == LABELS.tolist()
  assert found.test.labels.tolist() == LABELS[:6].tolist()
  assert found.train.class_names == ("cat", "dog")


def test_without_a_test_part_a_fifth_of_each_class_is_held_out():
  found = opened(in_memory.written((IMAGES, LABELS), None, None))
  assert np.bincount(found.train.labels).tolist() == [8, 8]
  assert np.bincount(found.test.labels).tolist() == [2, 2]
  together = {image.tobytes() for part in (found.train, found.test) for image in part.images}
  assert together == {image.tobytes() for image in IMAGES}


@pytest.mark.parametrize("labels", [NAMES, NAMES.tolist(), NAMES.astype(object)])
def test_labels_may_be_class_names(labels):
  found = opened(in_memory.written((IMAGES, labels), None, None))
  assert found.train.class_names == ("cat", "dog")
  pixels = {image.tobytes(): name for image, name in zip(IMAGES, NAMES.tolist(), strict=True)}
  for image, label in zip(found.train.images, found.train.labels, strict=True):
    assert found.train.class_names[label] == pixels[image.tobytes()]


def test_the_file_is_named_after_its_content():
  first = in_memory.written((IMAGES, LABELS), None, None)
  written = first.stat().st_mtime_ns, first.read_bytes()
  assert in_memory.written((list(IMAGES), LABELS.tolist()), None, None) == first
  pictures = [Image.fromarray(image) for image in IMAGES]
  assert in_memory.written((pictures, LABELS), None, None) == first
  assert (first.stat().st_mtime_ns, first.read_bytes()) == written
  assert in_memory.written((IMAGES + 1, LABELS), None, None) != first
  assert in_memory.written((IMAGES, 1 - LABELS), None, None) != first
  assert in_memory.written((IMAGES, LABELS), None, ["a", "b"]) != first


def test_grey_images_become_colour():
  found = opened(in_memory.written((IMAGES[..., 0], LABELS), (IMAGES[..., 0], LABELS), None))
  np.testing.assert_array_equal(found.train.images, np.repeat(IMAGES[..., :1], 3, axis=-1))


def test_paths_become_a_csv(photos, monkeypatch, tmp_path):
  monkeypatch.chdir(tmp_path)
  relative = [path.name for path in photos[:12]]
  path = in_memory.written((relative, NAMES[:12]), (photos[12:], NAMES[12:]), None)
  rows = list(csv.reader(path.read_text().splitlines()))
  assert rows[0] == ["path", "label", "split"]
  assert rows[1:] == [
    [str(photo), name, "train" if i < 12 else "test"]
    for i, (photo, name) in enumerate(zip(photos, NAMES, strict=True))
  ]
  found = opened(path, "folder")
  assert (len(found.train), len(found.test)) == (12, 8)
  image, label = found.test.read(0)
  place = [str(p) for p in photos].index(found.test.paths[0])
  np.testing.assert_array_equal(image, IMAGES[place])
  assert found.test.class_names[label] == NAMES[place]


def test_numbers_of_paths_become_class_names(photos):
  path = in_memory.written((photos, LABELS), None, ["wolf", "ant"])
  found = opened(path, "folder")
  assert found.train.class_names == ("ant", "wolf")  # sorted, as those of a folder
  assert {pathlib.Path(p).stem for p in found.train.paths} <= {str(i) for i in range(20)}
  for p, label in zip(found.train.paths, found.train.labels, strict=True):
    assert found.train.class_names[label] == ("wolf", "ant")[LABELS[int(pathlib.Path(p).stem)]]
  assert len(found.train) == 16  # a fifth is held out


def test_pixels_of_pillow_are_colour():
  grey = Image.fromarray(IMAGES[0, :, :, 0])
  np.testing.assert_array_equal(in_memory.pixels(grey), np.repeat(IMAGES[0, :, :, :1], 3, axis=-1))


WRONG = {
  "20 train images but 3 labels": ((IMAGES, LABELS[:3]), None, None),
  "4 test images but 20 labels": ((IMAGES, LABELS), (IMAGES[:4], LABELS), None),
  "train_images of .* float64; they must be": ((IMAGES / 255, LABELS), None, None),
  "channels first": ((IMAGES.transpose(0, 3, 1, 2), LABELS), None, None),
  "one-hot": ((IMAGES, np.eye(2)[LABELS]), None, None),
  "negative label": ((IMAGES, LABELS - 1), None, None),
  "no label 1: number the classes": ((IMAGES, 2 * LABELS), None, None),
  "only one class": ((IMAGES, 0 * LABELS), None, None),
  "the label 1 but only 1 class_names": ((IMAGES, LABELS), None, ["cat"]),
  "not class names: horse.* class names are cat, dog": (
    (IMAGES, NAMES),
    (IMAGES[:1], ["horse"]),
    None,
  ),
  "must have one size": (([IMAGES[0], IMAGES[1, :2]], [0, 1]), None, None),
  "all as arrays": ((["a.png", IMAGES[0]], [0, 1]), None, None),
  "Files not found: .*/nowhere.png": ((["nowhere.png"], ["a"]), None, None),
  "There are no train images": (([], []), None, None),
  "none can be held out": ((IMAGES[:2], [0, 1]), None, None),
  "pixels but test_images of": ((IMAGES, LABELS), (IMAGES[:, :2], LABELS), None),
}


@pytest.mark.parametrize("message", WRONG)
def test_wrong_images_and_labels(message):
  with pytest.raises(errors.UserError, match=message):
    in_memory.written(*WRONG[message])


@pytest.mark.parametrize("label", [1.0, 2, -1])
def test_wrong_labels_of_paths(photos, label):
  with pytest.raises(errors.UserError, match="label"):
    in_memory.written((photos, [label] * 20), None, ["cat", "dog"])


def test_no_cache_directory(no_home):
  with pytest.raises(errors.UserError, match=r"Set \$BIT_JAX_CACHE to a folder"):
    in_memory.written((IMAGES, LABELS), None, None)


def test_an_unwritable_cache_directory(tmp_path, monkeypatch):
  (tmp_path / "file").touch()
  monkeypatch.setenv("BIT_JAX_CACHE", str(tmp_path / "file"))
  with pytest.raises(errors.UserError, match="can't be written"):
    in_memory.written((IMAGES, LABELS), None, None)


def test_arrays_are_checked_as_a_file_is():
  held = {"train_images": IMAGES, "train_labels": LABELS, "test_images": IMAGES}
  with pytest.raises(errors.UserError, match="The data in memory has no test_labels"):
    arrays.require_usable(held)
