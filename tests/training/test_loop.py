"""Runs from beginning to end: what they leave behind, and that they can be repeated and resumed."""

import contextlib
import csv
import dataclasses
import hashlib
import json
import os
import resource
import shutil
import signal
import subprocess

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import running
from matplotlib import image as mpl_image
from PIL import Image

from bit_jax import run_config, weights
from bit_jax.data import augmentation, datasets, fewshot, opening, order, pipeline
from bit_jax.data.sources import arrays
from bit_jax.inference import footprint
from bit_jax.inference.programs import Examples, ResidentSet
from bit_jax.models import architectures, resnet_v2
from bit_jax.report import run_page
from bit_jax.runs import per_class, reporting, run_folder
from bit_jax.runtime import devices, errors, exits, numerics, parallel, plots, processes
from bit_jax.training import (
  evaluation,
  fine_tuning,
  finishing,
  loop,
  memory,
  optimizer,
  planning,
  programs,
  resuming,
  setup,
  steps,
)
from bit_jax.weights import download

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", autouse=True)
def _compilation_cache(tmp_path_factory):
  with running.compilation_cache(tmp_path_factory):
    yield


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
  """The folder and result of an uninterrupted run with MixUp, and how often its step was traced."""
  folder = tmp_path_factory.mktemp("finished") / "run"
  programs.train_function.cache_clear()  # else a test before may have traced it already
  step, traces = steps.train_step, []
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(steps, "train_step", lambda *a, **k: (traces.append(0), step(*a, **k))[1])
    return folder, running.train(folder), len(traces)


@pytest.fixture
def no_pictures(monkeypatch):
  """Makes drawing fail at once: it is half of the time of a run, which can do without."""

  def fail(*_, **__):
    raise RuntimeError("no pictures")

  monkeypatch.setattr(plots, "figure", fail)


@pytest.fixture(scope="module")
def digits():
  sources = opening.open_set(datasets.Request("digits", "select")).sources()
  return sources.train, sources.test


def test_a_run_on_a_card_without_bfloat16_says_that_it_computes_in_float32(
  tmp_path, capsys, monkeypatch
):
  card = dataclasses.replace(devices.describe(), kind="Tesla T4", compute_capability="7.5")
  monkeypatch.setattr(devices, "describe", lambda: card)
  running.train(tmp_path, total_steps=1)
  lines = capsys.readouterr().out.splitlines()
  (place,) = (i for i, line in enumerate(lines) if line.startswith("Training on "))
  assert ", float32; " in lines[place]
  assert lines[place + 1].startswith("dtype=auto computes in float32: Tesla T4, compute capability")


def test_the_folder_is_complete(finished):
  folder, result, _ = finished
  names = {p.name for p in folder.iterdir() if not p.name.startswith("events.")}
  assert names == {
    *("config.json", "environment.json", "classes.txt", "parameters.txt", "metrics.jsonl"),
    *("curves.png", "augmented.png", "predictions.png", "model.npz", "fewshot.json"),
    *("per_class.csv", "confusion.csv", "confusion.png", "mistakes.csv", "mistakes.png"),
    *("result.json", "report.html", "checkpoints", ".lock"),
  }
  assert json.loads((folder / "result.json").read_text()) == result
  assert (result["num_test"], result["steps"]) == (159, 6)
  assert result["images_per_second"] == pytest.approx(5 * 16 / result["seconds"])
  config = json.loads((folder / "config.json").read_text())
  assert (config["batch_size"], config["decay_steps"]) == (16, [2, 4, 5])
  environment = json.loads((folder / "environment.json").read_text())
  assert environment["dtype"] == "float32"
  assert environment["data"].startswith("digits of scikit-learn ")
  assert (environment["weights"], environment["weights_sha256"]) == ("none", None)
  assert environment["order"] == order.VERSION
  assert environment["variables"] == numerics.variables()
  assert (folder / "classes.txt").read_text().split() == list("0123456789")
  assert f"top-1 {result['top1']:.2%}</h1>" in (folder / "report.html").read_text()
  for name in ("curves.png", "augmented.png", "predictions.png", "confusion.png", "mistakes.png"):
    assert np.ptp(mpl_image.imread(folder / name)[..., :3]) > 0.9  # not blank


def test_the_metrics_agree_with_the_result(finished):
  folder, result, _ = finished
  assert [(r["step"], r["kind"]) for r in running.rows(folder)] == [
    *[(2, "train"), (3, "eval"), (4, "train"), (6, "train"), (6, "eval")]
  ]
  last = running.rows(folder, "eval")[-1]
  assert (last["loss"], last["top1"]) == (result["loss"], result["top1"])
  c = running.config()
  rates = optimizer.learning_rates(0.003, 1, (2, 4, 5), c.total_steps)
  written = [r["learning_rate"] for r in running.rows(folder, "train")]
  assert written == [float(rates[i - 1]) for i in (2, 4, 6)]
  assert running.scalars(folder, "eval/top1") == [
    (r["step"], pytest.approx(r["top1"])) for r in running.rows(folder, "eval")
  ]


def test_the_first_loss_is_that_of_a_head_of_zeros(finished):
  """Rates of step 0 (warm-up) and an all-zero head leave every logit at zero."""
  first = running.rows(finished[0], "train")[0]
  assert first["loss"] == pytest.approx(np.log(10), abs=1e-5)


@pytest.fixture(scope="module")
def score():
  """Returns top-1, loss and predictions of a run's exported weights, without any of its code."""
  apply = jax.jit(resnet_v2.create("R14x0.5", 10).apply)

  def scored(folder, test, size=32):
    architecture = architectures.find("R14x0.5")
    loaded = weights.load(folder / "model.npz", architecture, head="keep", num_classes=10)
    images = augmentation.prepare_eval(jnp.asarray(test.images), size)
    logits = np.asarray(apply({"params": loaded.params}, images)[0], np.float64)
    shifted = logits - logits.max(1, keepdims=True)
    losses = np.log(np.exp(shifted).sum(1)) - shifted[np.arange(len(test)), test.labels]
    predictions = logits.argmax(1)
    return np.mean(predictions == test.labels), losses.mean(), predictions

  return scored


