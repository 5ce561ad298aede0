"""Images in two parts, and other data whose accuracy says too little: warnings with numbers."""

import numpy as np
import pytest
import resolving
from PIL import Image

from bit_jax.configs import folder, npz, quickstart
from bit_jax.data import headers, overlap
from bit_jax.data.sources import arrays as sources

SO = "the accuracy is higher than on new images."


def warnings(path, arguments="", **changes):
  """Returns the warnings of the data that a run loads."""
  config = npz if str(path).endswith(".npz") else folder
  request = config.get_config(f"{arguments}path={path}")
  request.update({"resize": 12, "crop": 8, "batch_size": 4, **changes})
  return resolving.load(request).warnings


@pytest.fixture
def arrays():
  """60 images to train on, 20 to choose on and 30 to evaluate, of three classes; all differ."""
  random = np.random.default_rng(3)
  found = {}
  for part, count in (("train", 60), ("val", 20), ("test", 30)):
    found[f"{part}_images"] = random.integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)
    found[f"{part}_labels"] = np.arange(count) % 3
  return found


@pytest.fixture
def save(tmp_path):
  def written(held):
    np.savez(tmp_path / "set.npz", **held)
    return tmp_path / "set.npz"

  return written


def test_arrays_without_common_images_are_silent(arrays, save):
  arrays["test_images"][0] = arrays["train_images"][0]
  arrays["test_images"][0, 0, 0, 0] ^= 1  # one pixel is another
  assert warnings(save(arrays)) == []
  assert resolving.load(quickstart.get_config()).warnings == []


def test_common_images_of_arrays_are_counted(arrays, save):
  arrays["test_images"][[2, 5, 29]] = arrays["train_images"][
    [11, 17, 18]
  ]  # 29 is of class 2, not 0
  arrays["test_images"][6] = arrays["train_images"][18]
  expected = "4 of 30 test images are also among the training images"
  assert warnings(save(arrays)) == [f"{expected}, 1 of them with another label there: {SO}"]
  arrays["test_images"] = np.asfortranarray(arrays["test_images"])  # another order in memory
  assert warnings(save(arrays)) == [f"{expected}, 1 of them with another label there: {SO}"]


def test_an_evaluation_on_the_training_images_says_so(arrays, save):
  for kind in ("images", "labels"):
    arrays[f"test_{kind}"] = arrays[f"train_{kind}"]
  expected = "All 60 test images are also among the training images: the accuracy says nothing"
  assert warnings(save(arrays)) == [f"{expected} about new images."]


def test_copies_within_a_part_are_harmless(arrays, save):
  for part in ("train", "test"):
    arrays[f"{part}_images"][:9] = arrays[f"{part}_images"][9]
  assert warnings(save(arrays)) == []


def test_only_images_that_are_used_count(arrays, save):
  arrays["test_images"][:15] = arrays["train_images"][:15]
  path = save(arrays)
  assert warnings(path)[0].startswith("15 of 30 test images")
  (text,) = warnings(path, "shots=15,")  # 45 of 60
  few = int(text.split()[0])
  chosen = resolving.load(npz.get_config(f"shots=15,path={path}")).chosen
  assert few == np.sum(chosen < 15) < 15
  assert warnings(path, "protocol=select,") == []  # val is evaluated


def test_a_validation_part_is_compared_with_both(arrays, save):
  arrays["val_images"][:3] = arrays["train_images"][:3]
  arrays["val_images"][10:12] = arrays["test_images"][10:12]
  path = save(arrays)
  assert warnings(path) == []  # it isn't used
  assert warnings(path, keep_best=True) == [
    "3 of 20 validation images are also among the training images: weights are chosen on images "
    "that the network is trained on.",
    "2 of 20 validation images are also among the test images: weights are chosen on images whose "
    "accuracy is reported.",
  ]


