"""`python -m bit_jax.embed`: its file, interruptions, images that can't be read, and mistakes."""

import os
import pathlib
import shutil
import signal

import jax
import numpy as np
import pytest
import running
from PIL import Image

from bit_jax import embed
from bit_jax.data import augmentation, images, resizing
from bit_jax.inference import embedding, networks

NETWORK = "R14x0.5-CIFAR100"
RUN = running.ROOT / "tests/earlier_runs/0.1"


@pytest.fixture(autouse=True)
def _shared_compilation_cache(tmp_path_factory):
  with running.compilation_cache(tmp_path_factory):
    yield


@pytest.fixture
def here(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  return tmp_path


def run(capsys, *argv, network=NETWORK):
  status = embed.main([network, *map(str, argv)])
  out, err = capsys.readouterr()
  return status, out, err


def arrays(path):
  with np.load(path, allow_pickle=False) as file:
    return dict(file)


def put(path, height=20, width=30, colour=0):
  path.parent.mkdir(parents=True, exist_ok=True)
  Image.new("RGB", (width, height), (colour, 0, 0)).save(path)


def fill(root, counts):
  """Writes {folder: number of images}; each has its own colour."""
  for name, count in counts.items():
    for i in range(count):
      put(root / name / f"{i}.png", colour=6 * i)


def hidden(folder):
  return [path.name for path in pathlib.Path(folder).glob(".*")]


def test_features_of_files(here, capsys):
  """The result on four devices is that on one; paths may be any bytes."""
  assert jax.device_count() == 4
  names = ["a.png", "sub/\udcffé.png", "sub/猫.png"]
  for i, name in enumerate(names):
    put(here / "photos" / name, 20 + i, 30, 90 * i)
  (here / "broken.jpg").write_text("no image")
  status, out, err = run(capsys, "broken.jpg", "photos", "--out=new/f.npz")
  assert (status, out) == (1, "new/f.npz: features (3 x 1,024, float32), ids\n")
  assert "The image broken.jpg is not a JPEG" in err
  assert "4 images in" in err
  found = arrays("new/f.npz")
  assert found["ids"].tolist() == sorted(f"photos/{name}" for name in names)
  assert set(found) == {"features", "ids", "checkpoint", "sha256", "size"}
  network = networks.load(NETWORK)
  assert (found["sha256"], found["size"], found["checkpoint"]) == (network.sha256, 48, NETWORK)
  decoded = [images.decode(pathlib.Path(path)) for path in found["ids"].tolist()]
  squares = np.stack([resizing.resize(image, 48) for image in decoded])
  one_device = jax.jit(network.model.apply)
  _, stages = one_device({"params": network.params}, augmentation.prepare_eval(squares, 48))
  np.testing.assert_allclose(found["features"], stages["pre_logits"], rtol=1e-3, atol=1e-4)
  assert hidden("new") == []


def test_features_of_classes(here, capsys):
  fill(here / "set", {"train/cat": 3, "train/dog": 2, "test/dog": 2, "test/cat": 1})
  status, out, _ = run(capsys, "--path=set", "--out=test.npz", "--dtype=float16")
  assert (status, out) == (0, "test.npz: features (3 x 1,024, float16), ids, labels of 2 classes\n")
  assert run(capsys, "--path=set", "--split=train", "--out=train.npz")[0] == 0
  for part, classes in (("test", "cat dog dog"), ("train", "cat cat cat dog dog")):
    found = arrays(f"{part}.npz")
    assert found["labels"].dtype == np.int32
    named = found["class_names"][found["labels"]].tolist()
    assert sorted(named) == classes.split()
    assert [path.split("/")[:2] for path in found["ids"].tolist()] == [[part, n] for n in named]
    assert len(found["features"]) == len(named)


def test_features_of_a_runs_own_images_and_of_a_config(here, capsys):
  """Small images of one size are resized on the devices, as in evaluation."""
  shutil.copytree(RUN / "finished", "run")
  shutil.copy(RUN / "images.npz", "images.npz")
  own, named = "--out=own.npz", "--out=named.npz"
  assert run(capsys, "--split=train", own, network="run")[0] == 0
  config = "--config=configs/npz.py:path=images.npz"
  assert run(capsys, config, "--config.seed=3", "--split=train", named, network="run")[0] == 0
  first, second = arrays("own.npz"), arrays("named.npz")
  stored = arrays("images.npz")
  assert first["ids"].tolist() == list(range(len(stored["train_labels"])))
  np.testing.assert_array_equal(first["labels"], stored["train_labels"])
  for name, array in first.items():
    np.testing.assert_array_equal(array, second[name])


def test_interrupted_work_continues_and_gives_the_same_file(here, capsys, monkeypatch):
  fill(here / "many", {"": 40})
  (here / "many/7.png").write_text("no image")
  line = ["many", "--batch_size=8"]
  assert run(capsys, *line, "--out=whole.npz")[0] == 1
  decode, reads = images.decode, []

  def interrupted(data):
    reads.append(data)
    if len(reads) == 30:
      os.kill(os.getpid(), signal.SIGINT)
    return decode(data)

  monkeypatch.setattr(images, "decode", interrupted)
  status, out, err = run(capsys, *line, "--out=parts.npz")
  assert (status, out) == (130, "")
  done = int(err.split("Stopped after ")[1].split()[0])
  assert 0 < done < 40
  assert hidden(".") == [".parts.npz.partial"]
  status, _, err = run(capsys, *line, "--out=parts.npz")
  assert status == 1
  assert f"Continuing after {done} of 40 images." in err
  assert f"{40 - done} images in" in err
  assert "many/7.png is not a JPEG" in err
  assert (here / "parts.npz").read_bytes() == (here / "whole.npz").read_bytes()
  assert hidden(".") == []


def test_the_folder_is_reserved_until_the_file_is_written(here, capsys, monkeypatch):
  put(here / "a.png")
  save, second = embedding.save, []

  def saving(*args):
    second.append(run(capsys, "a.png", "--out=f.npz"))
    save(*args)

  monkeypatch.setattr(embedding, "save", saving)
  assert run(capsys, "a.png", "--out=f.npz")[0] == 0
  ((status, out, err),) = second
  assert (status, out) == (2, "")
  assert "Another process is computing the features in .f.npz.partial" in err
  assert len(arrays("f.npz")["features"]) == 1
  assert hidden(".") == []


@pytest.mark.parametrize(
  ("argv", "message"),
  [
    (["nowhere", "--out=f.npz"], "File or folder not found: nowhere."),
    (["a.png", "--out=."], "--out=. can't be written (Is a directory)"),
    (["a.png", "--out=f.npz", "--batch_size=0"], "--batch_size must be at least 1"),
    (["broken.png", "--out=f.npz"], "None of the images can be read"),
    (["--path=nowhere", "--out=f.npz"], "Folder or CSV file not found: nowhere."),
    (["--path=set", "--split=val", "--out=f.npz"], "set has no val part"),
    (["--config=nowhere.py", "--out=f.npz"], "nowhere.py"),
    (["--out=f.npz"], "is a checkpoint, which has no data of its own"),
  ],
)
def test_mistakes_are_named(here, capsys, argv, message):
  put(here / "a.png")
  (here / "broken.png").touch()
  fill(here / "set", {"cat": 2, "dog": 2})
  status, out, err = run(capsys, *argv)
  assert (status, out) == (2, "")
  assert err.splitlines()[-1].startswith("error: ")
  assert message in err
  assert not (here / "f.npz").exists()


@pytest.mark.parametrize(
  "argv",
  [
    ["a.png"],
    ["a.png", "--out=f.npz", "--path=set"],
    ["a.png", "--out=f.npz", "--split=train"],
    ["a.png", "--out=f.npz", "--dtype=int8"],
    ["a.png", "--out=f.npz", "--config.seed=1"],
    ["--out=f.npz", "--path=set", "--config=configs/npz.py"],
  ],
)
def test_command_lines_that_cannot_be_parsed(here, capsys, argv):
  with pytest.raises(SystemExit) as raised:
    run(capsys, *argv)
  assert raised.value.code == 2
  assert "usage: python -m bit_jax.embed" in capsys.readouterr().err