def test_the_exported_weights_score_the_same_over_every_image_once(finished, digits, score):
  folder, result, _ = finished
  assert len(digits[1]) % 52 % 4  # neither batches nor devices divide them evenly
  top1, loss, _ = score(folder, digits[1])
  assert result["top1"] == pytest.approx(top1, abs=1e-7)
  assert result["loss"] == pytest.approx(loss, abs=1e-5)


def test_the_subset_is_recorded(finished, digits):
  record = json.loads((finished[0] / "fewshot.json").read_text())
  train = digits[0]
  np.testing.assert_array_equal(np.bincount(train.labels[record["indices"]]), np.full(10, 3))
  assert record["indices"] == fewshot.select(train.labels, 3, 0, train.class_names).tolist()


@pytest.mark.usefixtures("no_pictures")
def test_the_same_seed_gives_the_same_weights_and_another_others(finished, tmp_path, capsys):
  result = running.train(tmp_path / "again")
  assert json.loads((tmp_path / "again/result.json").read_text()) == result
  warnings = [f"warning: {n}.png was not written" for n in ("augmented", "curves", "predictions")]
  printed = capsys.readouterr().out
  assert all(text in printed for text in warnings)
  assert (tmp_path / "again/model.npz").read_bytes() == (finished[0] / "model.npz").read_bytes()
  running.train(tmp_path / "other", running.ARGUMENTS + ",seed=1")
  first, other = running.arrays(finished[0]), running.arrays(tmp_path / "other")
  kernel = "resnet/head/conv2d/kernel"
  assert first[kernel].any()
  assert not np.allclose(first[kernel], other[kernel])


def test_a_finished_folder_is_not_run_again(finished, capsys, monkeypatch):
  monkeypatch.setattr(fine_tuning, "_train", lambda *_: pytest.fail("it trained"))
  folder, result, _ = finished
  assert running.train(folder) == result
  assert "is already finished" in capsys.readouterr().out


def test_the_first_process_decides_whether_a_run_is_finished(tmp_path, monkeypatch):
  monkeypatch.setattr(jax, "process_index", lambda: 1)  # it sees no result yet
  monkeypatch.setattr(processes, "gather", lambda value: [{"top1": 0.5}, value])
  assert running.train(tmp_path) == {"top1": 0.5}


def test_the_result_of_images_that_have_changed_is_not_returned(tree, tmp_path):
  shutil.copytree(tree / "train", tmp_path / "set")
  config = running.config("weights=none")
  config.update({"dataset": "folder", "data_path": str(tmp_path / "set"), "shots": None})
  resolved, data = run_config.prepare(config)
  run = run_folder.open_folder(str(tmp_path / "run"))
  run_folder.record_config(run, resolved.to_dict(), run_config.identity)
  identity = data.identity()
  environment = run_folder.describe_environment(data=identity.version, content=identity.content)
  run_folder.record_environment(run, environment)
  numbers = dict.fromkeys(("top1", "loss", "num_train", "num_test", "steps"), 1)
  result = {**numbers, "left_out": {}, "warnings": []}
  run_folder.write_json(run / run_folder.RESULT, result)
  assert fine_tuning.train_and_evaluate(config, str(run)) == result
  broken = tmp_path / "set/3/broken.png"
  before = broken.read_bytes()
  broken.write_bytes(before[:-1] + b"x")
  with pytest.raises(errors.UserError, match="started with other images"):
    fine_tuning.train_and_evaluate(config, str(run))
  broken.write_bytes(before)
  assert fine_tuning.train_and_evaluate(config, str(run)) == result
  broken.unlink()
  with pytest.raises(errors.UserError, match=r"with data set, sha256 .* delete the folder"):
    fine_tuning.train_and_evaluate(config, str(run))


def test_who_finds_another_process_at_it_changes_nothing(tmp_path):
  config = running.config()
  with run_folder.lock(tmp_path):
    run_folder.record_config(tmp_path, config.to_dict(), run_config.identity)
    before = (tmp_path / "config.json").read_text()
    with pytest.raises(errors.UserError, match="Another process is running in"):
      running.train(tmp_path, base_lr=0.5)
  assert (tmp_path / "config.json").read_text() == before


def test_only_a_run_removes_what_a_killed_process_left(finished, tmp_path, monkeypatch):
  """A folder that holds no run may be the user's home, with files of others."""
  name = f".cache.{'0' * 32}"
  own = shutil.copytree(finished[0], tmp_path / "own")
  (own / name).touch()
  with pytest.raises(errors.UserError, match="a run of another config"):
    running.train(own, base_lr=0.5)
  assert (own / name).exists()
  running.train(own)
  assert not (own / name).exists()
  monkeypatch.setattr(fine_tuning.setup, "load", lambda *_, **__: 1 / 0)
  (tmp_path / "home").mkdir()
  (tmp_path / "home" / name).touch()
  with pytest.raises(ZeroDivisionError):
    running.train(tmp_path / "home")
  assert (tmp_path / "home" / name).exists()


def test_a_folder_of_another_config_is_refused(finished):
  with pytest.raises(errors.UserError, match=r"base_lr: 0\.003 there, 0\.5 now"):
    running.train(finished[0], base_lr=0.5)


@pytest.mark.usefixtures("no_pictures")
@pytest.mark.parametrize(
  ("stop_after", "share", "later_share"),
  [(2, 0.4, 0.4), (4, 0.4, 0.0), (2, 0.0, 0.0)],
  ids=["resident", "resident, then streamed", "streamed"],
)
def test_an_interrupted_run_ends_as_if_it_had_not_been(
  finished, tmp_path, capsys, stop_after, share, later_share
):
  """Step 2 has no regular checkpoint; at step 4 there is one of step 3 to replace."""
  interrupted(stop_after, tmp_path, resident_share=share)
  assert not (tmp_path / "result.json").exists()
  capsys.readouterr()
  result = running.train(tmp_path, resident_share=later_share)
  told = "The training and test images are streamed" in capsys.readouterr().out
  assert told == (later_share == 0)
  assert_like(tmp_path, result, finished)


