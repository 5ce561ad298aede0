"""The command and its model cards: what is printed and written, and mistakes."""

import dataclasses
import json
import os
import pathlib
import re
import sys

import exporting
import numpy as np
import pytest
import synthetic

from bit_jax import weights
from bit_jax.configs import quickstart
from bit_jax.export import __main__ as command
from bit_jax.export import cards, checking, formats, npz_folder, torch_folders, writing
from bit_jax.inference import evaluated_data, networks
from bit_jax.report import run_files
from bit_jax.runtime import errors
from bit_jax.weights import catalogue, npz

RECORDS = {
  "config.json": {
    "model": "R14x0.5",
    "test_size": 40,
    "dtype": "auto",
    "weights": "R14x0.5-CIFAR100",
    "total_steps": 4000,
    "batch_size": 64,
    "base_lr": 0.003,
    "protocol": "final",
  },
  "environment.json": {
    "data": "flowers, sha256 c651c325b93e3cff",
    "weights_sha256": "3ef6",
    "dtype": "bfloat16",
    "command": "python -m bit_jax.train --config=configs/folder.py:path=flowers",
  },
  "result.json": {
    "top1": 0.9,
    "balanced_accuracy": 0.85,
    "macro_f1": 0.8,
    "num_train": 2000,
    "num_test": 100,
  },
}
NOT_COMPARED = "Not compared with the network: {} was not installed where this was written."


@pytest.fixture
def run(tmp_path):
  """A run folder with what exports need of it."""
  folder = tmp_path / "runs/flowers"
  weights.save(folder / "model.npz", synthetic.parameters("R14x0.5", 3))
  for name, content in RECORDS.items():
    (folder / name).write_text(json.dumps(content))
  (folder / "classes.txt").write_bytes(b"ant\nbee_hive\nw\xe9sp|x\n")
  return folder


@pytest.fixture
def quick(monkeypatch):
  """Replaces the format npz by one that computes nothing."""
  form = dataclasses.replace(npz_folder.FORM, needs=("a_reader",))
  monkeypatch.setitem(formats.FORMATS, "npz", (form,))
  return form


@pytest.fixture
def call(monkeypatch, tmp_path, capsys):
  """A function that calls the command in a folder of its own."""
  monkeypatch.chdir(tmp_path)

  def run_command(*words):
    status = command.main([str(word) for word in words])
    captured = capsys.readouterr()
    return status, captured.out, captured.err

  return run_command


def test_a_run_is_exported(run, quick, call, tmp_path):
  status, out, err = call("runs/flowers", "--to=npz")
  assert status == 0
  folder = tmp_path / "exports/flowers-npz"
  names = {path.name for path in folder.iterdir()}
  assert names == {"model.npz", *RECORDS, "classes.txt", "README.md"}
  lines = out.splitlines()
  assert lines[0] == "exports/flowers-npz:"
  assert {line.split()[0] for line in lines[1:-1]} == names
  assert lines[-1] == NOT_COMPARED.format("a_reader")
  assert "Writing flowers to exports/flowers-npz." in err
  assert (folder / "classes.txt").read_text(encoding="utf-8") == "ant\nbee_hive\nw\ufffdsp|x\n"
  assert (folder / "model.npz").read_bytes() == (run / "model.npz").read_bytes()
  assert [path.name for path in (tmp_path / "exports").iterdir()] == ["flowers-npz"]


