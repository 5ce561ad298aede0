"""The images to evaluate a network on, and where the results go."""

import itertools
import json
import shutil
import types

import ml_collections
import numpy as np
import pytest
from PIL import Image

from bit_jax import run_config
from bit_jax.configs import folder as folder_config
from bit_jax.data import headers, images, pipeline
from bit_jax.data.sources import layouts
from bit_jax.inference import evaluated_data, labelled_images
from bit_jax.runs import run_folder
from bit_jax.runtime import devices, errors

LABELS = [
  *("test", "train", "val", "held-out", "train[:10%]", "train[10%:]", "vtab/svhn-test"),
  *("cifar10-test", "/a/batch.2024", "/a/batch.2025", "/b/batch.2024", "/a/batch 2024"),
  *(
    "/a/photos-test",
    "/a/photos-train",
    "/a/photos.csv",
    "/a/photos.npz",
    "/a/test",
    "/",
    "ü" * 99,
  ),
]


@pytest.mark.parametrize("folder", ["run", None])
def test_no_images_share_a_folder(folder, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  root = None if folder is None else tmp_path / folder
  files = [tmp_path / name / "mine.npz" for name in "ab"]
  for file in files:
    file.parent.mkdir()
    file.touch()
  names = ["run"] if folder else ["BiT-M-R50x1", "BiT-S-R50x1", *map(str, files)]
  found = [
    evaluated_data.default_folder(
      types.SimpleNamespace(folder=root, name=name), types.SimpleNamespace(label=label)
    )
    for name in names
    for label in LABELS
  ]
  assert len(set(found)) == len(found) == len(names) * len(LABELS)
  for place in found:
    place.mkdir(parents=True)
  expected = root / "evaluation-test" if root else "evaluation/BiT-M-R50x1/test"
  assert str(found[0]) == str(expected)
  assert all(place.parent == root for place in found) or root is None


def picture(path, grey):
  path.parent.mkdir(parents=True, exist_ok=True)
  Image.fromarray(np.full((9, 8, 3), grey, np.uint8)).save(path)


def photos(root, parts=("train", "val", "test")):
  for i, (part, name) in enumerate(itertools.product(parts, ("ant", "bee"))):
    for k in range(3):
      picture(root / part / name / f"{k}.png", 9 * i + k)
  return root


@pytest.fixture
def network(tmp_path):
  """A function that returns the network of a run on a folder, which is not trained."""

  def of_run(**fields):
    config = folder_config.get_config(f"model=R14x0.5,weights=none,path={tmp_path / 'photos'}")
    config.update(fields)
    config, data = run_config.prepare(config)
    run = tmp_path / "run"
    run.mkdir()
    (run / "environment.json").write_text(json.dumps({"data": data.identity()[0]}))
    return types.SimpleNamespace(
      name="run", folder=run, config=config.to_dict(), size=16, class_names=("ant", "bee")
    )

  return of_run


@pytest.mark.parametrize(
  ("fields", "there", "split", "title", "paths"),
  [
    ({}, None, None, "the test part of {}/photos", "test"),
    ({"protocol": "select"}, None, "test", "the test part of {}/photos", "test"),
    ({}, ("train", "val", "test"), None, "the test part of {}/there", "test"),
    ({"protocol": "select"}, ("train", "val", "test"), "test", "the test part of {}/there", "test"),
    ({}, ("train", "val"), "train", "the train part of {}/there", "train"),
    ({}, ("val",), None, "the val part of {}/there", "val"),
  ],
)
def test_a_folder_is_scanned_and_its_headers_are_read_once(
  fields, there, split, title, paths, network, tmp_path, monkeypatch
):
  """Its own images, in place and moved, and other images, without and with ones to train on."""
  photos(tmp_path / "photos")
  network = network(**fields)
  path = None if there is None else str(photos(tmp_path / "there", there))
  calls = []

  def counted(module, name):
    function = getattr(module, name)
    monkeypatch.setattr(module, name, lambda *given: calls.append(name) or function(*given))

  counted(layouts, "read")
  counted(headers, "read_all")
  chosen = evaluated_data.choose(network, split=split, path=path)
  loaded, unreadable = chosen.load()
  assert calls == ["read", "read_all"]
  assert (chosen.title, unreadable) == (title.format(tmp_path), [])
  assert len(loaded.paths) == 6
  assert {path.split("/")[0] for path in loaded.paths} == {paths}
  pixels, labels = loaded.part.some(np.arange(6))
  wanted = [np.array(Image.open(f"{path or tmp_path / 'photos'}/{p}")) for p in loaded.paths]
  assert (pixels == np.stack(wanted)).all()
  assert [("ant", "bee")[label] for label in labels] == [p.split("/")[1] for p in loaded.paths]


@pytest.mark.parametrize("size", [16, 8])  # the images keep their 9 x 8 pixels, or are resized
@pytest.mark.parametrize("memory", [1e9, 0])
def test_images_at_a_path_are_decoded_once_where_they_fit_in_memory(
  memory, size, network, tmp_path, monkeypatch
):
  photos(tmp_path / "photos")
  network = network()
  network.size = size
  there = photos(tmp_path / "there", ("val",))
  bad = there / "val/bee/1.png"
  bad.write_bytes(bad.read_bytes()[:45])
  chosen = evaluated_data.choose(network, path=str(there))
  decode, decoded = images.decode, []
  monkeypatch.setattr(images, "decode", lambda path: decoded.append(path) or decode(path))
  monkeypatch.setattr(devices, "resident_memory", lambda _: memory / chosen.resident_share)
  loaded, (reason,) = chosen.load()
  assert sorted(decoded) == sorted(there.glob("val/*/*.png"))
  assert f"The image {bad} is truncated" in reason
  checked_first = pipeline.load_part(chosen.data, chosen.selection, chosen.part, memory)
  assert (loaded.part.examples is None) == (memory == 0)
  assert loaded.paths == checked_first.paths
  assert "val/bee/1.png" not in loaded.paths
  for name in ("left_out", "warnings", "image_size", "version"):
    assert getattr(loaded, name) == getattr(checked_first, name)
  assert loaded.left_out == {"unreadable test images": 1}
  every = np.arange(5)
  for ours, theirs in zip(loaded.part.some(every), checked_first.part.some(every), strict=True):
    np.testing.assert_array_equal(ours, theirs)
  np.testing.assert_array_equal(loaded.part.labels, checked_first.part.labels)
  views = (part.to_look_at(every, 12) for part in (loaded.part, checked_first.part))
  np.testing.assert_array_equal(*views)
  for path in there.glob("val/*/*.png"):
    path.write_bytes(path.read_bytes()[:45])
  with pytest.raises(errors.UserError, match="None of 6 images can be read: The image"):
    evaluated_data.choose(network, path=str(there)).load()


def test_images_that_a_run_was_trained_on_are_counted(network, tmp_path):
  own = photos(tmp_path / "photos", ("train", "test"))
  network = network()
  there = photos(tmp_path / "there", ("val",))  # as bright as the first ones of `own`
  (there / "val/ant/0.png").write_bytes((own / "test/ant/1.png").read_bytes())  # only evaluated
  (there / "val/bee/0.png").write_bytes((own / "train/ant/2.png").read_bytes() + b" ")  # changed

  def warning(path):
    return evaluated_data.trained_on(network, evaluated_data.choose(network, path=str(path)))

  said = "This run was trained on {} images: the accuracy on them says nothing about new images."
  assert warning(there) == said.format("4 of the 6")
  assert warning(own / "train") == said.format("6 of the 6")
  assert warning(own / "test") is None
  run_folder.write_csv(
    network.folder / "split.csv", [("path", "class", "split"), ("train/ant/0.png", "ant", "train")]
  )
  picture(own / "train/bee/9.png", 200)  # the images are not what they were
  assert warning(there) is None
  assert warning(own / "train") == said.format("1 of the 7")


def test_images_of_other_content_are_not_those_of_a_run(network, tmp_path):
  own = tmp_path / "photos"
  for i, path in enumerate(f"{p}/{c}/0.bmp" for p in ("train", "test") for c in ("ant", "bee")):
    picture(own / path, i)
  network = network()
  there = shutil.copytree(own, tmp_path / "there")
  record = network.folder / "environment.json"
  version, _, content = opened(network)[0].identity()

  def title(**place):
    return evaluated_data.choose(network, **place).title

  for recorded in ({}, {"content": content}):  # an earlier version has not recorded it
    record.write_text(json.dumps({"data": version, **recorded}))
    assert title() == f"the test part of {own}"
    assert title(path=str(there)) == f"the test part of {there}"
  record.write_text(json.dumps({"data": version, "content": "other"}))
  with pytest.raises(errors.UserError, match="have changed since the run"):
    title()
  chosen = evaluated_data.choose(network, path=str(there))
  assert evaluated_data.trained_on(network, chosen) is None
  assert isinstance(chosen.data, labelled_images.AtPath)


@pytest.mark.parametrize("part", ["test", "val", None])
def test_parts_of_a_run_are_compared_with_its_training_images(part, network, tmp_path, monkeypatch):
  own = photos(tmp_path / "photos")
  network = network(keep_best=True)  # val is apart
  for k, name in enumerate(("test", "val")):
    for i in range(k + 1):
      (own / name / "bee" / f"{i}.png").write_bytes((own / f"train/ant/{i}.png").read_bytes())
  digest = run_config.prepare(ml_collections.ConfigDict(network.config))[1].identity()[0]
  (network.folder / "environment.json").write_text(json.dumps({"data": digest}))
  calls = []
  monkeypatch.setattr(headers, "read_all", lambda *a, f=headers.read_all: calls.append(a) or f(*a))
  chosen = evaluated_data.choose(network, split=part)
  count = 2 if part == "val" else 1
  assert f"trained on {count} of the 6 images" in evaluated_data.trained_on(network, chosen)
  assert len(calls) == 1
  chosen = evaluated_data.choose(network, split="train")
  assert evaluated_data.trained_on(network, chosen) is None


def test_arrays_that_a_run_was_trained_on_are_counted(network, tmp_path):
  random = np.random.default_rng(0)
  held = {"class_names": np.array(["ant", "bee"])}
  for part, count in (("train", 8), ("test", 6)):
    held[f"{part}_images"] = random.integers(0, 256, (count, 9, 8, 3), dtype=np.uint8)
    held[f"{part}_labels"] = np.arange(count) % 2
  np.savez(tmp_path / "own.npz", **held)
  network = network(dataset="npz", data_path=str(tmp_path / "own.npz"), shots=3)
  chosen = pipeline.load(*opened(network)).chosen
  held["test_images"] = held["train_images"][:6]
  np.savez(tmp_path / "there.npz", **held)
  found = evaluated_data.choose(network, path=str(tmp_path / "there.npz"))
  expected = f"trained on {np.sum(chosen < 6)} of the 6 images"
  assert expected in evaluated_data.trained_on(network, found)


def opened(network):
  config, data = run_config.prepare(ml_collections.ConfigDict(network.config))
  return data, run_config.selection(config)