def test_a_run_whose_newest_checkpoint_is_damaged_goes_on_from_the_one_before(
  finished, tmp_path, capsys
):
  """The steps before the first log after step 3 are in that log: the state of step 3 keeps them."""
  interrupted(5, tmp_path)
  arrays = [p for p in (tmp_path / "checkpoints/5/state").rglob("*") if p.is_file()]
  largest = max(arrays, key=lambda p: p.stat().st_size)
  content = bytearray(largest.read_bytes())
  content[len(content) // 2] ^= 1
  largest.write_bytes(content)
  capsys.readouterr()
  result = running.train(tmp_path)
  out = capsys.readouterr().out
  assert (
    " differs from its SHA-256): the one of step 3 is used. 5.unusable can be deleted.\n" in out
  )
  assert "Resuming after step 3.\n" in out
  assert_like(tmp_path, result, finished)
  assert {p.name for p in (tmp_path / "checkpoints").iterdir()} == {"3", "6", "5.unusable"}


@pytest.mark.parametrize("num_devices", [1, 2])
def test_a_run_is_resumed_on_fewer_devices_and_ends_alike_up_to_rounding(
  finished, tmp_path, tmp_path_factory, num_devices
):
  """With MixUp, random crops and flips, which are keyed by the place in the global batch."""
  interrupted(3, tmp_path / "run")  # on four devices
  line = running.command("--workdir", str(tmp_path / "run"))
  flags = running.xla_flags(num_devices)
  process = running.start(line, tmp_path_factory, XLA_FLAGS=flags)
  status, out, err = running.finish(process, seconds=900)  # it compiles for its devices
  assert status == 0, err
  assert "Resuming after step 3.\n" in out
  environment = json.loads((tmp_path / "run" / "environment.json").read_text())
  (part,) = environment["resumed"]
  assert (environment["num_devices"], part["num_devices"]) == (4, num_devices)
  rows, expected = running.rows(tmp_path / "run"), running.rows(finished[0])
  assert [(r["step"], r["kind"]) for r in rows] == [(r["step"], r["kind"]) for r in expected]
  assert [r["loss"] for r in rows] == pytest.approx([r["loss"] for r in expected], rel=1e-5)
  ours, theirs = running.arrays(tmp_path / "run"), running.arrays(finished[0])
  for key, value in theirs.items():
    np.testing.assert_allclose(ours[key], value, atol=1e-5, err_msg=key)


@contextlib.contextmanager
def small_disk(folder):
  """Mounts a file system of 20 MB, where one checkpoint fits; yields how to make it large."""
  if os.geteuid() != 0:
    pytest.skip("only root mounts file systems")
  mount = ["mount", "-t", "tmpfs", "-o", "size=20m", "none", str(folder)]
  if subprocess.run(mount, capture_output=True, check=False).returncode:
    pytest.skip("file systems can't be mounted here")
  try:
    yield lambda: subprocess.run(["mount", "-o", "remount,size=1g", str(folder)], check=True)
  finally:
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@contextlib.contextmanager
def small_files(_):
  """Limits files to 4 MB, less than the arrays of a checkpoint have."""
  soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (4_000_000, hard))
  try:
    yield lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize(
  ("limited", "said", "kept"),
  [
    (
      small_disk,
      r"6 can't be saved in .* \(No space left on device\)\. The state after step 3",
      {"3"},
    ),
    (small_files, r"3 can't be saved in .* \(File too large\)\. Fix this", set()),
  ],
)
def test_a_run_that_a_full_disk_stopped_goes_on_once_there_is_room(
  finished, tmp_path, capfd, limited, said, kept
):
  folder = tmp_path / "disk"
  folder.mkdir()
  with limited(folder) as enlarge:
    with pytest.raises(errors.UserError, match=rf"^The state after step {said}"):
      running.train(folder / "run")
    assert capfd.readouterr().err == ""
    assert {p.name for p in (folder / "run/checkpoints").iterdir() if p.name.isdigit()} == kept
    enlarge()
    result = running.train(folder / "run")
    assert_like(folder / "run", result, finished)
    assert {p.name for p in (folder / "run/checkpoints").iterdir()} == {"3", "6"}


def assert_like(folder, result, finished):
  """Checks that a run ended like the uninterrupted one."""
  whole, expected, _ = finished
  assert {k: result[k] for k in ("loss", "top1")} == {k: expected[k] for k in ("loss", "top1")}
  assert (folder / "model.npz").read_bytes() == (whole / "model.npz").read_bytes()
  assert [comparable(r) for r in running.rows(folder)] == [
    comparable(r) for r in running.rows(whole)
  ]


@pytest.mark.usefixtures("no_pictures")
def test_an_evaluation_is_stopped_between_batches_with_its_state_saved(finished, tmp_path):
  said = "^Stopped in the evaluation after step 3; saved up to step 3 of 6. Run the same"
  with (
    asked_to_stop(reporting.Reporter, "evaluating"),
    pytest.raises(exits.Interrupted, match=said),
  ):
    running.train(tmp_path, checkpoint_every=6)
  assert running.rows(tmp_path, "eval") == []
  result = running.train(tmp_path, checkpoint_every=6)
  whole, expected, _ = finished
  assert {k: result[k] for k in ("loss", "top1")} == {k: expected[k] for k in ("loss", "top1")}
  assert (tmp_path / "model.npz").read_bytes() == (whole / "model.npz").read_bytes()
  assert [comparable(r) for r in running.rows(tmp_path)] == [
    comparable(r) for r in running.rows(whole)
  ]


