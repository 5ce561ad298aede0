"""`bit_jax.fine_tune`: the run of the command, from a data set, a file, or images in memory."""

import csv
import json
import os
import pathlib

import jax
import numpy as np
import pytest
import running
from PIL import Image
from sklearn import metrics

import bit_jax
from bit_jax import train
from bit_jax.data.sources import arrays
from bit_jax.runtime import exits
from bit_jax.training import fine_tuning

FIELDS = {**running.FIELDS, "model": "R14x0.5", "weights": "none", "shots": 3}
TIMES = {"seconds", "images_per_second", "startup_seconds"}


@pytest.fixture(scope="module", autouse=True)
def _compilation_cache(tmp_path_factory):
  with running.compilation_cache(tmp_path_factory):
    yield


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
  """A run on digits, all that it can share with the command."""
  folder = tmp_path_factory.mktemp("digits") / "run"
  return bit_jax.fine_tune(
    "digits", workdir=folder, name="quickstart", protocol="select", reason="", **FIELDS
  )


def result_of(folder):
  found = json.loads((pathlib.Path(folder) / "result.json").read_text())
  return {name: value for name, value in found.items() if name not in TIMES}


def test_it_is_the_run_of_the_command(digits, tmp_path):
  argv = running.command(f"--workdir={tmp_path}/run", "--config.reason=")[2:]
  assert exits.run(train.main, argv) == 0
  for name in ("model.npz", "config.json", "per_class.csv", "confusion.csv"):
    assert (digits.folder / name).read_bytes() == (tmp_path / "run" / name).read_bytes(), name
  assert result_of(digits.folder) == result_of(tmp_path / "run")


def test_what_it_returns(digits, capsys):
  assert digits.result == json.loads((digits.folder / "result.json").read_text())
  assert digits.config.to_dict() == json.loads(
    (digits.folder / "config.json").read_text(), object_hook=as_tuples
  )
  assert digits.history() == {
    name: [row[name] for row in running.rows(digits.folder, "train")]
    for name in running.rows(digits.folder, "train")[0]
    if name != "kind"
  }
  assert digits.history("eval")["step"] == [3, 6]
  assert digits.history("val") == {}
  assert "top1" in repr(digits)
  assert "momentum" not in repr(digits)
  again = bit_jax.fine_tune(
    "digits", workdir=str(digits.folder), name="quickstart", protocol="select", **FIELDS
  )
  assert again.result == digits.result
  assert "already finished" in capsys.readouterr().out


