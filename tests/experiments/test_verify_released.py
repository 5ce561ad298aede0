"""Tests of experiments.verify_released."""

import csv
import dataclasses
import json

import generated_tfds
import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import running
import synthetic
from hypothesis import strategies as st

from bit_jax import weights
from bit_jax.data import augmentation, vtab
from bit_jax.data.sources import arrays
from bit_jax.models import architectures, resnet_v2
from bit_jax.runtime import cache, errors, exits
from bit_jax.weights import catalogue
from experiments import evaluation, published, released, verify_released

EXPECTED = published.Result("top1", 97.64, 0.005, "a colab")
CHECK = released.Check("some", "some", "cifar10", evaluation.View(128), (EXPECTED,))
BROKEN = verify_released.Row("some", "cifar10", "128 square", remark="repair it")
MISSING = dataclasses.replace(BROKEN, remark="get it", missing_file="vtab/some.npz")


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


def test_a_user_s_file_against_its_card(own, accuracy, tmp_path, capsys):
  assert run(f"--weights={own}", "--dataset=digits", "--size=16") == 0
  assert f"none      {accuracy:.2f}%" in capsys.readouterr().out

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
  assert "by more than 0.1 points plus rounding in 1 figure: own." in printed.err


def test_missing_checkpoints_are_listed(tmp_path, capsys):
  out = tmp_path / "rows.json"
  assert run("BiT-M-R50x1-CIFAR10", f"--out={out}") == exits.USER_ERROR
  printed = capsys.readouterr()
  table, note = printed.out.split("\n\n", 1)
  facts = "1 checkpoint missing", cache.directory(), catalogue.BASE_URL, "--download"
  assert all(str(fact) in note for fact in facts)
  assert table.split()[-3:] == ["BiT-M-R50x1-CIFAR10", "missing:", "BiT-M-R50x1-CIFAR10.npz"]
  assert "Nothing could be evaluated" in printed.err
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


def test_missing_data_are_reported_and_the_others_evaluated(own, tmp_path, monkeypatch, capsys):
  monkeypatch.setattr(released, "names", lambda: ["R14x0.5-CIFAR100", "BiT-M-R50x1-CIFAR10"])
  assert run(f"--data_dir={tmp_path}", f"--out={tmp_path / 'rows.csv'}") == exits.USER_ERROR
  _, first, second, *_ = capsys.readouterr().out.splitlines()
  assert "not evaluated: The data set cifar100 3.0.2 is not prepared" in first
  assert "python -m bit_jax.data doctor cifar100 --download --data_dir=" in first
  assert second.endswith("missing: BiT-M-R50x1-CIFAR10.npz")
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
    ([], 296),
  ],
)
def test_patterns_choose_names(patterns, names, monkeypatch, capsys):
  seen = []

  def rows(check, options):
    seen.append(check.name)
    return [verify_released.Row(check.name, "", "", measured=1.0)]

  monkeypatch.setattr(verify_released, "_rows", rows)
  assert run(*patterns) == 0
  assert len(set(seen)) == names


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    (["BiT-X"], "No checkpoint with a published accuracy has a name like 'BiT-X'"),
    (["BiT-S"], "has a name like 'BiT-S'"),
    (["--dataset=cifar10"], "--weights=PATH"),
    (["--weights=a.npz", "CIFAR"], "not both"),
    (["--weights=a.npz"], "a.npz doesn't exist"),
    (["--batch=0"], "--batch must be at least 1"),
    (["--size=0"], "--size must be at least 1"),
    (["--out=a.txt"], "must be a .json or .csv file"),
    (["--out=no/a.csv"], "in an existing folder"),
  ],
)
def test_mistakes_end_in_a_sentence(arguments, message, capsys):
  assert run(*arguments) == exits.USER_ERROR
  printed = capsys.readouterr()
  assert message in printed.err
  assert printed.out == ""


def test_a_damaged_file_stops_no_other(own, tmp_path, capsys):
  own.write_bytes(own.read_bytes()[:1000])
  assert run(f"--weights={own}", "--dataset=digits", "--size=16") == exits.USER_ERROR
  _, first, *_ = capsys.readouterr().out.splitlines()
  assert "not evaluated: " in first
  assert "truncated" in first


def test_a_head_of_another_size(own, capsys):
  weights_of_ten = f"--weights={own}"
  assert run(weights_of_ten, "--dataset=cifar100", "--data_dir=/nowhere") == exits.USER_ERROR
  assert "is not prepared" in capsys.readouterr().out


def test_ctrl_c_keeps_what_is_done(own, tmp_path, monkeypatch, capsys):
  check = released.of_file(str(own), "digits", 16)
  monkeypatch.setattr(verify_released, "_checks", lambda options: check * 2)
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
  assert "25.00%" in capsys.readouterr().out


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
  assert "44.54%    44.54%    +0.00 " in top1
  assert "74.83%    74.83%    +0.00 " in top5


def row(measured, **changes):
  (found,) = verify_released.rows(CHECK, {"loss": 0.1, "top1": measured / 100}, 10_000, [])
  return dataclasses.replace(found, **changes)


@pytest.mark.parametrize(
  ("measured", "verdict"),
  [
    (97.64, "equal"),
    (97.54, "equal"),
    (97.745, "equal"),  # by the tolerance and the rounding
    (97.75, "different"),
    (97.53, "different"),
  ],
)
def test_verdicts(measured, verdict):
  found = row(measured)
  assert found.verdict == verdict
  assert found.difference == pytest.approx(measured - 97.64)