def test_a_run_that_died_after_its_result_writes_the_other_files(finished, tmp_path, capsys):
  whole, folder = finished[0], tmp_path / "run"
  shutil.copytree(whole, folder)
  (folder / "result.json").unlink()
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(finishing, "_report", lambda *_: exit("killed"))
    with pytest.raises(SystemExit):
      running.train(folder)
  assert (folder / "result.json").exists()
  assert run_folder.finished(folder) is None
  (folder / "mistakes.csv").unlink()
  (folder / "best-3.npz").touch()
  running.train(folder)
  assert (folder / "mistakes.csv").read_bytes() == (whole / "mistakes.csv").read_bytes()
  assert not (folder / "best-3.npz").exists()
  capsys.readouterr()
  (folder / "best-3.npz").touch()  # as if it was killed before it deleted them
  running.train(folder)
  assert "already finished" in capsys.readouterr().out
  assert not (folder / "best-3.npz").exists()


def comparable(row):
  return {k: v for k, v in row.items() if k not in ("images_per_second", "input_wait_share")}


def interrupted(step, folder, *arguments, **changes):
  """Runs until a request to stop after a step."""
  total_steps = {**running.FIELDS, **changes}["total_steps"]
  said = f"^Stopped after step {step}; saved up to step {step} of {total_steps}. Run the same"
  with (
    asked_to_stop(loop.Loop, "_step", lambda _, index, *__: index == step - 1),
    pytest.raises(exits.Interrupted, match=said),
  ):
    running.train(folder, *arguments, **changes)


@contextlib.contextmanager
def asked_to_stop(owner, name, applies=lambda *_: True):
  """Within this context, a call of a function that `applies` ends with a SIGTERM."""
  function = getattr(owner, name)

  def then_asked(*arguments, **more):
    result = function(*arguments, **more)
    if applies(*arguments):
      signal.raise_signal(signal.SIGTERM)
    return result

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(owner, name, then_asked)
    yield


def test_a_run_that_died_before_its_result_only_ends(finished, tmp_path, monkeypatch, capsys):
  whole, expected, _ = finished
  shutil.copytree(whole, tmp_path / "run")
  for name in ("result.json", "model.npz", "curves.png", "report.html"):
    (tmp_path / "run" / name).unlink()
  monkeypatch.setattr(loop.Loop, "_step", lambda *_: pytest.fail("it took a step"))
  with monkeypatch.context() as patch:
    patch.setattr(finishing.weights, "save", lambda *_: (_ for _ in ()).throw(MemoryError))
    said = r"^This machine ran out of memory .* Training is complete and saved in "
    with pytest.raises(errors.UserError, match=said):
      running.train(tmp_path / "run")
  monkeypatch.setattr(run_page, "html", lambda _: 1 / 0)  # costs a warning
  result = running.train(tmp_path / "run")
  assert (result["loss"], result["top1"]) == (expected["loss"], expected["top1"])
  said = "warning: report.html was not written (ZeroDivisionError: division by zero).\n"
  assert said in capsys.readouterr().out
  assert not (tmp_path / "run/report.html").exists()
  assert (tmp_path / "run/model.npz").read_bytes() == (whole / "model.npz").read_bytes()
  assert running.rows(tmp_path / "run") == running.rows(whole)
  assert (tmp_path / "run/curves.png").exists()


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path):
  with pytest.raises(errors.UserError) as e:
    running.train(tmp_path, base_lr=1e30, log_every=1, checkpoint_every=1)
  message = str(e.value)
  assert "The loss is not finite at step 3 (learning rate 1e+30, float32)" in message
  assert "try a smaller base_lr (now 1e+30), a longer warm-up (now 1 steps)" in message
  assert "state after step 2 is kept" in message
  assert {p.name for p in (tmp_path / "checkpoints").iterdir()} == {"1", "2"}
  assert not (tmp_path / "result.json").exists()
  assert all(np.isfinite(r["loss"]) for r in running.rows(tmp_path))


# Two good steps after that of the warm-up, then such as spoil everything.
RATES = np.array([0, *[0.03] * 3, *[1.0] * 8], np.float32)
PATIENT = {"total_steps": 12, "eval_every": 2, "checkpoint_every": 2, "test_size": 40}
PATIENT |= {"keep_best": True, "patience": 2}
PRETRAINED = "shots=3,protocol=select"


@pytest.fixture
def rates(monkeypatch):
  monkeypatch.setattr(optimizer, "learning_rates", lambda *_: RATES)


@pytest.fixture(scope="module")
def patient(tmp_path_factory):
  """The folder and result of a run from the package's own weights that patience ends."""
  folder = tmp_path_factory.mktemp("patient") / "run"
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(optimizer, "learning_rates", lambda *_: RATES)
    return folder, running.train(folder, PRETRAINED, **PATIENT)


def test_patience_ends_a_run_and_the_best_weights_are_its_result(patient, digits, score):
  folder, result = patient
  top1 = {r["step"]: r["top1"] for r in running.rows(folder, "eval")}
  assert list(top1) == [2, 4, 6, 8]
  assert max(top1[s] for s in (2, 6, 8)) < 0.8 * top1[4]
  assert (result["best_step"], result["steps"], result["top1"]) == (4, 8, top1[4])
  scored = score(folder, digits[1], 40)[:2]
  assert (result["top1"], result["loss"]) == (
    pytest.approx(scored[0], abs=1e-7),
    pytest.approx(scored[1], abs=1e-5),
  )
  assert score(folder, digits[1], 32)[1] != pytest.approx(scored[1], abs=1e-3)  # the test size
  assert not list(folder.glob("best*"))


