"""Tests of bit_jax.data.opening."""

import hashlib
import os
import pathlib
import shutil

import numpy as np
import pytest
import sklearn
from PIL import Image

from bit_jax.data import datasets, opening
from bit_jax.data.sources import arrays
from bit_jax.runtime import errors


@pytest.fixture
def folder_path(tmp_path):
  random = np.random.default_rng(1)
  for name in ("ant", "bee"):
    (tmp_path / "set" / name).mkdir(parents=True)
    for i in range(10):
      pixels = random.integers(0, 256, (4 + i, 5, 3), dtype=np.uint8)
      Image.fromarray(pixels).save(tmp_path / "set" / name / f"{i}.png")
  return str(tmp_path / "set")


@pytest.fixture
def paths(npz_path, folder_path):
  return {"digits": None, "npz": npz_path, "folder": folder_path}


@pytest.mark.parametrize("protocol", datasets.PROTOCOLS)
@pytest.mark.parametrize("name", ["digits", "npz", "folder"])
def test_parts_are_as_described_and_as_their_examples_say(name, protocol, paths):
  spec = datasets.find(name, protocol, paths[name])
  opened = opening.open_set(spec)
  for part, size in ((opened.train, spec.num_train), (opened.test, spec.num_test)):
    assert len(part) == size
    assert len(part.class_names) == spec.num_classes
    examples = [part.read(i) for i in range(size)]
    assert part.read_labels().tolist() == [label for _, label in examples]
    assert part.read_sizes().tolist() == [list(image.shape[:2]) for image, _ in examples]
  assert opened.train.fingerprint() != opened.test.fingerprint()
  assert not opened.prepared
  assert (opened.origin is not None) == (name == "folder")


@pytest.mark.parametrize("name", ["digits", "npz", "folder"])
def test_select_never_touches_the_test_set(name, paths):
  def contents(part):
    return [image.tobytes() for image, _ in map(part.read, range(len(part)))]

  final, select = (
    opening.open_set(datasets.find(name, p, paths[name])) for p in ("final", "select")
  )
  assert sorted(contents(select.train) + contents(select.test)) == sorted(contents(final.train))


@pytest.mark.parametrize("name", ["digits", "npz", "folder"])
def test_how_images_are_read_is_known_without_reading_them(name, paths, monkeypatch):
  spec = datasets.find(name, "final", paths[name])
  opened = opening.open_set(spec)
  monkeypatch.setattr(arrays, "read_npz", None)
  assert opening.reading(spec) == (opened.warnings, opened.origin)


def test_what_may_be_a_mistake_in_a_folder_is_a_warning(folder_path):
  def warnings():
    return opening.open_set(datasets.find("folder", "final", folder_path)).warnings

  assert warnings() == ()
  (pathlib.Path(folder_path) / "ant" / "more").mkdir()
  Image.new("RGB", (3, 3)).save(pathlib.Path(folder_path) / "ant" / "more" / "0.png")
  assert warnings() == ("Class ant combines 1 subfolder (more).",)


def test_the_version_identifies_the_data(npz_path, folder_path):
  def version(name, path=None):
    return opening.open_set(datasets.find(name, "final", path)).version

  assert version("digits") == f"digits of scikit-learn {sklearn.__version__}"
  digest = hashlib.sha256(pathlib.Path(npz_path).read_bytes()).hexdigest()[:16]
  assert version("npz", npz_path) == f"set.npz, sha256 {digest}"
  before = version("folder", folder_path)
  assert before.startswith("set, sha256 ")
  assert version("folder", folder_path) == before
  Image.new("RGB", (3, 3)).save(pathlib.Path(folder_path) / "ant" / "0.png")
  assert version("folder", folder_path) != before


def test_the_version_is_found_without_opening_and_is_that_of_a_copy(paths, tmp_path):
  found = {n: opening.version_of_path(datasets.find(n, "final", p)) for n, p in paths.items()}
  opened = {n: opening.open_set(datasets.find(n, "final", p)) for n, p in paths.items()}
  assert found == {**{n: o.version for n, o in opened.items()}, "digits": None}
  copy = shutil.copytree(paths["folder"], tmp_path / "copy" / "set", copy_function=shutil.copy)
  for path in copy.glob("*/*"):
    os.utime(path, (1, 1))
  copied = opening.open_set(datasets.find("folder", "final", str(copy)))
  assert copied.version == found["folder"]
  assert copied.train.fingerprint() != opened["folder"].train.fingerprint()
  with pytest.raises(errors.UserError, match=r"not found.*gone"):
    opening.version_of_path(datasets.find("folder", "final", str(tmp_path / "gone")))