@hypothesis.given(st.floats(0, 100))
def test_a_verdict_is_by_the_size_of_the_difference(measured):
  off = abs(measured - 97.64)
  hypothesis.assume(abs(off - 0.105) > 1e-6)
  assert row(measured).verdict == ("equal" if off < 0.105 else "different")


def test_nothing_is_judged_that_can_not_be_compared():
  assert row(50.0, remark="Incomplete.").verdict == "measured"
  (found,) = verify_released.rows(CHECK, {"top1": 0.5}, 12, ["The set is incomplete."])
  assert (found.verdict, found.remark) == ("measured", "The set is incomplete.")
  assert row(50.0, expected=None).verdict == "measured"


def test_a_row_for_each_published_value_that_was_measured():
  others = (EXPECTED, published.Result("top5", 99.0, 0.05, "a colab"))
  check = dataclasses.replace(CHECK, expected=others)
  found = verify_released.rows(check, {"top1": 0.9, "top5": 0.99}, 10, [])
  assert [(r.metric, r.measured) for r in found] == [("top1", 90.0), ("top5", 99.0)]
  assert len(verify_released.rows(check, {"top1": 0.9}, 10, [])) == 1  # of few classes


def test_lines_have_their_columns_below_the_titles():
  header = verify_released._columns(verify_released._TITLES)
  line = verify_released.line(row(97.5))
  for title, text in (
    ("checkpoint", "some"),
    ("data set", "cifar10"),
    ("test size", "128 square"),
    ("images", "10,000"),
    ("metric", "top1"),
    ("expected", "97.64%"),
    ("measured", "97.50%"),
    ("difference", "-0.14 !"),
    ("source", "a colab"),
  ):
    assert line[header.index(title) :].startswith(text)
  assert verify_released.line(row(97.6)).split()[-3:] == ["-0.04", "a", "colab"]
  assert "-0.14 *" in verify_released.line(row(97.5, remark="Incomplete."))


def test_lines_of_what_was_not_measured():
  assert verify_released.line(BROKEN).endswith("not evaluated: repair it")
  assert verify_released.line(MISSING).split() == ["some", "missing:", "vtab/some.npz"]


def test_notes_have_a_legend_and_remarks():
  legend, remark = verify_released.notes([row(97.6), row(97.6, remark="Odd.")])
  assert all(f"{mark}: " in legend for mark in ("square", "A of B", "!", "*"))
  assert "0.1 points" in legend
  assert remark == "Odd."
  (absent,) = verify_released.notes([MISSING, MISSING])
  assert absent.startswith("1 checkpoint missing in ")


def scored(architecture, run, tasks, value, rule="paper"):
  return [
    verify_released.Row(
      f"BiT-M-{architecture}-run{run}-{task}",
      f"vtab/{task}",
      f"{released.vtab_sizes(task)[rule]} square",
      measured=value,
    )
    for task in tasks
  ]


def test_means_say_over_how_many_tasks():
  found = scored("R101x3", 1, vtab.TASKS[:3], 80.0) + scored("R101x3", 1, vtab.TASKS[3:4], 60.0)
  lines = list(verify_released.vtab_lines(found))
  assert lines[0] == "BiT-M-R101x3 run 1, sizes of paper: 75.00% over 4 of 19 tasks"
  assert not any("expected" in line for line in lines)


def test_a_whole_run_is_compared_with_the_published_score():
  found = scored("R101x3", 0, vtab.TASKS, 72.0)
  paper, *others = verify_released.vtab_lines(found)
  assert paper.startswith("BiT-M-R101x3 run 0, sizes of paper: 72.00% over 19 of 19 tasks; ")
  assert "expected 72.65% (big_transfer README VTAB-1k table" in paper
  assert paper.endswith("-0.65")
  assert [line.endswith("over 5 of 19 tasks") for line in others] == [True]  # 128 is both's


def test_nothing_of_vtab_nothing_of_means():
  assert list(verify_released.vtab_lines([row(97.6), MISSING])) == []


def test_what_ends_in_an_error():
  verify_released.require([MISSING, row(97.6)])
  verify_released.require([row(50.0, remark="Incomplete.")])
  with pytest.raises(errors.UserError, match="Nothing could be evaluated"):
    verify_released.require([MISSING, MISSING])
  with pytest.raises(errors.UserError, match=r"0\.1 .* 1 figure: some"):
    verify_released.require([MISSING, row(97.6), row(90.0)])


def test_rows_are_written(tmp_path):
  found = [row(97.6), MISSING]
  verify_released.write(tmp_path / "rows.json", found)
  verify_released.write(tmp_path / "rows.csv", found)
  written = json.loads((tmp_path / "rows.json").read_text())
  assert [r["verdict"] for r in written] == ["equal", "missing"]
  assert written[0]["difference"] == pytest.approx(-0.04)
  with (tmp_path / "rows.csv").open(newline="") as file:
    table = list(csv.DictReader(file))
  assert [r["checkpoint"] for r in table] == ["some", "some"]
  assert float(table[0]["measured"]) == pytest.approx(97.6)
  assert table[1]["measured"] == ""