@pytest.mark.usefixtures("no_pictures", "rates")
def test_a_patient_run_is_resumed(patient, tmp_path, monkeypatch, capsys):
  """It is stopped before an evaluation, dies when all is done, and then only has to end."""
  whole, expected = patient
  interrupted(6, tmp_path, PRETRAINED, **PATIENT)
  assert list(tmp_path.glob("best-*.npz"))
  with monkeypatch.context() as patch:
    patch.setattr(finishing.results, "write", lambda *_: exit("killed"))
    with pytest.raises(SystemExit):
      running.train(tmp_path, PRETRAINED, **PATIENT)
  said = "step 4 for 2 evaluations: training ends after step 8.\n"
  assert capsys.readouterr().out.count(said) == 1
  monkeypatch.setattr(loop.Loop, "_step", lambda *_: pytest.fail("it took a step"))
  score, scored = evaluation.Evaluator.score, []
  monkeypatch.setattr(evaluation.Evaluator, "score", lambda *a: (scored.append(a[2]), score(*a))[1])
  result = running.train(tmp_path, PRETRAINED, **PATIENT)
  assert scored == [4]  # the others are on record
  assert said in capsys.readouterr().out
  assert timeless(result) == timeless(expected)
  assert (tmp_path / "model.npz").read_bytes() == (whole / "model.npz").read_bytes()
  assert [comparable(r) for r in running.rows(tmp_path)] == [
    comparable(r) for r in running.rows(whole)
  ]


@pytest.mark.usefixtures("no_pictures", "rates")
@pytest.mark.parametrize("lost", ["row", "weights"])
def test_a_power_cut_that_takes_the_best_evaluation_ends_no_run(
  patient, tmp_path, monkeypatch, capsys, lost
):
  """Of its row and its weights, one brings the other back, or the next best is taken."""
  interrupted(6, tmp_path, PRETRAINED, **PATIENT)
  log = tmp_path / "metrics.jsonl"
  if lost == "row":
    lines = log.read_bytes().splitlines()
    log.write_bytes(
      b"".join((b"\0" * 64 if b'4, "kind": "eval' in s else s) + b"\n" for s in lines)
    )
  else:
    (tmp_path / "best-4.npz").unlink()
  capsys.readouterr()
  result = running.train(tmp_path, PRETRAINED, **PATIENT)
  out = capsys.readouterr().out
  top1 = {r["step"]: r["top1"] for r in running.rows(tmp_path, "eval")}
  assert sorted(top1) == [2, 4, 6, 8]
  if lost == "row":
    assert "1 damaged line" in out
    assert timeless(result) == timeless(patient[1])
  else:
    assert "best_step" not in result
    assert result["top1"] == top1[8]
    assert "those after step 4, are missing: the last weights" in result["warnings"][-1]


@pytest.mark.usefixtures("no_pictures", "rates")
@pytest.mark.parametrize("lost", ["killed", "killed as it saved"])
def test_a_better_evaluation_that_is_lost_leaves_the_one_before(
  patient, tmp_path, monkeypatch, lost
):
  """It comes at step 6; the run goes on after step 4, and this time there is none."""
  fields = {**PATIENT, "checkpoint_every": 4}
  score, step, save = evaluation.Evaluator.score, loop.Loop._step, resuming.Checkpoints.save

  def lucky(self, params, done, *feed):
    found = score(self, params, done, *feed)
    return found if done != 6 else dataclasses.replace(found, means={**found.means, "top1": 1.0})

  def killed(self, i, given):
    return exit("killed") if i == 7 else step(self, i, given)

  def saved(self, state, progress):
    return save(self, state, progress) if int(state.step) < 8 else None  # it was begun at most

  with monkeypatch.context() as patch:
    patch.setattr(evaluation.Evaluator, "score", lucky)
    if lost == "killed":
      patch.setattr(loop.Loop, "_step", killed)
      with pytest.raises(SystemExit):
        running.train(tmp_path, PRETRAINED, **fields)
    else:
      patch.setattr(resuming.Checkpoints, "save", saved)
      interrupted(8, tmp_path, PRETRAINED, **fields)
  assert running.rows(tmp_path, "eval")[-1]["top1"] == 1
  result = running.train(tmp_path, PRETRAINED, **fields)
  whole, expected = patient
  assert result["best_step"] == 4
  assert timeless(result) == timeless(expected)
  assert (tmp_path / "model.npz").read_bytes() == (whole / "model.npz").read_bytes()
  assert not list(tmp_path.glob("best*"))


@pytest.fixture(scope="module")
def parted(tmp_path_factory, digits):
  """The digits as an npz file: 30 images to train on, 60 to choose on, 99 to test."""
  path = tmp_path_factory.mktemp("parted") / "digits.npz"
  train, test = digits
  few = train.take(fewshot.select(train.labels, 3, 0, train.class_names))
  parts = {"train": few, "val": test.take(np.arange(60)), "test": test.take(np.arange(60, 159))}
  np.savez(
    path,
    **{f"{n}_images": e.images for n, e in parts.items()},
    **{f"{n}_labels": e.labels for n, e in parts.items()},
  )
  return path, parts


def on_parts(parted, **changes):
  fields = {"dataset": "npz", "data_path": str(parted[0]), "shots": None, "random_flip": False}
  return {**PATIENT, **fields, **changes}


@pytest.fixture(scope="module")
def chosen_on_val(tmp_path_factory, parted):
  """The folder and result of the patient run on three parts."""
  folder = tmp_path_factory.mktemp("on val") / "run"
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(optimizer, "learning_rates", lambda *_: RATES)
    return folder, running.train(folder, "protocol=final", **on_parts(parted))


def test_weights_are_chosen_on_val_and_the_result_is_that_of_test(
  chosen_on_val, parted, digits, score
):
  folder, result = chosen_on_val
  top1 = {r["step"]: r["top1"] for r in running.rows(folder, "val")}
  best = min(top1, key=lambda step: (-top1[step], step))
  assert list(top1) == list(range(2, best + 5, 2))  # two evaluations without a better one
  assert max(top1.values()) > min(top1.values())
  (tested,) = running.rows(folder, "eval")
  assert (result["best_step"], result["val_top1"], tested["step"]) == (best, top1[best], best)
  assert (result["num_train"], result["num_val"], result["num_test"]) == (30, 60, 99)
  right = score(folder, digits[1], 40)[2] == digits[1].labels
  for part, figure in ((right[:60], result["val_top1"]), (right[60:], result["top1"])):
    assert figure == pytest.approx(part.mean(), abs=1e-7)
  assert (tested["top1"], tested["loss"]) == (result["top1"], result["loss"])
  assert result["warnings"] == []
  assert json.loads((folder / "environment.json").read_text())["chosen_on"] == "val"
  with (folder / "per_class.csv").open() as file:
    classes = list(csv.DictReader(file))
  expected = np.bincount(parted[1]["test"].labels, minlength=10)
  assert [int(c["evaluated_images"]) for c in classes] == expected.tolist()