def test_the_card_of_a_run(run, quick, call, tmp_path):
  assert call("runs/flowers", "--to=npz", "--out=out")[0] == 0
  card = (tmp_path / "out/README.md").read_text(encoding="utf-8")
  assert card.startswith("---\nlibrary_name: bit_jax\npipeline_tag: image-classification\n")
  assert "license:" not in card.split("---")[1]  # the user's to choose
  for text in (
    "# flowers\n",
    "fine-tuned on flowers by BiT-HyperRule",
    "90.00% top-1 on 100 test images (95% interval 83% to 94%); balanced accuracy 85.00%, macro F1 "
    "80.00%; measured in bfloat16, while the export is float32",
    "| data | flowers, sha256 c651c325b93e3cff: 2,000 training images, 100 test images |",
    "resized to 40 x 40 pixels",
    "R14x0.5-CIFAR100 (CIFAR-100), SHA-256 `3ef6`",
    "4,000 steps, 64 images a step, learning rate 0.003",
    "the initial weights are Apache-2.0",
    "`python -m bit_jax.train --config=configs/folder.py:path=flowers`",
    "`python -m bit_jax.export runs/flowers --to=npz --out=out`",
    "ant, bee\\_hive, w\ufffdsp|x.",
    '"total_steps": 4000',
  ):
    assert text in card
  config = json.loads(card.partition("```json\n")[2].partition("```")[0])
  assert config == RECORDS["config.json"]


def test_the_accuracy_on_many_images_has_no_interval(run, quick, call, tmp_path):
  result = {**RECORDS["result.json"], "num_test": 1000}
  (run / "result.json").write_text(json.dumps(result))
  assert call("runs/flowers", "--to=npz", "--out=out")[0] == 0
  card = (tmp_path / "out/README.md").read_text()
  assert "90.00% top-1 on 1,000 test images; balanced accuracy 85.00%" in card


def test_an_export_of_an_export_has_the_same_card(run, quick, call, tmp_path):
  assert call("runs/flowers", "--to=npz", "--out=one/flowers")[0] == 0
  assert call("one/flowers", "--to=npz", "--out=two/flowers")[0] == 0
  assert _without_command("one/flowers/README.md") == _without_command("two/flowers/README.md")


def _without_command(card):
  """Returns the lines of a card without those that name the exported folder or file."""
  lines = pathlib.Path(card).read_text().splitlines()
  return [line for line in lines if not line.startswith(("| export command", "| accuracy | not"))]


def test_the_export_of_a_checkpoint_is_that_checkpoint(call, tmp_path):
  assert call("R14x0.5-CIFAR100", "--to=npz", "--out=one")[0] == 0
  original, exported = networks.load("R14x0.5-CIFAR100"), networks.load("one")
  assert exported.sha256 != original.sha256  # float16 became float32
  assert (exported.config, exported.folder) == (None, None)
  assert exported.released == original.released == catalogue.find("R14x0.5-CIFAR100")
  assert exported.source == networks.Origin("R14x0.5-CIFAR100", original.sha256)
  assert (exported.class_names, exported.size) == (original.class_names, original.size)
  images = checking.images()
  logits = [checking.logits(network, images) for network in (original, exported)]
  np.testing.assert_array_equal(*logits)
  with pytest.raises(errors.UserError, match="one is a checkpoint, which has no data of its own"):
    evaluated_data.choose(exported)
  with pytest.raises(errors.UserError, match="was exported from the checkpoint R14x0"):
    run_files.read(tmp_path / "one")
  assert call("one", "--to=npz", "--out=two")[0] == 0
  assert _without_command("one/README.md") == _without_command("two/README.md")
  assert (tmp_path / "one/config.json").read_text() == (tmp_path / "two/config.json").read_text()


def test_the_export_of_a_file_is_not_a_released_checkpoint(quick, call):
  weights.save(pathlib.Path("BiT-M-R50x1.npz"), synthetic.parameters("R14x0.5", 3))
  assert call("BiT-M-R50x1.npz", "--to=npz", "--out=one", "--size=40")[0] == 0
  exported = networks.load("one")
  assert evaluated_data.choose(exported, request=quickstart.get_config()).size == 40
  assert exported.released is None
  assert exported.source.name == "BiT-M-R50x1.npz"
  assert call("one", "--to=npz", "--out=two")[0] == 0
  assert _without_command("one/README.md") == _without_command("two/README.md")
  assert "license:" not in pathlib.Path("two/README.md").read_text().split("---")[1]


