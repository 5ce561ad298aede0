"""Probes from end to end, against scikit-learn on features of a plain forward pass."""

import csv
import dataclasses
import io
import json
import pathlib
import types

import jax
import numpy as np
import pytest
import running
from PIL import Image
from sklearn import datasets as sklearn_datasets
from sklearn import linear_model

from bit_jax import run_config
from bit_jax.configs import npz
from bit_jax.data import augmentation, datasets, fewshot
from bit_jax.inference import embedding, networks, outputs
from bit_jax.probe import __main__ as command
from bit_jax.probe import curve, features, probing, report

NETWORK = "R14x0.5-CIFAR100"
SIZE = 16


@pytest.fixture(scope="module", autouse=True)
def _shared_compilation_cache(tmp_path_factory):
  with running.compilation_cache(tmp_path_factory):
    yield


@pytest.fixture(autouse=True)
def _cache_of_the_module(cache, monkeypatch):
  """In place of a test's own, so that features are computed once."""
  monkeypatch.setenv("BIT_JAX_CACHE", str(cache))


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
  return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def images():
  """Digits 3, 8 and 9: 12, 15 and 15 to train on, 45 for the test."""
  found = sklearn_datasets.load_digits()
  rows = [np.flatnonzero(found.target == digit) for digit in (3, 8, 9)]
  train = np.concatenate([rows[0][:12], rows[1][:15], rows[2][:15]])
  test = np.concatenate([of_class[20:35] for of_class in rows])
  pixels = np.repeat((found.images * 15).astype(np.uint8)[..., None], 3, axis=3)
  labels = np.searchsorted([3, 8, 9], found.target)
  return {
    "train_images": pixels[train],
    "train_labels": labels[train],
    "test_images": pixels[test],
    "test_labels": labels[test],
    "class_names": np.array(["three", "eight", "nine"]),
  }


@pytest.fixture(scope="module")
def path(images, tmp_path_factory):
  found = tmp_path_factory.mktemp("digits") / "digits.npz"
  np.savez(found, **images)
  return str(found)


@pytest.fixture(scope="module")
def network():
  return networks.load(NETWORK, size=SIZE)


def run(capsys, *argv):
  status = command.main([NETWORK, "--batch_size=16", *map(str, argv)])
  out, err = capsys.readouterr()
  return status, out, err


@pytest.fixture(scope="module")
def found(network, images):
  """Features of the training and of the test images, of a forward pass in one piece."""
  pixels = np.concatenate([images["train_images"], images["test_images"]])

  @jax.jit
  def forward(pixels):
    prepared = augmentation.prepare_eval(pixels, SIZE)
    return network.model.apply({"params": network.params}, prepared)[1]["pre_logits"]

  return np.split(np.asarray(forward(pixels), np.float64), [len(images["train_images"])])


def accuracy(found, images, shots, seed):
  """Returns what scikit-learn finds."""
  train, test = found
  labels = images["train_labels"]
  chosen = fewshot.select(labels, shots, seed, images["class_names"])
  mean, std = train[chosen].mean(0), train[chosen].std(0) + 1e-5
  whitened = [
    np.pad((x - mean) / std, ((0, 0), (0, 1)), constant_values=100) for x in (train[chosen], test)
  ]
  model = linear_model.Ridge(alpha=1024, fit_intercept=False, solver="cholesky")
  model.fit(whitened[0], 2 * np.eye(3)[labels[chosen]] - 1)
  return np.mean(model.predict(whitened[1]).argmax(1) == images["test_labels"])


def test_accuracies_are_those_of_scikit_learn(capsys, path, images, network, found):
  status, out, _ = run(capsys, path, f"--size={SIZE}", "--shots=10,2", "--seeds=3", "--json")
  given = json.loads(out)
  assert status == 0
  assert [row["shots"] for row in given["results"]] == [2, 10]
  for row in given["results"]:
    expected = [accuracy(found, images, row["shots"], seed) for seed in range(3)]
    # A prediction near a tie may differ by rounding: one of 45 images.
    np.testing.assert_allclose(row["accuracy"], expected, atol=1 / 45 + 1e-9)
    assert row["median"] == np.median(row["accuracy"])
    assert (row["lowest"], row["highest"]) == (min(row["accuracy"]), max(row["accuracy"]))
  assert given["metric"] == "ridge regression on frozen features, not fine-tuning"
  assert (given["num_train"], given["num_test"], given["num_classes"]) == (42, 45, 3)
  assert given["weights_sha256"] == network.sha256


