"""Tests of experiments.verify_released."""

import json

import generated_tfds
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import running
import synthetic

from bit_jax import weights
from bit_jax.data import augmentation
from bit_jax.data.sources import arrays
from bit_jax.models import architectures, resnet_v2
from bit_jax.runtime import cache, exits
from bit_jax.weights import catalogue
from experiments import evaluation, verify_released


def run(*arguments):
  return exits.run(verify_released.main, ["verify_released", *map(str, arguments)])


@pytest.fixture(scope="module", autouse=True)
def _compilation_cache(tmp_path_factory):
  with running.compilation_cache(tmp_path_factory):
    yield


def varied():
  params = synthetic.parameters("R14x0.5", 10)
  params["head"]["conv2d"]["kernel"] *= 9  # so that predictions vary
  return params


@pytest.fixture
def own(tmp_path):
  """A checkpoint of ten classes."""
  weights.save(tmp_path / "own.npz", varied())
  return tmp_path / "own.npz"


@pytest.fixture(scope="module")
def accuracy():
  """Top-1 of `own` on the digits in per cent, by the network alone."""
  test = arrays.load_digits()[1]
  model = resnet_v2.create("R14x0.5", 10)
  inputs = augmentation.prepare_eval(jnp.asarray(test.images), 16)
  predictions = np.asarray(jax.jit(model.apply)({"params": varied()}, inputs)[0]).argmax(1)
  assert len(set(predictions.tolist())) > 3
  return 100 * np.mean(predictions == test.labels)


def write_card(path, top1):
  text = f"{top1:.2f}% top-1, 90.00% top-5 on the 1,000 digits test images, resized to 16 pixels"
  path.with_suffix(".md").write_text(text)


def test_a_file_of_ones_own_against_its_card(own, accuracy, tmp_path, capsys):
  assert run(f"--weights={own}", "--dataset=digits", "--size=16") == 0
  assert f"none      {accuracy:.2f} %" in capsys.readouterr().out

  write_card(own, accuracy)
  out = tmp_path / "rows.json"
  assert run(f"--weights={own}", f"--out={out}") == 0
  (row,) = json.loads(out.read_text())
  assert (row["metric"], row["images"], row["verdict"]) == ("top1", 1_000, "equal")
  assert row["measured"] == pytest.approx(accuracy, abs=1e-4)
  assert row["source"] == "model card own.md"

  write_card(own, accuracy + 0.2)
  assert run(f"--weights={own}") == exits.USER_ERROR
  printed = capsys.readouterr()
  assert "-0.20 !" in printed.out
  assert "1 figures are off by more than 0.1 points and their rounding: own." in printed.err


def test_what_is_missing_is_told_exactly(tmp_path, capsys):
  out = tmp_path / "rows.json"
  assert run("BiT-M-R50x1-CIFAR10", f"--out={out}") == exits.USER_ERROR
  printed = capsys.readouterr()
  told, base, rest, empty, header, line, *others = printed.out.splitlines()
  assert told == (
    f"1 of 1 checkpoints are missing; looked for in {cache.directory()} ($BIT_JAX_CACHE)."
  )
  size = 4 * weights.find("BiT-M-R50x1-CIFAR10").num_parameters / 1e9
  assert base == f"--download gets them from {catalogue.BASE_URL} ({size:.1f} GB),"
  assert rest == "or put them into that folder, each at the path that stands in its line."
  assert line.split() == ["BiT-M-R50x1-CIFAR10", "missing:", "BiT-M-R50x1-CIFAR10.npz"]
  assert (empty, header.split()[0], others) == ("", "checkpoint", [""])
  assert printed.err == (
    "error: Nothing could be evaluated: above it says what is missing, and what to do about it.\n"
  )
  (row,) = json.loads(out.read_text())
  assert row["verdict"] == "missing"
  assert row["missing_file"] == "BiT-M-R50x1-CIFAR10.npz"
  assert "python -m bit_jax.weights download BiT-M-R50x1-CIFAR10" in row["remark"]