def test_histories_have_lists_of_one_length(tmp_path):
  rows = [{"step": 1, "kind": "eval", "loss": 1.0, "top1": 0.5}]
  rows.append({**rows[0], "step": 2, "top5": 0.75})
  (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
  found = bit_jax.FineTuned({}, tmp_path, None).history("eval")
  assert list(found) == ["step", "loss", "top1", "top5"]
  np.testing.assert_array_equal(found["top5"], [np.nan, 0.75])
  assert found["step"] == [1, 2]


def as_tuples(fields):
  return {name: tuple(v) if isinstance(v, list) else v for name, v in fields.items()}


def test_its_classifier_evaluates_to_its_result(digits):
  found = digits.classifier.evaluate()
  for name in ("top1", "loss", "balanced_accuracy", "macro_f1"):
    assert getattr(found, name) == digits.result[name], name
  assert found.top5 is None
  assert found.paths is None
  assert digits.classifier.class_names == tuple("0123456789")
  rows = list(csv.DictReader((digits.folder / "per_class.csv").read_text().splitlines()))
  assert found.per_class == pytest.approx(
    {row["class"]: float(row["top1"]) for row in rows}, abs=1e-4
  )
  np.testing.assert_array_equal(
    found.confusion, metrics.confusion_matrix(found.labels, found.predictions, labels=range(10))
  )
  assert np.mean(found.labels == found.predictions) == pytest.approx(found.top1)
  train_part = digits.classifier.evaluate(part="train")
  assert len(train_part.labels) == 30


@pytest.mark.slow  # it compiles programs for images of several sizes and numbers
def test_evaluation_of_images_in_memory_and_of_files(digits, tmp_path):
  classifier = digits.classifier
  pool, _ = arrays.load_digits()
  _, held_out = arrays.split_for_selection(pool.labels, pool.class_names)
  images, labels = pool.images[held_out], pool.labels[held_out]
  wanted = classifier.evaluate()
  names = [pool.class_names[label] for label in labels]
  for given in (labels, labels.tolist(), names):
    found = classifier.evaluate(images, given)
    np.testing.assert_array_equal(found.predictions, wanted.predictions)
    assert found.loss == pytest.approx(wanted.loss, rel=1e-5)
    assert found.calibration_error == pytest.approx(wanted.calibration_error, abs=1e-5)
  predicted = classifier.predict(images)
  assert [p.label for p in predicted] == wanted.predictions.tolist()
  np.testing.assert_allclose([p.probability for p in predicted], wanted.confidence, rtol=1e-4)
  path = tmp_path / "set.npz"
  np.savez(path, test_images=images, test_labels=labels, class_names=np.array(pool.class_names))
  np.testing.assert_array_equal(classifier.evaluate(path).predictions, wanted.predictions)
  files = []
  for i in range(12):
    files.append(tmp_path / "photos" / names[i] / f"{i}.png")
    files[-1].parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(images[i]).save(files[-1])
  by_list = classifier.evaluate(files, names[:12])
  by_folder = classifier.evaluate(tmp_path / "photos")
  assert by_list.paths == tuple(map(str, files))
  assert by_list.top1 == pytest.approx(by_folder.top1)
  files[3].write_text("no image")
  with pytest.raises(bit_jax.UserError, match="1 of 12 images can't be read"):
    classifier.evaluate(files, names[:12])
  with pytest.raises(bit_jax.UserError, match="1 of 12 images can't be read"):
    classifier.evaluate(tmp_path / "photos")
  with pytest.warns(UserWarning, match="can't|is not|is empty|truncated"):
    kept = classifier.evaluate(files, names[:12], on_bad_image="skip")
  assert kept.paths == tuple(str(f) for f in files if f != files[3])
  with pytest.warns(UserWarning, match="can't|is not|is empty|truncated"):
    assert len(classifier.evaluate(tmp_path / "photos", on_bad_image="skip").labels) == 11


IMAGES = np.zeros((3, 8, 8, 3), np.uint8)
WRONG_EVALUATIONS = {
  "need labels": ((IMAGES,), {}),
  "3 images but 2 labels": ((IMAGES, [0, 1]), {}),
  "from 0 to 9, places in class_names, but go from 0 to 10": ((IMAGES, [0, 1, 10]), {}),
  "whole numbers or class names": ((IMAGES, [0.0, 1.0, 2.0]), {}),
  "ten": ((IMAGES, ["1", "2", "ten"]), {}),
  "no images to evaluate": (([], []), {}),
  "part with a folder": ((IMAGES, [0, 1, 2]), {"part": "test"}),
  "is not known; it is one of stop, skip": ((), {"on_bad_image": "no"}),
  "not found": (("nowhere",), {}),
}


@pytest.mark.parametrize("message", WRONG_EVALUATIONS)
def test_wrong_evaluations(digits, message):
  arguments, more = WRONG_EVALUATIONS[message]
  with pytest.raises(bit_jax.UserError, match=message):
    digits.classifier.evaluate(*arguments, **more)


def test_a_checkpoint_has_no_images_of_its_own():
  with pytest.raises(bit_jax.UserError, match="which has no images of its own"):
    bit_jax.load("R14x0.5-CIFAR100").evaluate()


def test_images_in_memory_under_other_settings_of_jax(digits, tmp_path, monkeypatch, capsys):
  """They are those of the digits, so the run is; and the caller's settings stay."""
  monkeypatch.chdir(tmp_path)
  train_set, test_set = arrays.load_digits()
  changed = {"jax_enable_x64": True, "jax_default_prng_impl": "rbg"}
  before = {name: getattr(jax.config, name) for name in changed}
  try:
    for name, value in changed.items():
      jax.config.update(name, value)
    settings = dict(jax.config.values)
    tuned = bit_jax.fine_tune(
      train_set.images[..., 0],
      [train_set.class_names[label] for label in train_set.labels],
      test=(test_set.images, test_set.labels),
      protocol="select",
      random_flip=np.bool_(False),  # as the data set has it
      **FIELDS,
    )
    assert dict(jax.config.values) == settings
  finally:
    for name, value in before.items():
      jax.config.update(name, value)
  assert (tuned.folder / "model.npz").read_bytes() == (digits.folder / "model.npz").read_bytes()
  assert tuned.folder.parent == tmp_path / "runs"
  data = tuned.config.data_path
  assert pathlib.Path(data).parent == pathlib.Path(os.environ["BIT_JAX_CACHE"]) / "images"
  capsys.readouterr()
  # The command on the same file is the same run, which is finished.
  changes = [f"--config.{name}={value}" for name, value in running.FIELDS.items()]
  argument = f"model=R14x0.5,weights=none,shots=3,protocol=select,flip=False,path={data}"
  assert exits.run(train.main, ["train", f"--config=configs/npz.py:{argument}", *changes]) == 0
  assert "already finished" in capsys.readouterr().out


def test_an_interrupted_run_raises_a_keyboard_interrupt(monkeypatch, tmp_path):
  def stop(*_):
    raise exits.Interrupted("Stopped after step 3 of 6.")

  monkeypatch.setattr(fine_tuning, "run", stop)
  with pytest.raises(KeyboardInterrupt, match="after step 3 of 6"):
    bit_jax.fine_tune("digits", workdir=tmp_path, **FIELDS)


class Prepared(Exception):  # noqa: N818 - not an error
  pass


@pytest.fixture
def prepared(monkeypatch, tmp_path):
  """Returns the config and the folder of a call, which isn't run."""
  monkeypatch.chdir(tmp_path)

  def note(config, data, folder):
    raise Prepared(config, folder)

  monkeypatch.setattr(fine_tuning, "run", note)

  def call(*arguments, **more):
    with pytest.raises(Prepared) as found:
      bit_jax.fine_tune(*arguments, **more)
    return found.value.args

  return call


@pytest.fixture
def photos(tmp_path):
  for kind in ("cat", "dog"):
    (tmp_path / "photos" / kind).mkdir(parents=True)
    for i in range(5):
      Image.new("RGB", (9, 8), (i, 2 * i, 3)).save(tmp_path / "photos" / kind / f"{i}.png")
  return tmp_path / "photos"


def test_a_folder(prepared, photos):
  config, folder = prepared(photos, model="R14x0.5")
  assert (config.dataset, config.data_path, config.name) == (
    "folder",
    str(photos),
    "folder-photos",
  )
  assert (config.batch_size, config.total_steps, config.crop) == (512, 500, 128)  # the rule
  assert folder == f"runs/folder-photos-R14x0.5-full-s0-{folder[-8:]}"
  assert prepared(str(photos), model="R14x0.5")[1] == folder
  assert prepared(f"{photos}/", model="R14x0.5", base_lr=0.1)[1] != folder


def test_a_csv_and_an_npz_file(prepared, photos, npz_path):
  csv_file = photos / "labels.csv"
  rows = [f"{p},{p.parent.name}" for p in sorted(photos.glob("*/*.png"))]
  csv_file.write_text("\n".join(["path,label", *rows]))
  config, _ = prepared(csv_file, model="R14x0.5", seed=np.int64(3), weights=photos / "w.npz")
  assert (config.dataset, config.seed, config.weights) == ("folder", 3, f"{photos}/w.npz")
  assert prepared(npz_path, model="R14x0.5")[0].dataset == "npz"


def test_names_of_data_sets(prepared, photos):
  config, folder = prepared("cifar10")
  assert (config.dataset, config.name, config.model) == ("cifar10", "cifar10", "BiT-M-R50x1")
  assert folder.startswith("runs/cifar10-BiT-M-R50x1-full-s0-")
  config, _ = prepared("vtab/svhn")
  assert (config.dataset, config.name) == ("vtab/svhn", "vtab-svhn")
  photos.rename("cifar10")
  with pytest.raises(bit_jax.UserError, match=r"a data set and of a file here: give './cifar10'"):
    bit_jax.fine_tune("cifar10")
  assert prepared("./cifar10", model="R14x0.5")[0].dataset == "folder"
  assert prepared(pathlib.Path("cifar10"), model="R14x0.5")[0].dataset == "folder"


ARRAY = np.zeros((4, 5, 6, 3), np.uint8)
WRONG = {
  "need labels": ((ARRAY,), {}),
  "takes no labels": (("photos", [0, 1]), {}),
  "has its own": (("photos",), {"class_names": ["a", "b"]}),
  r"'cifar1' is neither .* nor a data set \(did you mean cifar10\?\): give": (("cifar1",), {}),
  "Folder or CSV file not found: no/where": (("no/where",), {}),
  "File not found: nowhere.npz": (("nowhere.npz",), {}),
  "follows from the first argument": (("digits",), {"dataset": "cifar10"}),
  "no field 'lr': did you mean base_lr": (("digits",), {"lr": 0.1}),
  "no field 'batchsize': did you mean batch_size": (("digits",), {"batchsize": 1}),
  "batch_size takes a whole number, not 'all'": (("digits",), {"batch_size": "all"}),
  "model takes a text, not 3": (("digits",), {"model": 3}),
  "shots must be at least 1": (("digits",), {"model": "R14x0.5", "shots": 0}),
  "BiT-M-R50x2": (("digits",), {"model": "BiT-M-R50x2"}),
  "4 train images but 2 labels": ((ARRAY, [0, 1]), {}),
  "protocol='all' is not known": (("digits",), {"protocol": "all"}),
}


@pytest.mark.parametrize("message", WRONG)
def test_wrong_arguments(message, monkeypatch, tmp_path):
  monkeypatch.chdir(tmp_path)
  arguments, more = WRONG[message]
  with pytest.raises(bit_jax.UserError, match=message):
    bit_jax.fine_tune(*arguments, **more)
  assert list(tmp_path.iterdir()) == []