def test_fingerprints_of_arrays_cover_pixels_and_labels(npz_path):
  train = opening.open_set(datasets.find("npz", "final", npz_path)).train
  images, labels = train.images.copy(), train.labels.copy()
  images[3, 0, 0, 0] ^= 1
  labels[3] ^= 1
  others = [type(train)(images, train.labels, ("0", "1")), type(train)(train.images, labels, ())]
  assert len({train.fingerprint(), *(o.fingerprint() for o in others)}) == 3


@pytest.mark.parametrize("of_csv", [False, True])
def test_what_weights_are_chosen_on_is_identified_within_a_version(folder_path, of_csv):
  """Earlier versions recorded that of all images, whatever was done with val."""
  root = pathlib.Path(folder_path)
  if of_csv:
    path = root / "list.csv"
    places = dict.fromkeys(range(6), "train") | {6: "val", 7: "val", 8: "test", 9: "test"}
    rows = [f"{c}/{i}.png,{c},{p}" for c in ("ant", "bee") for i, p in places.items()]
    path.write_text("\n".join(["path,label,split", *rows]))
  else:
    path = root.parent / "parted"
    for name, places in (("train", range(6)), ("val", (6, 7)), ("test", (8, 9))):
      for c in ("ant", "bee"):
        (path / name / c).mkdir(parents=True)
        for i in places:
          shutil.copy(root / c / f"{i}.png", path / name / c)

  def opened(val_apart):
    spec = datasets.find("folder", "final", str(path), val_apart=val_apart)
    assert opening.chosen_on(spec) == opening.open_set(spec).chosen_on
    return opening.open_set(spec)

  pooled, apart = opened(False), opened(True)
  assert (len(pooled.train), pooled.val, pooled.chosen_on) == (16, None, None)
  assert (len(apart.train), len(apart.val), len(apart.test)) == (12, 4, 4)
  assert apart.version == pooled.version
  assert "weights" in apart.origin
  if of_csv:
    path.write_text(path.read_text().replace("7.png,bee,val", "7.png,bee,train"))
    changed = opened(True)
    assert changed.version == apart.version
    assert changed.chosen_on != apart.chosen_on


def test_the_val_part_of_an_npz_is_evaluated_by_select(npz_path):
  arrays = dict(np.load(npz_path))
  before = opening.open_set(datasets.find("npz", "select", npz_path))
  arrays |= {"val_images": arrays["test_images"] // 2, "val_labels": arrays["test_labels"]}
  np.savez(npz_path, **arrays)
  final, select, chosen = (
    opening.open_set(datasets.find("npz", protocol, npz_path, val_apart=apart))
    for protocol, apart in (("final", False), ("select", True), ("final", True))
  )
  assert [len(o.train) for o in (before, final, select, chosen)] == [16, 20, 20, 20]
  np.testing.assert_array_equal(select.test.images, arrays["val_images"])
  np.testing.assert_array_equal(chosen.val.images, arrays["val_images"])
  np.testing.assert_array_equal(chosen.test.images, arrays["test_images"])
  assert (final.val, select.val, chosen.chosen_on) == (None, None, "val")
  assert final.version == chosen.version
  assert select.version == f"{final.version}; its val is evaluated"  # not a fifth of train
  assert opening.version_of_path(datasets.find("npz", "select", npz_path)) == select.version
  assert "val is left for protocol=select, keep_best and patience" in final.origin


@pytest.mark.slow
def test_without_tensorflow_all_else_is_opened_and_a_tfds_set_says_what_is_missing(
  paths, printed_by
):
  code = f"""
import sys
sys.modules["tensorflow"] = sys.modules["tensorflow_datasets"] = None
from bit_jax.runtime import errors
from bit_jax.data import augmentation, datasets, fewshot, loading, opening, order
for name, path in {paths!r}.items():
  opened = opening.open_set(datasets.find(name, "final", path))
  print(name, len(opened.train), len(opened.test))
try:
  opening.open_set(datasets.find("cifar10", "final"))
except errors.UserError as e:
  print(e)
"""
  *sizes, message = printed_by(code).splitlines()
  assert sizes == ["digits 797 1000", "npz 20 6", "folder 16 4"]
  assert "read with tensorflow and tensorflow-datasets" in message