def test_another_size_is_stated(run, quick, call, tmp_path):
  assert call("runs/flowers", "--to=npz", "--size=64")[0] == 0
  card = (tmp_path / "exports/flowers-npz/README.md").read_text()
  assert "resized to 64 x 64 pixels" in card
  assert "measured at 40 x 40 pixels, not at 64" in card
  assert not (tmp_path / "exports/flowers-npz/result.json").exists()
  assert "result.json" not in card
  assert json.loads((tmp_path / "exports/flowers-npz/config.json").read_text())["test_size"] == 64


def test_the_card_of_a_released_checkpoint(quick, call, tmp_path):
  assert call("R14x0.5-CIFAR100", "--to=npz")[0] == 0
  card = (tmp_path / "exports/R14x0.5-CIFAR100-npz/README.md").read_text()
  assert "\nlicense: apache-2.0\n" in card
  assert "trained on CIFAR-100" in card
  assert "| accuracy | not recorded;" in card
  assert "## Config" not in card
  assert "apple, aquarium\\_fish" in card


def test_a_card_names_the_first_of_many_classes(tmp_path):
  names = tuple(f"c{i}" for i in range(1234))
  network = exporting.network(class_names=names)
  (tmp_path / "model.safetensors").write_bytes(b"0" * 2_000_000)
  card = cards.card(network, torch_folders.TIMM, tmp_path, None, "x")
  assert "c99 and 1,134 more, in `classes.txt`." in card
  assert re.search("model.safetensors +2.0 MB  the weights", card)
  assert NOT_COMPARED.format("timm") in card
  assert cards.checked(npz_folder.FORM, 0.0).endswith("logits are equal.")
  assert "jax" in cards.checked(npz_folder.FORM, 1e-7)