def test_the_forms_agree_and_a_second_call_computes_no_features(capsys, path, monkeypatch):
  line = (path, f"--size={SIZE}", "--shots=1,12", "--seeds=4")
  _, as_json, _ = run(capsys, *line, "--json")

  def compute(*_, **__):
    raise AssertionError("features are computed again")

  monkeypatch.setattr(outputs.Forward, "run", compute)
  _, as_csv, _ = run(capsys, *line, "--csv")
  _, text, err = run(capsys, *line)
  rows = list(csv.DictReader(io.StringIO(as_csv)))
  table = [words for words in map(str.split, text.splitlines()) if len(words) == 5][-2:]
  for given, row, words in zip(json.loads(as_json)["results"], rows, table, strict=True):
    assert (int(row["shots"]), int(row["images"])) == (given["shots"], 3 * given["shots"])
    values = [float(row[f"seed_{seed}"]) for seed in range(4)]
    np.testing.assert_allclose(values, given["accuracy"], atol=1e-6)
    shown = [f"{given[name]:.1%}" for name in ("median", "lowest", "highest")]
    assert words == [row["shots"], row["images"], *shown]
  assert "another metric than fine-tuning" in text
  assert err == ""


def test_default_shots_that_a_class_is_too_small_for_are_left_out(capsys, path):
  status, out, err = run(capsys, path, f"--size={SIZE}", "--seeds=1", "--csv")
  assert status == 0
  assert [row["shots"] for row in csv.DictReader(io.StringIO(out))] == ["1", "5", "10"]
  assert err == "25 per class left out: the smallest class, three, has 12 training images.\n"


def test_a_curve_is_printed_and_drawn(capsys, path, tmp_path, saved_figures):
  picture = tmp_path / "new" / "curve.png"
  line = (path, f"--size={SIZE}", "--curve", f"--figure={picture}")
  status, out, err = run(capsys, *line)
  assert status == 0
  assert picture.read_bytes().startswith(b"\x89PNG")
  assert "The curve ends at 12 per class" in err
  numbers = [words[0] for words in map(str.split, out.splitlines()) if len(words) in (5, 6)]
  assert [n for n in numbers if n.isdigit()] == ["1", "2", "5", "12"]
  found = json.loads(run(capsys, *line, "--json")[1])["curve"]
  assert found["sentences"] == out.splitlines()[-2:]
  assert found["twice"] == 24
  (axes,) = saved_figures[0].axes
  assert axes.get_xlabel() == "images per class"
  points = axes.lines[0].get_xydata()
  assert points[:, 0].tolist() == [1, 2, 5, 12]


def test_an_unreadable_image_is_named_and_left_out(capsys, images, tmp_path):
  for part, count in (("train", 30), ("test", 12)):
    for i in range(count):
      folder = tmp_path / "set" / part / str(images[f"{part}_labels"][i])
      folder.mkdir(parents=True, exist_ok=True)
      Image.fromarray(images[f"{part}_images"][i]).resize((20, 24)).save(folder / f"{i}.png")
  for i, label in ((30, 1), (31, 1)):  # a second class for the test
    folder = tmp_path / "set/test" / str(label)
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(images["test_images"][i - 10]).save(folder / f"{i}.png")
  (tmp_path / "set/train/0/3.png").write_bytes(b"\x89PNG but broken")
  line = (tmp_path / "set", f"--size={SIZE}", "--shots=3", "--seeds=1", "--json")
  status, out, err = run(capsys, *line)
  assert status == 1
  assert "3.png" in err
  assert json.loads(out)["num_train"] == 29
  (unreadable,) = json.loads(out)["unreadable"]
  assert "3.png" in unreadable