def test_a_missing_file_is_one_short_line_however_often_it_would_be_evaluated(tmp_path, capsys):
  out = tmp_path / "rows.json"
  assert run("BiT-M-R152x4-run*-smallnorb-*", "run0-dtd", f"--out={out}") == exits.USER_ERROR
  lines = [line for line in capsys.readouterr().out.splitlines() if "missing: " in line]
  assert len(lines) == len({line.split()[0] for line in lines}) == 3 * 2 + 5
  assert all(len(line) <= 100 for line in lines)
  assert "missing: vtab/BiT-M-R152x4-run0-dtd.npz" in "\n".join(lines)
  assert len(json.loads(out.read_text())) == 2 * (3 * 2 + 5)  # at 384 and at 480 pixels


def test_where_all_is_at_hand_nothing_is_said_of_what_is_missing(tmp_path, capsys):
  assert run("R14x0.5-CIFAR100", f"--data_dir={tmp_path}") == exits.USER_ERROR
  assert capsys.readouterr().out.startswith("checkpoint  ")


def test_missing_data_are_told_and_the_others_evaluated(own, tmp_path, monkeypatch, capsys):
  monkeypatch.setattr(
    verify_released.released, "names", lambda: ["R14x0.5-CIFAR100", "BiT-M-R50x1-CIFAR10"]
  )
  assert run(f"--data_dir={tmp_path}", f"--out={tmp_path / 'rows.csv'}") == exits.USER_ERROR
  first, second, empty, reason = capsys.readouterr().out.splitlines()[-4:]
  assert first.split()[-3:] == ["not", "evaluated", "[1]"]
  assert second.endswith("missing: BiT-M-R50x1-CIFAR10.npz")
  assert empty == ""
  assert reason.startswith("[1] The data set cifar100 3.0.2 is not prepared")
  assert "python -m bit_jax.data doctor cifar100 --download --data_dir=" in reason
  assert (tmp_path / "rows.csv").read_text().count(",missing\n") == 2


def test_nothing_is_downloaded_unless_asked(monkeypatch):
  asked = []
  monkeypatch.setattr(weights, "resolve", lambda name: asked.append(name) or weights.locate(name))
  run("BiT-M-R50x1-CIFAR10")
  assert asked == []
  run("BiT-M-R50x1-CIFAR10", "--download")
  assert asked == ["BiT-M-R50x1-CIFAR10"]


@pytest.mark.parametrize(
  ("patterns", "names"),
  [
    (["BiT-M-*-ILSVRC2012"], 6),
    (["ILSVRC2012", "BiT-M-R50x1-ILSVRC2012"], 6),
    (["_T_"], 2),
    (["run0-dtd"], 5),
    ([], 297),
  ],
)
def test_patterns_choose_names(patterns, names, monkeypatch, capsys):
  seen = []

  def rows(check, options):
    seen.append(check.name)
    return [verify_released.verification.Row(check.name, "", "", measured=1.0)]

  monkeypatch.setattr(verify_released, "_rows", rows)
  assert run(*patterns) == 0
  assert len(set(seen)) == names


@pytest.mark.parametrize(
  ("arguments", "said"),
  [
    (["BiT-X"], "nothing to verify of 'BiT-X': no checkpoint has such a name"),
    (["BiT-S"], "BiT-S-R50x1 has no published accuracy"),
    (["--dataset=cifar10"], "--dataset and --size are for a file of your own"),
    (["--weights=a.npz", "CIFAR"], "not both"),
    (["--weights=a.npz"], "a.npz doesn't exist"),
    (["--batch=0"], "--batch must be at least 1"),
    (["--out=a.txt"], "must end in .json or .csv"),
  ],
)
def test_mistakes_are_told(arguments, said, capsys):
  assert run(*arguments) == exits.USER_ERROR
  printed = capsys.readouterr()
  assert said in printed.err
  assert printed.out == ""


def test_a_damaged_file_stops_no_other(own, tmp_path, capsys):
  own.write_bytes(own.read_bytes()[:1000])
  assert run(f"--weights={own}", "--dataset=digits", "--size=16") == exits.USER_ERROR
  assert "not evaluated [1]" in (out := capsys.readouterr().out)
  assert "truncated" in out