@pytest.mark.parametrize(
  ("reference", "name"),
  [
    ("runs/flowers", "flowers"),
    ("runs/flowers/", "flowers"),
    ("runs/flowers/model.npz", "flowers"),
    ("checkpoints/BiT-M-R50x1.npz", "BiT-M-R50x1"),
    ("timm/resnetv2_50x1_bit.goog_in21k", "resnetv2_50x1_bit.goog_in21k"),
    ("net.safetensors", "net"),
  ],
)
def test_short_names(reference, name, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  assert cards.short_name(reference) == name


def test_the_name_of_the_current_folder(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  assert cards.short_name(".") == cards.short_name("model.npz") == tmp_path.name


def test_mistakes(run, quick, call, tmp_path, monkeypatch):
  def mistake(*words):
    status, out, err = call(*words)
    assert (status, out) == (2, "")
    assert "Traceback" not in err
    return err.strip().splitlines()[-1]

  (tmp_path / "there").mkdir()
  (tmp_path / "there/file").touch()
  (tmp_path / "file").touch()
  for out in ("there", "file"):
    said = mistake(run, "--to=npz", f"--out={out}")
    assert said == f"error: {out} exists: delete it, or choose another folder with --out=FOLDER."
  assert "give --out=flowers." in mistake(run, "--to=onnx", "--out=flowers.onnx")
  assert "can't be written to file/out (Not a directory)" in mistake(
    run, "--to=npz", "--out=file/out"
  )
  assert "size must be at least 1" in mistake(run, "--to=npz", "--size=0")
  assert "Unknown checkpoint 'flwers'" in mistake("flwers", "--to=npz")
  (run / "model.npz").rename(run / "other.npz")
  assert "the run isn't finished" in mistake(run, "--to=npz")
  (tmp_path / "empty").mkdir()
  assert "is not a run folder" in mistake("empty", "--to=npz")
  params = synthetic.parameters("R14x0.5", 3)
  del params["head"]
  weights.save(tmp_path / "headless.npz", params)
  assert "has no head" in mistake("headless.npz", "--to=npz")
  (run / "other.npz").rename(run / "model.npz")
  (run / "result.json").write_text("[")
  assert "result.json" in mistake(run, "--to=npz")
  assert sorted(p.name for p in tmp_path.iterdir()) == [
    *("empty", "exports", "file", "headless.npz", "runs", "there")
  ]
  assert list((tmp_path / "exports").iterdir()) == []


@pytest.mark.parametrize(
  ("to", "module", "extra"), [("onnx", "onnx", "onnx"), ("savedmodel", "tensorflow", "savedmodel")]
)
def test_a_library_that_is_not_installed(run, call, tmp_path, monkeypatch, to, module, extra):
  monkeypatch.setitem(sys.modules, module, None)
  status, _, err = call(run, f"--to={to}", "--out=out")
  assert status == 2
  assert f"pip install 'bit_jax[{extra}]'" in err
  assert not (tmp_path / "out").exists()


def test_a_reader_that_is_not_installed(run, call, tmp_path, monkeypatch):
  monkeypatch.setitem(sys.modules, "onnxruntime", None)
  status, out, _ = call(run, "--to=onnx", "--out=out")
  assert status == 0
  assert out.splitlines()[-1] == NOT_COMPARED.format("onnxruntime")
  assert NOT_COMPARED.format("onnxruntime") in (tmp_path / "out/README.md").read_text()


@pytest.mark.parametrize("error", [OSError("Can't load the config"), ImportError("a part of it")])
def test_an_error_of_the_reader_is_not_one_of_the_disk(tmp_path, error):
  def failing(*_):
    raise error

  form = dataclasses.replace(npz_folder.FORM, classify=failing)
  with pytest.raises(type(error), match=str(error)):
    writing.write(exporting.network(), (form,), tmp_path / "out", "x")
  assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("out", [".", "", "../here", "new/.."])
def test_the_current_folder_is_not_replaced(run, quick, call, tmp_path, monkeypatch, out):
  (tmp_path / "here").mkdir()
  monkeypatch.chdir(tmp_path / "here")
  status, _, err = call(run, "--to=npz", f"--out={out}")
  assert (status, "Traceback" in err) == (2, False)
  assert "can't be written to the current folder itself" in err
  assert list((tmp_path / "here").iterdir()) == []


def test_a_link_to_an_empty_folder_is_kept(run, quick, call, tmp_path):
  (tmp_path / "real").mkdir()
  (tmp_path / "link").symlink_to("real")
  assert call(run, "--to=npz", "--out=link")[0] == 0
  assert (tmp_path / "link").is_symlink()
  assert (tmp_path / "real/README.md").exists()


@pytest.mark.parametrize("words", [["run"], ["run", "--to=tflite"], ["--to=npz"]])
def test_the_usage_is_printed(call, words):
  with pytest.raises(SystemExit) as exited:
    call(*words)
  assert exited.value.code == 2


def test_an_existing_empty_folder_is_used(run, quick, call, tmp_path):
  (tmp_path / "out").mkdir()
  assert call(run, "--to=npz", "--out=out")[0] == 0
  assert (tmp_path / "out/README.md").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_is_not_writable(run, quick, call, tmp_path):
  (tmp_path / "locked").mkdir(mode=0o500)
  assert "can't be written" in call(run, "--to=npz", "--out=locked/out")[2]


def test_a_full_disk_leaves_nothing(run, call, tmp_path, monkeypatch):
  def full(*_, **__):
    raise OSError(28, "No space left on device")

  monkeypatch.setattr(npz.np, "savez", full)
  status, _, err = call(run, "--to=npz", "--out=out")
  assert status == 2
  assert "No space left on device" in err
  assert sorted(p.name for p in tmp_path.iterdir()) == ["runs"]


def test_what_a_check_compares():
  images = checking.images()
  assert (images.shape, images.dtype.name) == ((2, 112, 144, 3), "uint8")
  assert images.std() > 50


def test_help_names_every_format(capsys):
  with pytest.raises(SystemExit):
    command.main(["--help"])
  shown = capsys.readouterr().out
  assert all(f"\n  {name} " in shown for name in formats.FORMATS)
  assert tuple(formats.FORMATS) == command._FORMATS
