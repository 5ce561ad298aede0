"""`python -m bit_jax.evaluate`: the numbers of a run, other images, wrong command lines."""

import csv
import json
import pathlib
import re
import shutil

import numpy as np
import pytest
import running
from PIL import Image
from sklearn import metrics as sklearn_metrics

from bit_jax import evaluate, weights
from bit_jax.configs import folder as folder_config
from bit_jax.configs import npz as npz_config
from bit_jax.inference import footprint
from bit_jax.runs import mistakes, per_class, results
from bit_jax.runtime import exits
from bit_jax.training import fine_tuning, finishing

CLASSES = ("ant", "bumble bee", "cat", *"defghij")
# All runs have ten classes and images of 8 pixels, so that they share their compiled programs.
FIELDS = {**running.FIELDS, "eval_batch_size": 8, "total_steps": 4, "eval_every": 2}
SAME = ("loss", "top1", "balanced_accuracy", "macro_f1", "num_test")
TABLES = {"confusion.csv", "mistakes.csv", "per_class.csv", "predictions.csv"}


@pytest.fixture(scope="module", autouse=True)
def _compilation_cache(tmp_path_factory):
  with running.compilation_cache(tmp_path_factory):
    yield


@pytest.fixture(autouse=True)
def _no_pictures(request, monkeypatch):
  """Only one test needs pictures, which take seconds."""
  if "pictures" not in request.fixturenames:
    monkeypatch.setattr(per_class, "draw", lambda *_: None)
    monkeypatch.setattr(mistakes, "draw", lambda *_: None)


@pytest.fixture
def pictures():
  """Requested by the test that looks at pictures."""


def save(path, label, random, size=(8, 8)):
  """Writes a noisy image in the colour of its class."""
  path.parent.mkdir(parents=True, exist_ok=True)
  pixels = random.integers(0, 120, (*size, 3))
  pixels[..., label % 3] += 100
  Image.fromarray(pixels.astype(np.uint8)).save(path)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
  """Images in train, val and test parts: 20, 10 and 14."""
  root, random = tmp_path_factory.mktemp("data") / "photos", np.random.default_rng(0)
  for part, count in (("train", 2), ("val", 1), ("test", 1)):
    for label, name in enumerate(CLASSES):
      for i in range(count + (part == "test" and label < 4)):
        save(root / part / name / f"{i}.png", label, random)
  return root


def train(folder, request, **changes):
  """Trains, without the pictures and the report of a run."""
  request.update({**FIELDS, **changes})
  with pytest.MonkeyPatch.context() as patch:
    for module, name in ((results, "draw"), (results, "draw_augmented"), (finishing, "_report")):
      patch.setattr(module, name, lambda *_: None)
    fine_tuning.train_and_evaluate(request, str(folder))


@pytest.fixture(scope="module")
def chosen_on_val(photos, tmp_path_factory):
  """A run on a folder that keeps its best weights by the val part."""
  folder = tmp_path_factory.mktemp("runs") / "photos"
  request = folder_config.get_config(f"model=R14x0.5,weights=none,path={photos}")
  train(folder, request, keep_best=True)
  return folder


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
  """A few-shot run that evaluates a held-out part."""
  folder = tmp_path_factory.mktemp("runs") / "digits"
  train(folder, running.config())
  return folder


@pytest.fixture(scope="module")
def arrays(tmp_path_factory):
  """A run on an npz file."""
  folder, random = tmp_path_factory.mktemp("npz"), np.random.default_rng(1)
  images = random.integers(0, 256, (50, 8, 8, 3), dtype=np.uint8)
  labels = np.arange(50) % 10
  np.savez(
    folder / "set.npz",
    train_images=images[:30],
    train_labels=labels[:30],
    test_images=images[30:],
    test_labels=labels[30:],
    class_names=np.array(CLASSES),
  )
  request = npz_config.get_config(f"model=R14x0.5,weights=none,path={folder / 'set.npz'}")
  train(folder / "run", request)
  return folder / "run"