@pytest.fixture
def files(tmp_path):
  """12 files to train on and 6 to evaluate, of two classes, uncompressed: all of one length."""
  random, root = np.random.default_rng(4), tmp_path / "set"
  for part, count in (("train", 6), ("test", 3)):
    for name in ("ant", "bee"):
      (root / part / name).mkdir(parents=True)
      for i in range(count):
        pixels = random.integers(0, 256, (80, 80, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / part / name / f"{i}.bmp")
  return root


def test_files_of_equal_content_are_found_under_other_names(files):
  train, test = files / "train", files / "test"
  (test / "ant" / "0.bmp").write_bytes((train / "ant" / "4.bmp").read_bytes())
  almost = bytearray((train / "ant" / "5.bmp").read_bytes())
  almost[3_500] ^= 1  # as long, and between the bytes that are looked at: it has the same mark
  (test / "ant" / "1.bmp").write_bytes(almost)
  Image.open(train / "bee" / "0.bmp").save(test / "bee" / "1.png")  # the same pixels, other bytes
  (text,) = warnings(files)
  assert text == (
    "1 of 7 test images are also among the training images (such as test/ant/0.bmp, which is "
    f"train/ant/4.bmp): {SO}"
  )
  marks = headers.read_all(files, ["train/ant/5.bmp", "test/ant/1.bmp", "train/ant/4.bmp"]).marks
  assert marks[0] == marks[1] != marks[2]


def test_an_empty_part_has_no_copies(arrays):
  images = sources.Examples(arrays["val_images"], arrays["val_labels"], ("0", "1", "2"))
  some, none = (overlap.Part(images, np.arange(n)) for n in (20, 0))
  assert len(overlap.copies(some, some)) == 20
  for pair in ((some, none), (none, some), (none, none)):
    assert overlap.copies(*pair) == {}


def test_a_link_is_a_copy_and_another_label_a_contradiction(files):
  (files / "test" / "bee" / "link.bmp").symlink_to(files / "train" / "ant" / "2.bmp")
  (text,) = warnings(files)
  assert text.startswith("1 of 7 test images are also among the training images (such as test/bee/")
  assert text.endswith(f"train/ant/2.bmp), 1 of them with another label there: {SO}")


def test_files_of_a_csv_are_compared(files, tmp_path):
  paths = sorted(p.relative_to(tmp_path).as_posix() for p in files.glob("train/*/*"))
  (files / "copy.bmp").write_bytes((tmp_path / paths[3]).read_bytes())
  rows = [f"{path},{path.split('/')[2]},train" for path in paths]
  rows += ["set/copy.bmp,ant,test", "set/test/bee/0.bmp,bee,test"]
  (tmp_path / "set.csv").write_text("\n".join(["path,label,split", *rows]))
  (text,) = warnings(tmp_path / "set.csv")
  assert text.startswith("1 of 2 test images are also among the training images (such as set/copy")


def test_evaluated_images_of_one_class(arrays, files, save):
  arrays["test_labels"][:] = 1
  said = "test images are of one class, {}: their accuracy says nothing about the other classes."
  untested = "No test images of 2 classes (0: 0, 2: 2)."
  assert warnings(save(arrays)) == [untested, f"All 30 {said.format('1')}"]
  for path in (files / "test" / "ant").iterdir():
    path.unlink()
  (files / "test" / "ant").rmdir()
  untested = "Classes without evaluated images: ant."
  assert warnings(files) == [untested, f"All 3 {said.format('bee')}"]


def test_names_of_classes_that_are_nearly_equal(arrays, save):
  arrays["class_names"] = np.array(["a cat", "Dog", "A  Cat"])
  assert warnings(save(arrays)) == [
    "Some names of classes differ only in case or spaces: 'a cat' and 'A  Cat'. They are trained "
    "as different classes: give them one name if they are the same."
  ]


def test_images_of_another_range(arrays, save):
  arrays["test_images"] //= 128
  (text,) = warnings(save(arrays))
  assert text.startswith("No value in the test images is above 1, so they are nearly black: ")
  arrays["test_images"][-1, -1, -1, -1] = 2
  assert warnings(save(arrays)) == []