def test_test_images_among_the_training_images_are_counted(capsys, images, tmp_path):
  changed = images["test_images"].copy()
  changed[[0, 20]] = images["train_images"][[1, 14]]  # of one class each
  np.savez(tmp_path / "set.npz", **{**images, "test_images": changed})
  status, out, err = run(capsys, tmp_path / "set.npz", f"--size={SIZE}", "--shots=2", "--json")
  (remark,) = json.loads(out)["remarks"]
  assert remark.startswith("warning: 2 of 45 test images are also among the training images: ")
  assert status == 0
  assert remark in err


def test_a_prepared_set_needs_the_features_of_its_subsets_only(network, path, monkeypatch):
  data = features.open_set(path)
  sources = data.sources()
  read = []

  class Counted:
    def __getattr__(self, name):
      return getattr(sources.train, name)

    def __len__(self):
      return len(sources.train)

    def read(self, index):
      read.append(index)
      return sources.train.read(index)

    def fingerprint(self):
      return f"counted {sources.train.fingerprint()}"

  changed = dataclasses.replace(sources, prepared=True, train=Counted())
  monkeypatch.setattr(data, "sources", lambda: changed)
  given = {"cropped": False, "batch_size": 16}
  some = features.compute(network, data, shots=(1, 3, 99), seeds=range(2), **given)
  assert 9 <= len(set(read)) <= 18
  assert len(some.train) == len(set(read))
  whole = features.compute(network, data, shots=None, seeds=range(2), **given)
  assert len(whole.train) == 42
  few, all_of_them = (probing.measure(f, [1, 3], range(2)) for f in (some, whole))
  np.testing.assert_array_equal(few.wrong, all_of_them.wrong)


def test_images_cropped_as_in_big_vision(path, network):
  source = features.open_set(path).sources().test
  cropped, label = features._Cropped(source).read(3)
  assert cropped.shape == (224, 224, 3)
  assert label == source.read(3)[1]
  pixels = source.read(3)[0].astype(np.float32)
  rows = augmentation.interpolation_matrix(8, 256)[16:240]
  expected = np.einsum("yh,xw,hwc->yxc", rows, rows, pixels)
  np.testing.assert_allclose(cropped, expected, atol=0.51)


MISTAKES = {
  "--shots=0": "list of whole numbers",
  "--shots=1,two": "list of whole numbers",
  "--shots=13": "The smallest class, three, has 12 training images; --shots=13 needs as many",
  "--seeds=0": "--seeds must be at least 1",
  "--seeds=9999999999": "--seeds must be at most 1,000",
  "--batch_size=0": "--batch_size must be at least 1",
  "--figure=x.png": "add --curve",
  "--curve --seeds=2": "needs at least 5 seeds",
  "--curve --shots=1,2,5": "A curve needs 4 sizes of subsets",
  "--curve --figure=/dev/null/x.png": "can't be written",
  "--big_vision_crop": "leave out --size",
}


@pytest.mark.parametrize("flags", MISTAKES)
def test_mistakes_are_one_sentence(capsys, path, flags):
  status, out, err = run(capsys, path, f"--size={SIZE}", *flags.split())
  assert status == 2
  assert out == ""
  assert MISTAKES[flags] in err
  assert err.startswith("error: ")
  assert err.count("\n") == 1


@pytest.mark.parametrize(
  ("data", "message"),
  [
    ("digit", "did you mean digits"),
    ("photos", "neither a file or folder"),
    ("", "neither a file"),
    ("./nowhere", "nowhere"),
    ("none.npz", "none.npz"),
  ],
)
def test_data_that_do_not_exist(capsys, tmp_path, monkeypatch, data, message):
  monkeypatch.chdir(tmp_path)
  status, out, err = run(capsys, data, f"--size={SIZE}")
  assert (status, out) == (2, "")
  assert message in err