def run(capsys, *arguments):
  """Returns the exit status, what was printed, and what was printed on standard error."""
  try:
    status = evaluate.main([str(a) for a in arguments])
  except SystemExit as e:  # argparse's
    status = e.code
  out, err = capsys.readouterr()
  assert "Traceback" not in err
  return status, out, err


def evaluated(capsys, *arguments, status=0):
  """Returns the JSON object."""
  capsys.readouterr()  # what fixtures printed
  found, out, err = run(capsys, *arguments, "--json")
  assert found == status, err
  return json.loads(out)


def folder_of(found):
  return pathlib.Path(found["folder"])


def rows(path):
  with path.open(newline="", encoding="utf-8") as file:
    return list(csv.DictReader(file))


def assert_of_result(found, folder):
  result = json.loads((folder / "result.json").read_text())
  assert {k: found[k] for k in SAME} == {k: result[k] for k in SAME}
  assert found["left_out"] == result["left_out"]


@pytest.mark.parametrize("name", ["digits", "chosen_on_val", "arrays"])
def test_a_run_has_the_numbers_of_its_result(name, request, capsys):
  folder = request.getfixturevalue(name)
  found = evaluated(capsys, folder)
  assert_of_result(found, folder)
  part = "held-out" if name == "digits" else "test"
  assert found["folder"] == str(folder / f"evaluation-{part}")
  assert {p.name for p in (folder / f"evaluation-{part}").iterdir()} == TABLES
  for table in ("per_class.csv", "confusion.csv"):
    again, before = (rows(f / table) for f in (folder / f"evaluation-{part}", folder))
    for row in (*again, *before):
      row.pop("training_images", None)
    assert again == before


def test_the_batch_size_is_the_users(digits, tmp_path, monkeypatch, capsys):
  wanted, batch = [], footprint.batch

  def recorded(*args, **named):
    wanted.append(named["wanted"])
    return batch(*args, **named)

  monkeypatch.setattr(footprint, "batch", recorded)
  found = [
    evaluated(capsys, digits, f"--out={tmp_path}", *flag) for flag in ([], ["--batch_size=4"])
  ]
  assert wanted == [FIELDS["eval_batch_size"], 4]
  assert found[0]["top1"] == found[1]["top1"]


def test_scores_are_those_of_the_predictions(chosen_on_val, photos, capsys):
  found = evaluated(capsys, chosen_on_val)
  predictions = rows(chosen_on_val / "evaluation-test" / "predictions.csv")
  labels, predicted = ([row[k] for row in predictions] for k in ("label", "predicted"))
  assert all((photos / row["image"]).parent.name == row["label"] for row in predictions)
  assert len({row["image"] for row in predictions}) == len(predictions) == 14
  correct = np.array(labels) == np.array(predicted)
  assert found["top1"] == pytest.approx(correct.mean())
  balanced = sklearn_metrics.balanced_accuracy_score(labels, predicted)
  assert found["balanced_accuracy"] == pytest.approx(balanced)
  f1 = sklearn_metrics.f1_score(labels, predicted, average="macro")
  assert found["macro_f1"] == pytest.approx(f1)
  confidence = np.array([float(row["confidence"]) for row in predictions])
  assert found["mean_confidence"] == pytest.approx(confidence.mean(), abs=1e-4)
  listed = rows(chosen_on_val / "evaluation-test" / "mistakes.csv")
  wrong = sorted((row for row in predictions if row["label"] != row["predicted"]), key=str)
  assert sorted(listed, key=str) == wrong
  assert [c["images"] for c in found["classes"]] == [2, 2, 2, 2, 1, 1, 1, 1, 1, 1]


