"""Tests of bit_jax.data.opening."""

import hashlib
import itertools
import os
import pathlib
import shutil

import numpy as np
import pytest
import sklearn
from PIL import Image

from bit_jax.data import datasets, images, opening
from bit_jax.data.sources import arrays
from bit_jax.runtime import errors


def open_set(name, protocol, path=None, **more):
  return opening.open_set(datasets.Request(name, protocol, path, **more))


def facts(*arguments, **more):
  return open_set(*arguments, **more).spec


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
  opened = open_set(name, protocol, paths[name])
  spec, sources = opened.spec, opened.sources()
  for part, size in ((sources.train, spec.num_train), (sources.test, spec.num_test)):
    assert len(part) == size
    assert len(part.class_names) == spec.num_classes
    examples = [part.read(i) for i in range(size)]
    assert part.read_labels().tolist() == [label for _, label in examples]
    assert part.read_sizes().tolist() == [list(image.shape[:2]) for image, _ in examples]
  assert sources.train.fingerprint() != sources.test.fingerprint()
  assert not sources.prepared
  assert (opened.origin is not None) == (name == "folder")


@pytest.mark.parametrize("name", ["digits", "npz", "folder"])
def test_select_never_touches_the_test_set(name, paths):
  def contents(part):
    return [image.tobytes() for image, _ in map(part.read, range(len(part)))]

  final, select = (open_set(name, p, paths[name]).sources() for p in ("final", "select"))
  assert sorted(contents(select.train) + contents(select.test)) == sorted(contents(final.train))


@pytest.mark.parametrize("name", ["digits", "npz", "folder"])
def test_opening_decodes_no_image(name, paths, monkeypatch):
  for module, function in ((arrays, "read_npz"), (arrays, "load_digits"), (images, "decode")):
    monkeypatch.setattr(module, function, None)
  assert open_set(name, "final", paths[name]).spec.num_train > 0


def test_what_may_be_a_mistake_in_a_folder_is_a_warning(folder_path):
  def warnings():
    return open_set("folder", "final", folder_path).warnings

  assert warnings() == ()
  (pathlib.Path(folder_path) / "ant" / "more").mkdir()
  Image.new("RGB", (3, 3)).save(pathlib.Path(folder_path) / "ant" / "more" / "0.png")
  assert warnings() == ("Class ant combines 1 subfolder (more).",)


def test_the_version_identifies_the_data(npz_path, folder_path):
  def version(name, path=None):
    return open_set(name, "final", path).sources().version

  assert version("digits") == f"digits of scikit-learn {sklearn.__version__}"
  digest = hashlib.sha256(pathlib.Path(npz_path).read_bytes()).hexdigest()[:16]
  assert version("npz", npz_path) == f"set.npz, sha256 {digest}"
  before = version("folder", folder_path)
  assert before.startswith("set, sha256 ")
  assert version("folder", folder_path) == before
  Image.new("RGB", (3, 3)).save(pathlib.Path(folder_path) / "ant" / "0.png")
  assert version("folder", folder_path) != before


def test_the_version_is_found_without_opening_and_is_that_of_a_copy(paths, tmp_path):
  found = {n: open_set(n, "final", p).identity()[0] for n, p in paths.items()}
  opened = {n: open_set(n, "final", p).sources() for n, p in paths.items()}
  assert found == {**{n: o.version for n, o in opened.items()}, "digits": None}
  copy = shutil.copytree(paths["folder"], tmp_path / "copy" / "set", copy_function=shutil.copy)
  for path in copy.glob("*/*"):
    os.utime(path, (1, 1))
  copied = open_set("folder", "final", str(copy)).sources()
  assert copied.version == found["folder"]
  assert copied.train.fingerprint() != opened["folder"].train.fingerprint()
  with pytest.raises(errors.UserError, match=r"not found.*gone"):
    open_set("folder", "final", str(tmp_path / "gone"))


@pytest.mark.parametrize("part", ["train", "test"])
def test_the_content_of_files_is_identified_beside_their_version(part, tmp_path):
  """The version is that of earlier versions, whose runs are still found."""
  for k, place in enumerate(itertools.product(("train", "test"), "ab", range(2))):
    path = tmp_path / "set" / "/".join(map(str, place))
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (40, 30), (k, k, k)).save(path.with_suffix(".bmp"))

  def identity(name="set"):
    return open_set("folder", "final", str(tmp_path / name)).identity()

  before = identity()
  copy = shutil.copytree(tmp_path / "set", tmp_path / "copy" / "set")
  for path in copy.rglob("*.bmp"):
    os.utime(path, (1, 1))
  assert identity("copy/set") == before
  Image.new("RGB", (40, 30), (90, 90, 90)).save(copy / part / "b" / "1.bmp")
  now = identity("copy/set")
  assert now.version == before.version
  assert now.content != before.content


def test_fingerprints_of_arrays_cover_pixels_and_labels(npz_path):
  train = open_set("npz", "final", npz_path).sources().train
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
    found = open_set("folder", "final", str(path), val_apart=val_apart)
    sources = found.sources()
    assert found.identity() == (sources.version, sources.chosen_on, sources.content)
    origins.append(found.origin)
    return sources

  origins = []
  pooled, apart = opened(False), opened(True)
  assert (len(pooled.train), pooled.val, pooled.chosen_on) == (16, None, None)
  assert (len(apart.train), len(apart.val), len(apart.test)) == (12, 4, 4)
  assert apart.version == pooled.version
  assert "weights" in origins[1]
  if of_csv:
    path.write_text(path.read_text().replace("7.png,bee,val", "7.png,bee,train"))
    changed = opened(True)
    assert changed.version == apart.version
    assert changed.chosen_on != apart.chosen_on