def test_a_file_with_the_name_of_a_data_set(capsys, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  (tmp_path / "digits").mkdir()
  status, _, err = run(capsys, "digits", f"--size={SIZE}")
  assert status == 2
  assert "give './digits' for the file" in err


def test_a_network_that_was_trained_on_the_images(network, path, capsys):
  config, _ = run_config.prepare(npz.get_config(f"model=R14x0.5,path={path}"))
  of_run = dataclasses.replace(network, name="runs/mine", config=config.to_dict())
  with pytest.raises(ValueError, match="Probe a checkpoint that hasn't seen"):
    probing.run(of_run, probing.Settings(path, curve=True))
  probing.run(of_run, probing.Settings(path, shots=(1,), num_seeds=1, batch_size=16))
  assert "not those of so few labels" in capsys.readouterr().err
  other = dataclasses.replace(of_run, config={**config.to_dict(), "data_path": "elsewhere.npz"})
  assert not features.has_trained_on(other, features.open_set(path), path)


@pytest.mark.parametrize(
  ("file", "data", "seen"),
  [
    ("BiT-M-R50x1-CIFAR10.npz", "cifar10", True),
    ("BiT-M-R50x1-CIFAR10.npz", "cifar100", False),
    ("BiT-M-R50x1-ILSVRC2012.npz", "imagenet2012", True),
    ("BiT-M-R50x1.npz", "imagenet2012", False),
    ("BiT-M-R50x1-run1-cifar100.npz", "cifar100", True),
    ("BiT-M-R50x1-run1-sun397.npz", "vtab/sun397", True),
    ("BiT-M-R50x1-run1-clevr-count.npz", "vtab/clevr-count", True),
    ("BiT-M-R50x1-run1-clevr-count.npz", "vtab/clevr-distance", False),
    ("R152x2_T_pet128.npz", "oxford_iiit_pet", True),
    ("R14x0.5-CIFAR100.npz", "vtab/cifar100", True),
    ("mine.npz", "digits", False),
  ],
)
def test_released_checkpoints_that_have_seen_the_labels(network, file, data, seen, path):
  released = dataclasses.replace(network, file=pathlib.Path(file))
  opened = types.SimpleNamespace(spec=datasets.find(data, "final"))
  assert features.has_trained_on(released, opened, data) == seen
  config = {"dataset": "npz", "weights": file.removesuffix(".npz"), "data_path": path}
  of_run = dataclasses.replace(network, config=config)
  assert features.has_trained_on(of_run, opened, data) == seen
  assert not features.has_trained_on(released, features.open_set(path), path)


def test_no_features_are_computed_for_shots_that_are_too_many(capsys, path, monkeypatch):
  monkeypatch.setattr(embedding, "features", None)
  for flags in (["--shots=1,13"], ["--curve", "--shots=1,2,5"]):
    status, out, err = run(capsys, path, f"--size={SIZE}", *flags)
    assert (status, out) == (2, "")
    assert "the smallest class, three, has 12" in err.lower()


def probe_with(law, num_images, sizes=(1, 2, 5, 10, 20)):
  """Returns a probe whose errors are those of a law, whatever the seed."""
  sizes = np.array(sizes)
  ranks = (np.arange(num_images) + 0.5) / num_images
  wrong = np.broadcast_to(ranks < law.at(sizes)[:, None], (5, len(sizes), num_images))
  measured = curve.Measurements(sizes, wrong, sizes / sizes[-1])
  forecast = curve.forecast(measured)
  return report.Probe(
    network="net",
    sha256="0" * 64,
    num_features=7,
    images="images of 16 pixels",
    data="photos, sha256 0",
    title="photos",
    num_classes=2,
    num_train=40,
    seeds=range(5),
    measured=measured,
    forecast=forecast,
  )


def test_the_sentence_of_a_gain():
  said = report.sentences(probe_with(curve.PowerLaw(0.4, 0.5, 0.02), 5000))
  assert len(said) == 1  # an error on 5,000 images is precise
  assert said[0].startswith(
    "With twice the photographs per class (40), the error would fall from 10.9% to about 8.3% "
    "(95% interval "
  )


def test_no_sentence_without_a_gain():
  said = report.sentences(probe_with(curve.PowerLaw(0, 1, 0.3), 40))
  assert said[0].startswith("The data don't allow a forecast")
  assert "0.0 to 0.0 points" in said[0]
  assert "on other images of the kind, an error of 30.0% may be 18.1% to 45.4%" in said[1]