@pytest.mark.parametrize(("part", "count"), [("train", 20), ("val", 10)])
def test_the_other_parts_of_a_run(part, count, chosen_on_val, photos, capsys):
  found = evaluated(capsys, chosen_on_val, f"--split={part}")
  assert found["num_test"] == count
  assert found["folder"].endswith(f"evaluation-{part}")
  at_path = evaluated(capsys, chosen_on_val, f"--path={photos / part}", f"--out={photos}-out")
  assert at_path["top1"] == found["top1"]
  assert at_path["loss"] == pytest.approx(found["loss"], rel=1e-5)
  assert len(at_path["warnings"]) == (part == "train")
  if part == "val":
    result = json.loads((chosen_on_val / "result.json").read_text())
    assert found["top1"] == result["val_top1"]


def test_parts_of_a_run_that_evaluated_held_out_images(digits, capsys):
  found = {
    part: evaluated(capsys, digits, f"--split={part}")["num_test"]
    for part in ("train", "val", "test")
  }
  assert found == {"train": 30, "val": 159, "test": 1_000}


def test_images_that_were_moved_are_split_as_before(chosen_on_val, photos, tmp_path, capsys):
  moved = shutil.copytree(photos, tmp_path / "elsewhere")
  assert_of_result(evaluated(capsys, chosen_on_val, f"--path={moved}"), chosen_on_val)
  assert evaluated(capsys, chosen_on_val, f"--path={moved}", "--split=train")["num_test"] == 20
  config = json.loads((chosen_on_val / "config.json").read_text())
  away = tmp_path / "run"
  shutil.copytree(chosen_on_val, away)
  (away / "config.json").write_text(json.dumps({**config, "data_path": "gone"}))
  status, _, err = run(capsys, away)
  assert status == 2
  assert "The run's images, gone, don't exist" in err
  assert "--path" in err
  (away / "config.json").write_text(json.dumps({**config, "data_path": str(moved)}))
  (moved / "test/ant/0.png").unlink()
  status, _, err = run(capsys, away)
  assert status == 2
  assert "have changed since the run" in err
  changed = evaluated(capsys, away, f"--path={moved}")
  assert re.fullmatch(r"evaluation-elsewhere-test-[0-9a-f]{8}", folder_of(changed).name)
  assert changed["num_test"] == 13
  assert "test part" in changed["images"]


def test_an_npz_file_that_was_moved(arrays, tmp_path, capsys):
  shutil.copy(arrays.parent / "set.npz", tmp_path / "moved.npz")
  assert_of_result(evaluated(capsys, arrays, f"--path={tmp_path / 'moved.npz'}"), arrays)


def test_other_images_by_the_names_of_their_classes(chosen_on_val, tmp_path, capsys):
  """Spelt in another way, with classes that have none, and one image that can't be read."""
  random = np.random.default_rng(3)
  for i in range(4):
    save(tmp_path / "more/CAT" / f"{i}.png", 2, random, (20 + i, 30))
    save(tmp_path / "more/Bumble_bee" / f"{i}.png", 1, random, (20, 30))
  broken = tmp_path / "more/CAT/0.png"
  broken.write_bytes(broken.read_bytes()[:60])
  found = evaluated(
    capsys, chosen_on_val, f"--path={tmp_path / 'more'}", f"--out={tmp_path / 'out'}", status=1
  )
  assert (found["num_test"], found["absent_classes"]) == (7, ["ant", *"defghij"])
  assert [c["images"] for c in found["classes"]] == [0, 4, 3, *[0] * 7]
  assert found["classes"][0]["top1"] is None
  assert found["left_out"] == {"unreadable test images": 1}
  (reason,) = found["unreadable"]
  assert str(broken) in reason
  predictions = rows(tmp_path / "out" / "predictions.csv")
  labels, predicted = ([row[k] for row in predictions] for k in ("label", "predicted"))
  assert set(labels) == {"bumble bee", "cat"}
  recall = sklearn_metrics.recall_score(
    labels, predicted, labels=["bumble bee", "cat"], average="macro"
  )
  assert found["balanced_accuracy"] == pytest.approx(recall)

  table = tmp_path / "list.csv"
  table.write_text("path,label\n" + "".join(f"more/CAT/{i}.png,cat\n" for i in (1, 2)))
  status, out, err = run(capsys, chosen_on_val, f"--path={table}", f"--out={tmp_path / 'csv'}")
  assert status == 0, err
  assert "9 classes of the network have no images here: ant, bumble bee, d, e, f and 4 more" in out