def test_a_head_of_another_size(own, capsys):
  weights_of_ten = f"--weights={own}"
  assert run(weights_of_ten, "--dataset=cifar100", "--data_dir=/nowhere") == exits.USER_ERROR
  assert "is not prepared" in capsys.readouterr().out


def test_ctrl_c_keeps_what_is_done(own, tmp_path, monkeypatch, capsys):
  check = verify_released.released.of_file(str(own), "digits", 16)
  monkeypatch.setattr(verify_released, "_checks", lambda options: check * 2)
  monkeypatch.setattr(verify_released.verification, "missing", lambda names: "")
  calls = []

  def evaluate(*_, **__):
    calls.append(1)
    if len(calls) == 2:
      raise KeyboardInterrupt
    return {"top1": 0.25}

  monkeypatch.setattr(evaluation, "evaluate", evaluate)
  out = tmp_path / "rows.json"
  assert run(f"--out={out}") == exits.INTERRUPTED
  assert [row["measured"] for row in json.loads(out.read_text())] == [25.0]
  assert "25.00 %" in capsys.readouterr().out


@pytest.mark.slow
def test_a_synthetic_cifar10_checkpoint_in_the_cache(synth_npz, tmp_path, monkeypatch, capsys):
  """The measured figure is that of the network applied by hand to images resized by TensorFlow."""
  from bit_jax.data.sources import tfds_builders

  count = 24
  random = np.random.default_rng(0)
  colours = random.integers(0, 256, (count, 4, 4, 3)).repeat(8, 1).repeat(8, 2).astype(np.uint8)
  resized = tfds_builders.tf.image.resize(colours.astype(np.float32), (128, 128)).numpy()
  contents = synth_npz.checkpoint("R50x1", 10)
  path = cache.directory() / "BiT-M-R50x1-CIFAR10.npz"
  path.parent.mkdir(parents=True, exist_ok=True)
  np.savez(path, **contents)
  architecture = architectures.find("R50x1")
  params = weights.load(path, architecture, head="keep", num_classes=10).params
  apply = jax.jit(resnet_v2.create("R50x1", 10).apply)
  scores = np.asarray(apply({"params": params}, resized / 127.5 - 1)[0])
  contents["resnet/head/conv2d/bias"] -= scores.mean(0)  # so that predictions vary
  np.savez(path, **contents)
  predictions = (scores - scores.mean(0)).argmax(1)
  assert len(set(predictions.tolist())) > 3
  labels = np.where(random.random(count) < 0.6, predictions, (predictions + 1) % 10)
  expected = 100 * np.mean(predictions == labels)
  assert 0 < expected < 100

  plain = generated_tfds.example

  def example(builder, tfds_name, split, position):
    found = plain(builder, tfds_name, split, position)
    return {**found, "image": colours[position], "label": int(labels[position])}

  monkeypatch.setattr(generated_tfds, "example", example)
  # No training image is there to be read.
  parts = {"train": [(0, 3, False)], "test": [(0, 10, True), (10, count, True)]}
  generated_tfds.prepare("cifar10", tmp_path, parts)
  out = tmp_path / "rows.json"
  assert run("R50x1-CIFAR10", f"--data_dir={tmp_path}", f"--out={out}") == 0
  rows = json.loads(out.read_text())
  assert [row["expected"] for row in rows] == [97.64, 97.62, 97.61]
  assert {row["images"] for row in rows} == {count}
  assert [row["measured"] for row in rows] == pytest.approx(3 * [expected], abs=1e-4)
  assert {row["verdict"] for row in rows} == {"measured"}  # 24 images aren't CIFAR-10
  assert "holds 24 test images where 10,000 were expected" in capsys.readouterr().out


@pytest.mark.slow
def test_the_embedded_checkpoint_reaches_its_card_on_the_real_images(tfds_dir, capsys):
  assert run("R14x0.5-CIFAR100", f"--data_dir={tfds_dir}") == 0
  top1, top5 = capsys.readouterr().out.splitlines()[1:3]
  assert "44.54 %   44.54 %   +0.00 " in top1
  assert "74.83 %   74.83 %   +0.00 " in top5