@pytest.mark.usefixtures("no_pictures", "rates")
def test_a_run_that_chooses_on_val_is_resumed(chosen_on_val, parted, tmp_path, monkeypatch):
  """It is stopped before an evaluation, and dies when the test images have been evaluated."""
  whole, expected = chosen_on_val
  fields = on_parts(parted)
  interrupted(6, tmp_path, "protocol=final", **fields)
  with monkeypatch.context() as patch:
    patch.setattr(finishing.results, "write", lambda *_: exit("killed"))
    with pytest.raises(SystemExit):
      running.train(tmp_path, "protocol=final", **fields)
  assert len(running.rows(tmp_path, "eval")) == 1
  result = running.train(tmp_path, "protocol=final", **fields)
  assert timeless(result) == timeless(expected)
  assert (tmp_path / "model.npz").read_bytes() == (whole / "model.npz").read_bytes()
  assert [comparable(r) for r in running.rows(tmp_path)] == [
    comparable(r) for r in running.rows(whole)
  ]


def timeless(result):
  times = ("seconds", "images_per_second", "startup_seconds")
  return {k: v for k, v in result.items() if k not in times}


@pytest.fixture(scope="module")
def tree(tmp_path_factory, digits):
  """The digits as files, three to train on and all to test, with an unreadable one of each."""
  root = tmp_path_factory.mktemp("tree")
  train = digits[0].take(fewshot.select(digits[0].labels, 3, 0, digits[0].class_names))
  for part, examples in (("train", train), ("test", digits[1])):
    for i, (image, label) in enumerate(zip(examples.images, examples.labels, strict=True)):
      folder = root / part / str(label)
      folder.mkdir(parents=True, exist_ok=True)
      Image.fromarray(image).save(folder / f"{i}.png")
  whole = next((root / "train/3").iterdir()).read_bytes()
  for name in ("train/3/broken.png", "test/5/broken.png"):
    (root / name).write_bytes(whole[:50])
  return root


def on_files(tree, folder, **changes):
  fields = {"dataset": "folder", "data_path": str(tree), "shots": None}
  return running.train(folder, "weights=none", **fields, **changes)


@pytest.mark.parametrize("share", [0.4, 0.0])
def test_broken_images_stop_a_run_with_their_list(tree, tmp_path, share):
  with pytest.raises(errors.UserError) as e:
    on_files(tree, tmp_path / "run", resident_share=share)
  message = str(e.value)
  assert "2 of 191 images can't be read" in message
  assert "--config.on_bad_image=skip" in message
  assert "train/3/broken.png" in message
  assert "test/5/broken.png" in message
  assert not (tmp_path / "run/environment.json").exists()


def test_broken_images_are_left_out_and_classes_told_one_by_one(
  tree, tmp_path, score, monkeypatch, capsys
):
  warning = "The data set is another version."
  monkeypatch.setattr(pipeline, "_differences", lambda *_: [warning])
  result = on_files(tree, tmp_path / "run", on_bad_image="skip")
  left_out = {"unreadable training images": 1, "unreadable test images": 1}
  assert result == {**result, "num_train": 30, "num_test": 159, "left_out": left_out}
  assert result["warnings"] == [warning]
  assert json.loads((tmp_path / "run/result.json").read_text()) == result
  out = capsys.readouterr().out
  assert f"warning: {warning}\n" in out
  assert "warning: 1 unreadable test images are left out.\n" in out
  assert "Every class has 3 training images.\n" in out

  test = files_of(tree / "test")
  top1, _, predictions = score(tmp_path / "run", test)
  assert result["top1"] == pytest.approx(top1, abs=1e-7)
  matrix = per_class.confusion(test.labels, predictions, 10)
  recalls = matrix.diagonal() / matrix.sum(axis=1)
  assert result["balanced_accuracy"] == pytest.approx(recalls.mean(), abs=1e-12)
  f1 = 2 * matrix.diagonal() / (matrix.sum(axis=0) + matrix.sum(axis=1))
  assert result["macro_f1"] == pytest.approx(f1.mean(), abs=1e-12)
  with (tmp_path / "run/confusion.csv").open() as file:
    _, *rows = csv.reader(file)
  assert [[int(v) for v in r[1:]] for r in rows] == matrix.tolist()
  with (tmp_path / "run/per_class.csv").open() as file:
    classes = list(csv.DictReader(file))
  assert [c["class"] for c in classes] == list("0123456789")
  assert {c["training_images"] for c in classes} == {"3"}
  for c, row in zip(classes, matrix, strict=True):
    assert int(c["evaluated_images"]) == row.sum()
    assert float(c["top1"]) == pytest.approx(row[int(c["class"])] / row.sum(), abs=5e-5)


def files_of(folder):
  """Returns the readable images of `<class>/*` as examples."""
  paths = [p for p in sorted(folder.glob("*/*.png")) if p.stem != "broken"]
  images = np.stack([np.array(Image.open(p)) for p in paths])
  labels = np.array([int(p.parent.name) for p in paths], np.int32)
  return arrays.Examples(images, labels, tuple("0123456789"))


def test_processes_stream_what_one_of_them_has_no_room_for(monkeypatch, digits):
  train, test = (pipeline.Part(d, None, d.class_names, d, d.labels) for d in digits)
  data = pipeline.Loaded(train, test, "v", {}, [])
  other = np.array([True, False, False])  # another process must stream its training images
  gather = setup.multihost_utils
  monkeypatch.setattr(gather, "process_allgather", lambda ours: np.stack([ours, other]))
  agreed = setup.agree_on_streams(data)
  assert agreed.train == dataclasses.replace(train, examples=None)
  assert agreed.test.examples is digits[1]
  assert agreed.validation is None
  others = np.array([False, False, True])
  monkeypatch.setattr(gather, "process_allgather", lambda ours: np.stack([ours, others]))
  agreed = setup.agree_on_streams(dataclasses.replace(data, validation=train))
  assert (agreed.train, agreed.test) == (train, test)
  assert agreed.validation == dataclasses.replace(train, examples=None)