def test_the_val_part_of_an_npz_is_evaluated_by_select(npz_path):
  arrays = dict(np.load(npz_path))
  before = open_set("npz", "select", npz_path).sources()
  arrays |= {"val_images": arrays["test_images"] // 2, "val_labels": arrays["test_labels"]}
  np.savez(npz_path, **arrays)
  final, select, chosen = (
    open_set("npz", protocol, npz_path, val_apart=apart).sources()
    for protocol, apart in (("final", False), ("select", True), ("final", True))
  )
  assert [len(o.train) for o in (before, final, select, chosen)] == [16, 20, 20, 20]
  np.testing.assert_array_equal(select.test.images, arrays["val_images"])
  np.testing.assert_array_equal(chosen.val.images, arrays["val_images"])
  np.testing.assert_array_equal(chosen.test.images, arrays["test_images"])
  assert (final.val, select.val, chosen.chosen_on) == (None, None, "val")
  assert final.version == chosen.version
  assert select.version == f"{final.version}; its val is evaluated"  # not a fifth of train
  assert open_set("npz", "select", npz_path).identity() == (select.version, None, None)
  origin = open_set("npz", "final", npz_path).origin
  assert "val is used by protocol=select, keep_best and patience" in origin


def test_npz_sizes_come_from_the_file(tmp_path):
  path = str(tmp_path / "a.npz")
  labels = np.repeat(np.arange(3), 10)
  images = np.zeros((30, 5, 7, 3), np.uint8)
  np.savez(
    path, train_images=images, train_labels=labels, test_images=images[:4], test_labels=labels[:4]
  )
  final, select = (facts("npz", protocol, path) for protocol in datasets.PROTOCOLS)
  assert (final.num_train, final.num_test, final.num_classes) == (30, 4, 3)
  assert final.image_size == (5, 7)
  assert (select.num_train, select.num_test) == (24, 6)


def test_a_folder_describes_itself(tmp_path):
  colours = np.random.default_rng(0).integers(0, 256, (24, 3), dtype=np.uint8)
  for i, colour in enumerate(colours):
    split, label = ("train" if i < 16 else "test"), ("ant", "bee")[i % 2]
    path = tmp_path / split / label / f"{i}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    size = (40, 30) if i % 3 else (20, 10)  # width, height
    Image.new("RGB", size, tuple(colour.tolist())).save(path)
  spec = facts("folder", "final", str(tmp_path))
  assert (spec.name, spec.tfds_name) == ("folder", None)
  assert (spec.train_split, spec.test_split) == ("train", "test")
  assert (spec.num_train, spec.num_test, spec.num_classes) == (16, 8, 2)
  assert (spec.image_size, spec.fixed_size) == ((30, 40), False)
  assert spec.class_names == ("ant", "bee")
  assert spec.num_train > facts("folder", "select", str(tmp_path)).num_train


def test_the_val_part_of_an_npz_is_chosen_on_or_evaluated_but_never_trained_on(tmp_path):
  labels = {"train": np.arange(30) % 3, "val": np.arange(9) % 3, "test": np.arange(4) % 3}
  path = str(tmp_path / "set.npz")
  np.savez(
    path,
    **{f"{n}_labels": found for n, found in labels.items()},
    **{f"{n}_images": np.zeros((len(found), 4, 4), np.uint8) for n, found in labels.items()},
  )

  def described(protocol, val_apart):
    spec = facts("npz", protocol, path, val_apart=val_apart)
    splits = (spec.train_split, spec.test_split)
    return splits, (spec.num_train, spec.num_val, spec.num_test)

  assert described("final", False) == (("train", "test"), (30, 0, 4))
  assert described("final", True) == (("train", "test"), (30, 9, 4))
  for val_apart in (False, True):
    assert described("select", val_apart) == (("train", "val"), (30, 0, 9))


@pytest.mark.parametrize(
  ("arguments", "named"),
  [
    (("npz", "final"), "path=FILE.npz"),
    (("digits", "final", "a.npz"), "digits takes no path; only npz and folder do"),
    (("vtab/svhn", "final", "a.npz"), "takes no path"),
    (("folder", "final"), "configs/folder.py:path=DIR_OR_CSV"),
    (("folder", "select", ""), "configs/folder.py:path=DIR_OR_CSV"),
  ],
)
def test_a_missing_or_unexpected_path(arguments, named):
  with pytest.raises(errors.UserError, match=named):
    open_set(*arguments)


@pytest.mark.slow
def test_without_tensorflow_all_else_is_opened_and_a_tfds_set_says_what_is_missing(
  paths, printed_by
):
  code = f"""
import sys
sys.modules["tensorflow"] = sys.modules["tensorflow_datasets"] = None
from bit_jax.runtime import errors
from bit_jax.data import augmentation, datasets, fewshot, opening, order, pipeline
for name, path in {paths!r}.items():
  sources = opening.open_set(datasets.Request(name, path=path)).sources()
  print(name, len(sources.train), len(sources.test))
try:
  opening.open_set(datasets.Request("cifar10")).sources()
except errors.UserError as e:
  print(e)
"""
  *sizes, message = printed_by(code).splitlines()
  assert sizes == ["digits 797 1000", "npz 20 6", "folder 16 4"]
  assert "read with tensorflow and tensorflow-datasets" in message