def test_an_npz_file_with_one_part(chosen_on_val, tmp_path, capsys):
  images = np.random.default_rng(4).integers(0, 256, (5, 8, 8), dtype=np.uint8)
  file = {"test_images": images, "test_labels": np.array([0, 1, 1, 0, 1])}
  np.savez(tmp_path / "a.npz", **file, class_names=np.array(["cat", "ant"]))
  arguments = chosen_on_val, f"--path={tmp_path / 'a.npz'}", f"--out={tmp_path / 'out'}"
  found = evaluated(capsys, *arguments)
  assert [c["images"] for c in found["classes"]] == [3, 0, 2, *[0] * 7]
  np.savez(tmp_path / "a.npz", **file)
  status, _, err = run(capsys, *arguments)
  assert status == 2
  assert "2 classes in" in err


def test_a_checkpoint_on_the_data_of_a_config(digits, tmp_path, monkeypatch, capsys):
  """Its classes have no names, so that they are the data set's; its size is the config's."""
  file = tmp_path / "mine.npz"
  shutil.copy(digits / "model.npz", file)
  monkeypatch.chdir(tmp_path)
  line = [file, "--config=configs/quickstart.py:protocol=select", "--config.crop=32"]
  line.append("--config.eval_batch_size=8")
  found = evaluated(capsys, *line)
  result = json.loads((digits / "result.json").read_text())
  assert found["size"] == 32
  assert found["loss"] == pytest.approx(result["loss"], rel=1e-5)
  assert {p.name for p in folder_of(found).iterdir()} == TABLES


def test_the_table_and_the_files_have_every_score_and_class(digits, tmp_path, capsys, pictures):
  capsys.readouterr()
  status, out, err = run(capsys, digits, "--out", tmp_path)
  assert status == 0
  assert {p.name for p in tmp_path.iterdir()} == TABLES | {"confusion.png", "mistakes.png"}
  lines = out.splitlines()
  assert "on the held-out part of digits: 159 images" in lines[0]
  names = [line.split("  ")[1] for line in lines[1:6]]
  assert names == ["loss", "top-1", "balanced accuracy", "macro F1", "calibration error"]
  result = json.loads((digits / "result.json").read_text())
  assert f" {result['top1']:.2%} (95% interval" in lines[2]
  assert [line.split()[0] for line in lines[8:18]] == list("0123456789")
  assert "Check their labels first" in err
  assert "predictions.csv" in err
  assert "predictions.csv" not in out


def test_a_run_of_an_earlier_version(tmp_path, monkeypatch, capsys):
  runs = running.ROOT / "tests/earlier_runs/0.1"
  shutil.copytree(runs / "finished", tmp_path / "finished")
  shutil.copy(runs / "images.npz", tmp_path)
  monkeypatch.chdir(tmp_path)
  found = evaluated(capsys, "finished")
  result = json.loads((runs / "finished/result.json").read_text())
  assert (found["top1"], found["num_test"]) == (1.0, 12)
  assert found["loss"] == pytest.approx(result["loss"], rel=1e-3)