def test_a_run_traces_its_step_once(finished):
  assert finished[2] == 1


@pytest.mark.usefixtures("no_pictures")
def test_logs_are_fetched_once_the_next_step_is_sent(tmp_path, monkeypatch, capsys):
  """Then the devices have something to do meanwhile; a log is on the disk before a checkpoint."""
  events, draw, write = [], order.mixup_lambda, reporting.Reporter.train_metrics
  sync, save = reporting.Reporter.sync, resuming.Checkpoints.save
  with monkeypatch.context() as patch:
    patch.setattr(
      order, "mixup_lambda", lambda *a: (events.append(f"step {a[1] + 1}"), draw(*a))[1]
    )
    patch.setattr(
      reporting.Reporter, "train_metrics", lambda *a: (events.append(f"log {a[1]}"), write(*a))[1]
    )
    patch.setattr(reporting.Reporter, "sync", lambda *a: (events.append("sync"), sync(*a)))
    patch.setattr(resuming.Checkpoints, "save", lambda *a: (events.append("save"), save(*a)))
    running.train(tmp_path / "run", log_every=2, eval_every=100, checkpoint_every=100)
  steps_sent = [f"step {i}" for i in range(1, 7)]
  assert events == [
    *(*steps_sent[:3], "log 2", *steps_sent[3:5], "log 4", steps_sent[5], "log 6"),
    *("sync", "save"),
  ]
  out = capsys.readouterr().out
  assert out.count(" a step: the 3 steps left take about ") == 1
  assert out.count(", 1 evaluation not included.") == 1
  assert [r["step"] for r in running.rows(tmp_path / "run", "train")] == [2, 4, 6]


def three_steps(monkeypatch, num_devices, train, resident, events):
  """Takes three steps with MixUp; returns losses, parameters and how many events each caused."""
  monkeypatch.setattr(jax, "local_devices", lambda: jax.devices()[:num_devices])
  model = resnet_v2.create("R14x0.5", 10)
  variables = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
  state = parallel.replicate(
    steps.create_state(jax.device_get(variables["params"]), optimizer.sgd(0.9))
  )
  placed = ResidentSet(train.images, train.labels)
  step = programs.train_function(memory.Task(model, 40, 32, train.images.shape[1:3]))
  layout = order.device_layout(16, num_devices)
  losses, counts = [], []
  for i in range(3):
    indices = order.batch(0, i, 16, len(train))[layout]
    sent = Examples(train.images[indices], train.labels[indices].astype(np.int32))
    examples = placed.take(indices) if resident else parallel.send(sent)
    positions = parallel.send(layout.astype(np.int32))
    arguments = programs.StepArguments(
      key=jax.random.key(0),
      lam=np.float32(order.mixup_lambda(0, i, 0.5)),
      learning_rate=np.float32(0.01),
      flip=np.bool_(True),
      random_crop=np.bool_(True),
    )
    events.clear()
    state, part = step(state, examples, positions, arguments)
    counts.append(len(events))
    losses.append(float(part.loss.compute()))
  return losses, jax.device_get(state.params), counts


@pytest.fixture
def compilations():
  """A list that grows with everything JAX traces, lowers or compiles."""
  seen = []

  def note(event, seconds, **_):
    if event.startswith("/jax/core/compile/"):
      seen.append((event, seconds))

  jax.monitoring.register_event_duration_secs_listener(note)
  yield seen
  jax.monitoring.unregister_event_duration_listener(note)


def test_one_device_and_four_take_the_same_steps_and_compile_once(
  digits, compilations, monkeypatch
):
  assert order.mixup_lambda(0, 1, 0.5) < 0.9  # MixUp does mix
  programs.train_function.cache_clear()  # a run's compilation is shared, but not its tracing
  whole, part = digits[0], digits[0].take(np.arange(30))
  four = three_steps(monkeypatch, 4, part, True, compilations)
  streamed = three_steps(monkeypatch, 4, part, False, compilations)
  longer = three_steps(monkeypatch, 4, whole, True, compilations)
  one = three_steps(monkeypatch, 1, part, True, compilations)
  np.testing.assert_allclose(four[0], one[0], atol=1e-5)
  assert len(set(four[0])) == 3
  for a, b in zip(jax.tree.leaves(four[1]), jax.tree.leaves(one[1]), strict=True):
    np.testing.assert_allclose(a, b, atol=1e-5)
  assert min(four[2][0], one[2][0]) > 0
  assert four[2][1:] == one[2][1:] == [0, 0]
  # However the examples come, and out of however many, it is the same program.
  assert streamed[2] == longer[2] == [0, 0, 0]
  assert streamed[0] == four[0] != longer[0]


@pytest.fixture
def little_memory(monkeypatch):
  """Devices with room for two images of a batch, and no more."""
  monkeypatch.setattr(footprint, "budget", lambda *_: 1_100_000.0)
  monkeypatch.setattr(memory, "least", lambda _: footprint.Need(0, 0))
  monkeypatch.setattr(planning, "compiled_bytes", lambda _, program, images, **__: 5e5 * images)


@pytest.mark.usefixtures("no_pictures")
def test_a_step_is_planned_with_what_state_and_data_leave_of_the_memory(tmp_path, monkeypatch):
  describe, free = devices.describe, []

  def on_an_accelerator():
    taken = sum(array.nbytes for array in jax.live_arrays())
    return dataclasses.replace(describe(), bytes=10**9 - taken)

  monkeypatch.setattr(devices, "describe", on_an_accelerator)
  monkeypatch.setattr(footprint, "budget", lambda on, *_: (free.append(on.bytes), 1e9)[1])
  before = on_an_accelerator().bytes
  running.train(tmp_path)
  state = 2 * sum(array.nbytes for array in running.arrays(tmp_path).values())
  assert free[0] <= before - state


@pytest.mark.usefixtures("no_pictures", "little_memory")
def test_a_run_of_what_does_not_fit_at_once_is_the_same(finished, tmp_path, capsys):
  for asked_in, kept in ((1, "none of 6 steps was done"), (2, "saved up to step 1 of 6")):
    with (
      asked_to_stop(order, "mixup_lambda", lambda _, step, __, n=asked_in: step == n - 1),
      pytest.raises(exits.Interrupted, match=f"^Stopped in step {asked_in}; {kept}. Run the same"),
    ):
      running.train(tmp_path)
  interrupted(3, tmp_path)
  said = "Micro-batches of 2 images: 4 would need about 0.002 GB of 0.0011 GB available."
  assert said in capsys.readouterr().out
  result = running.train(tmp_path, microbatch=4)  # all of a device's share
  folder, expected, _ = finished
  assert result["loss"] == pytest.approx(expected["loss"], abs=1e-5)
  whole, parts = running.arrays(folder), running.arrays(tmp_path)
  for name, array in whole.items():
    np.testing.assert_allclose(parts[name], array, atol=1e-5)
  for row, other in zip(running.rows(tmp_path), running.rows(folder), strict=True):
    assert row["loss"] == pytest.approx(other["loss"], abs=1e-5)
    assert row["top1"] == other["top1"]


def test_a_micro_batch_that_does_not_divide_the_batch(tmp_path):
  with pytest.raises(errors.UserError, match=r"microbatch=3 .* 4 images .*: 2 or 4\."):
    running.train(tmp_path, microbatch=3)


@pytest.mark.parametrize(
  ("error", "fields", "advice"),
  [
    (jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: 9 GB"), {}, "microbatch=2 .now 4 images"),
    (
      jax.errors.JaxRuntimeError("INTERNAL: Out of memory allocating 9 bytes."),
      {"microbatch": 2},
      "momentum_dtype=bfloat16",
    ),
    (MemoryError(), {"microbatch": 2, "momentum_dtype": "bfloat16"}, "resident_share=0"),
  ],
)
def test_the_next_setting_to_try_when_memory_runs_out(monkeypatch, tmp_path, error, fields, advice):
  def fail(*_):
    raise error

  monkeypatch.setattr(programs, "train_function", lambda *_: fail)
  monkeypatch.setattr(programs, "train_in_micro_batches", lambda *_: fail)
  with pytest.raises(errors.UserError, match=f"ran out of memory with R14x0.5.*try .*{advice}"):
    running.train(tmp_path, **fields)


@pytest.mark.parametrize(
  ("changes", "arguments", "said"),
  [
    ({"batch_size": 12}, running.ARGUMENTS, "batch of 12 .* 4 devices.* 8 or 16"),
    ({"batch_size": 6}, running.ARGUMENTS, "batch of 6 .* sizes: 8"),
    (
      {},
      "weights=none,shots=200",
      "has [0-9]+ training images; shots=200 needs 200 per class",
    ),
    ({"dataset": "digit"}, running.ARGUMENTS, "data set 'digit'"),
    ({"head": "keep"}, running.ARGUMENTS, "head=keep needs a checkpoint"),
    ({}, "weights=nowhere.npz,shots=3", r"nowhere\.npz"),
  ],
)
def test_mistakes(tmp_path, changes, arguments, said):
  with pytest.raises(errors.UserError, match=said):
    running.train(tmp_path / "run", arguments, **changes)


def test_weights_may_lie_elsewhere_than_their_name_says(finished, tmp_path, no_pictures):
  before, config = finished[0] / "model.npz", running.config()
  config.weights = "earlier/model.npz"
  fine_tuning.train_and_evaluate(config, str(tmp_path / "run"), str(before))
  recorded = json.loads((tmp_path / "run" / "config.json").read_text())
  assert recorded["weights"] == "earlier/model.npz"
  environment = json.loads((tmp_path / "run" / "environment.json").read_text())
  assert environment["weights_sha256"] == hashlib.sha256(before.read_bytes()).hexdigest()
  with pytest.raises(errors.UserError, match=r"elsewhere\.npz doesn't exist"):
    fine_tuning.train_and_evaluate(config, str(tmp_path / "other"), "elsewhere.npz")


def test_a_folder_below_a_file(tmp_path):
  (tmp_path / "file").write_text("")
  with pytest.raises(errors.UserError, match="can't be written"):
    running.train(tmp_path / "file" / "sub")


def test_without_weights_and_network(tmp_path, monkeypatch):
  monkeypatch.setattr(download, "RETRY_DELAYS", ())
  closed = "http://127.0.0.1:9"  # nothing listens there
  for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
    monkeypatch.setenv(name, closed)
  monkeypatch.setenv("BIT_JAX_MIRRORS", closed)
  with pytest.raises(errors.UserError, match=r"BiT-M-R50x1.*http://127.0.0.1:9"):
    running.train(tmp_path, "model=BiT-M-R50x1,shots=3")


def test_a_set_that_is_not_prepared(tmp_path):
  with pytest.raises(errors.UserError, match=r"cifar10 .* is not prepared"):
    running.train(tmp_path / "run", dataset="cifar10", data_dir=str(tmp_path / "tfds"))


def test_a_set_that_is_not_prepared_is_named_before_a_checkpoint_is_downloaded(
  tmp_path, monkeypatch
):
  monkeypatch.setattr(download, "RETRY_DELAYS", ())
  monkeypatch.setenv("BIT_JAX_MIRRORS", "http://127.0.0.1:9")
  changes = {"dataset": "cifar10", "data_dir": str(tmp_path / "tfds")}
  with pytest.raises(errors.UserError, match=r"cifar10 .* is not prepared"):
    running.train(tmp_path / "run", "model=BiT-M-R50x1", **changes)