WRONG = {
  "": "the following arguments are required: RUN_OR_CHECKPOINT",
  "{run} --splt=test": "unrecognized arguments: --splt=test",
  "{run} --config.crop=3": "unrecognized arguments: --config.crop=3",
  "{run} --config=a.py --path=b": "not allowed with argument",
  "{run} --split=": "argument --split: expected a value",
  "{run} --path=": "argument --path: expected a value",
  "{run} --size=big": "invalid int value: 'big'",
  "{run} --size=0": "size must be at least 1",
  "{run} --batch_size=0": "--batch_size must be at least 1",
  "nowhere": "nowhere",
  "{photos}": "is not a run folder",
  "R14x0.5-CIFAR100": "is a checkpoint, which has no data of its own: add --path=FOLDER",
  "{run} --split=dev": "has no split 'dev': its parts are train, val and test",
  "{digits} --split=validation": "has no split 'validation'",
  "{arrays} --split=val": "no validation part",
  "{run} --path=nowhere": "Folder or CSV file not found: nowhere",
  "{run} --path={photos}/train --split=test": "has no test part; it has no parts",
  "{run} --path={photos} --split=extra": "has no split 'extra'",
  "{run} --path={photos}/train --split=extra": "--split=extra must be test, train or val",
  "{run} --path={run}/result.json": "is neither a folder nor a CSV file",
  "{run} --path={photos}/train --out={photos}/train/results": "inside the folder of images",
  "{run} --out={run}/result.json": "can't be written (Not a directory)",
  "{run} --out={run}/result.json/x": "can't be written (Not a directory)",
  "{run} --config=configs/cifar.py": "did you mean configs/cifar10.py?",
  "{run} --config=configs/quickstart.py": "10 classes in digits are not classes of the network",
  "{run} --config=configs/quickstart.py --config.crp=3": "did you mean crop?",
  "R14x0.5-CIFAR100 --path={photos}": "10 classes in {photos} are not classes",
  "BiT-M-R50 --path={photos}": "BiT-M-R50",
}


@pytest.mark.parametrize("line", WRONG)
def test_wrong_command_lines(line, request, capsys):
  names = {
    "run": request.getfixturevalue("chosen_on_val"),
    "photos": request.getfixturevalue("photos"),
    "digits": request.getfixturevalue("digits"),
    "arrays": request.getfixturevalue("arrays"),
  }
  capsys.readouterr()
  status, out, err = run(capsys, *line.format(**names).split())
  assert (status, out) == (exits.USER_ERROR, "")
  assert WRONG[line].format(**names) in err


def test_damaged_parameters_are_a_sentence(digits, tmp_path, capsys):
  shutil.copytree(digits, tmp_path / "run")
  loaded = running.arrays(digits)
  head = loaded["resnet/head/conv2d/kernel"]
  np.savez(tmp_path / "run/model.npz", **{**loaded, "resnet/head/conv2d/kernel": head + 1e37})
  status, _, err = run(capsys, tmp_path / "run")
  assert status == 2
  assert "is not finite" in err


def test_images_that_cannot_be_read_leave_no_folder(tmp_path, monkeypatch, capsys):
  monkeypatch.chdir(tmp_path)
  save(tmp_path / "set/apple/0.png", 0, np.random.default_rng(0), (40, 40))
  file = tmp_path / "set/apple/0.png"
  file.write_bytes(file.read_bytes()[:500])
  status, _, err = run(capsys, "R14x0.5-CIFAR100", "--path=set")
  assert status == 2
  assert "set/apple/0.png" in err
  assert [path.name for path in tmp_path.iterdir()] == ["set"]


def test_classes_of_a_file_of_unknown_classes_must_be_as_many(tmp_path, capsys):
  file = tmp_path / "mine.npz"
  asset = weights.locate("R14x0.5-CIFAR100")
  shutil.copy(asset, file)
  status, _, err = run(capsys, file, "--config=configs/quickstart.py")
  assert status == 2
  assert "The network has 100 classes, which have no names, and digits has 10" in err


def test_help_needs_no_jax(printed_by):
  code = "import sys; from bit_jax import evaluate\ntry: evaluate.main(['--help'])\n"
  code += "except SystemExit: print('jax' in sys.modules, 'matplotlib' in sys.modules)"
  assert printed_by(code).endswith("False False\n")
  assert pathlib.Path(evaluate.__file__).read_text().count("\n") < 100
