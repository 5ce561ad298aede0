"""What is read of one folder, and why another can't be."""

import json
import math

import pytest
import run_folders

from bit_jax import run_config
from experiments import reduced


def test_a_run_of_a_sweep(tmp_path):
  config = run_folders.reduced("model=R14x0.5,shots=10,seed=3")
  result = {"top5": 0.9, "warnings": ["Two images are the same."]}
  run_folders.write(
    tmp_path / "a", config, 0.44, sweep="offline", seconds=(10.5, 71.25), result=result
  )
  run = run_folders.only(tmp_path)
  assert (run.name, run.sweep, run.model, run.architecture) == (
    "a",
    "offline",
    "R14x0.5",
    "R14x0.5",
  )
  assert (run.start, run.network) == ("R14x0.5-CIFAR100", "R14x0.5-CIFAR100")
  assert (run.dataset, run.protocol, run.regime) == ("cifar10", "final", "small")
  assert (run.shots, run.seed, run.per_class) == (10, 3, 10)
  assert run.metrics == {"top1": 0.44, "top5": 0.9, "loss": 1.5}
  assert (run.num_train, run.num_test, run.num_classes, run.steps) == (100, 10_000, 10, 100)
  assert (run.wall_seconds, run.step_seconds, run.images_per_second) == (81.75, 23.5, 272.0)
  assert run.startup_seconds == 9.75
  assert (run.devices, run.num_devices) == (("cpu",), 1)
  assert (run.checkpoint_sha256, run.started) == (run_folders.SHA, "2026-11-22T08:51:09+00:00")
  assert run.config_hash == run_config.config_hash(config)
  assert run_config.default_workdir(config).endswith(f"-{run.config_hash}")
  assert run.reason == reduced.REASON
  assert run.warnings == ("Two images are the same.",)
  assert run.complete


@pytest.mark.parametrize(
  ("shots", "regime", "per_class"),
  [(",shots=1", "small", 1), (",shots=2000", "medium", 2000), ("", "medium", 5000)],
)
def test_the_regime_and_examples_of_each_class(tmp_path, shots, regime, per_class):
  run_folders.write(tmp_path, run_folders.config(f"model=R14x0.5{shots}"), 0.5)
  assert (run_folders.only(tmp_path).regime, run_folders.only(tmp_path).per_class) == (
    regime,
    per_class,
  )


def test_the_largest_regime(tmp_path):
  run_folders.write(tmp_path, run_folders.config("model=BiT-M-R50x1", "imagenet2012"), 0.8)
  assert run_folders.only(tmp_path).regime == "large"


def test_what_the_network_has_seen_is_a_warning(tmp_path):
  run_folders.write(tmp_path, run_folders.config("model=R14x0.5", "vtab/cifar100"), 0.5)
  (warning,) = run_folders.only(tmp_path).warnings
  assert warning == "R14x0.5-CIFAR100 was pre-trained on the same images and labels."


def test_the_user_s_own_images_whose_file_is_gone(tmp_path, npz_path):
  config = run_folders.config("model=R14x0.5", "npz", data_path=npz_path)
  environment = {"data": f"set.npz, sha256 {'0123456789abcdef'}"}
  folder = run_folders.write(tmp_path / "run", config, 0.5, environment=environment)
  (folder / "classes.txt").write_text("cat\ndog\n")
  there = run_folders.only(tmp_path / "run")
  fields = json.loads((folder / "config.json").read_text())
  run_folders.dump(folder / "config.json", {**fields, "data_path": "/nowhere/set.npz"})
  gone = run_folders.only(tmp_path / "run")
  assert there.dataset == gone.dataset == "set.npz (01234567)"
  assert there.rule == "as the rule"
  assert gone.rule == (
    "unknown (if the images are smaller than 96 x 96 pixels, which isn't recorded)"
  )
  assert there.recipe == gone.recipe
  assert gone.per_class == 10
  assert not gone.complete  # nobody knows


def test_an_unknown_data_set_or_model_counts_with_what_is_known(tmp_path):
  folder = run_folders.write(tmp_path, run_folders.config("model=R14x0.5,weights=none"), 0.5)
  fields = json.loads((folder / "config.json").read_text())
  other = {"dataset": "imagenet-v3", "model": "ViT-B/16"}
  run_folders.dump(folder / "config.json", {**fields, **other})
  run = run_folders.only(tmp_path)
  assert (run.dataset, run.architecture) == ("imagenet-v3", "ViT-B/16")
  assert run.network == "ViT-B/16, random initialisation"
  assert run.num_classes is None
  assert run.per_class is None
  assert run.rule == (
    "random_crop on (rule: unknown), random_flip on (rule: unknown); if the images are smaller "
    "than 96 x 96 pixels, which isn't recorded"
  )


WITHOUT = object()


@pytest.mark.parametrize(
  ("file", "change", "reason"),
  [
    ("config.json", {"preset": WITHOUT}, "config.json lacks preset"),
    (
      "config.json",
      dict.fromkeys(("dataset", "protocol", "model", "weights", "seed"), WITHOUT),
      "config.json lacks dataset, protocol, model, weights, seed",
    ),
    ("config.json", {"seed": "1"}, "wrong type of seed"),
    ("config.json", {"shots": 1.5, "seed": "1"}, "wrong type of seed"),
    ("config.json", {"data_path": [1]}, "wrong type of data_path"),
    ("config.json", {"base_lr": 10**400}, "wrong type of base_lr"),
    ("config.json", {"decay_steps": "1"}, "wrong type of decay_steps"),
    ("config.json", {"decay_steps": WITHOUT}, "config.json lacks decay_steps"),
    ("result.json", {"top1": WITHOUT}, "top1 is None"),
    ("result.json", {"top1": math.nan}, "top1 is nan"),
    ("result.json", {"top1": 44.08}, "top1 is 44.08"),
    ("result.json", {"top1": "0.5"}, "top1 is 0.5"),
    ("result.json", {"num_train": 0}, "num_train is 0"),
  ],
)
def test_what_cannot_count_has_a_reason(tmp_path, file, change, reason):
  folder = run_folders.write(tmp_path / "run", run_folders.config(), 0.5)
  fields = {**json.loads((folder / file).read_text()), **change}
  run_folders.dump(folder / file, {k: v for k, v in fields.items() if v is not WITHOUT})
  found = run_folders.collected(tmp_path)
  assert found.runs == ()
  ((name, text),) = found.left_out
  assert name == "run"
  assert reason in text


def test_a_result_alone_is_no_run(tmp_path):
  run_folders.dump(tmp_path / "a" / "result.json", {"top1": 0.5, "num_train": 3})
  assert run_folders.collected(tmp_path).left_out == (("a", "config.json is missing"),)


def test_fields_of_the_result_that_may_be_missing(tmp_path):
  names = ("loss", "num_test", "steps", "seconds", "images_per_second", "warnings", "left_out")
  result = dict.fromkeys(names)
  run_folders.write(tmp_path, run_folders.config(), 0.5, result=result)
  run = run_folders.only(tmp_path)
  assert run.metrics == {"top1": 0.5}
  assert (run.num_test, run.steps, run.step_seconds, run.images_per_second) == (None,) * 4
  assert run.warnings == ()
  assert not run.complete


@pytest.mark.parametrize(
  "sweep",
  [{}, {"sweep": 3, "labels": [], "attempts": "x"}, {"attempts": [{"seconds": None}, 1]}],
)
def test_what_a_foreign_sweep_left(tmp_path, sweep):
  run_folders.write(tmp_path, run_folders.config(), 0.5)
  run_folders.dump(tmp_path / "sweep.json", sweep)
  assert run_folders.only(tmp_path).wall_seconds is None


def test_a_run_that_went_on_elsewhere_names_both_devices_and_machines(tmp_path):
  card = {"device": "NVIDIA H200", "machine": "N", "num_devices": 4}
  parts = [{"device": "cpu", "machine": "M"}, card]
  environment = {"machine": "M", "resumed": parts}
  run_folders.write(tmp_path, run_folders.config(), 0.5, environment=environment)
  run = run_folders.only(tmp_path)
  assert (run.devices, run.machines) == (("cpu", "NVIDIA H200"), ("M", "N"))
  assert run.num_devices is None  # first one, then four
  assert run.place == "cpu, then NVIDIA H200"


def test_runs_of_earlier_versions_count(tmp_path):
  folder = run_folders.write(tmp_path, run_folders.config(), 0.5)
  fields = json.loads((folder / "config.json").read_text())
  later = ("test_size", "keep_best", "patience", "momentum_dtype", "shots")
  run_folders.dump(folder / "config.json", {k: v for k, v in fields.items() if k not in later})
  assert run_folders.only(tmp_path).rule == "as the rule"


def test_failed_and_unfinished_runs(tmp_path):
  error = {"message": "The loss is not finite.", "kind": "UserError", "traceback": "x", "time": "y"}
  run_folders.dump(tmp_path / "failed" / "error.json", error)
  run_folders.dump(tmp_path / "odd" / "error.json", "{")
  run_folders.dump(tmp_path / "bare" / "error.json", {"kind": None, "message": "It failed."})
  config = run_folders.reduced("model=R14x0.5,shots=5").to_dict()
  run_folders.dump(tmp_path / "killed" / "sweep.json", {"sweep": "offline", "attempts": []})
  for name in ("begun", "new"):
    run_folders.dump(tmp_path / name / "config.json", config)
  run_folders.dump(tmp_path / "begun" / "metrics.jsonl", '{"step": 40}\n{"st')
  healed = run_folders.write(tmp_path / "healed", run_folders.config(), 0.5)
  run_folders.dump(healed / "error.json", error)
  found = run_folders.collected(tmp_path)
  assert found.failed == (
    ("bare", "It failed."),
    ("failed", "UserError: The loss is not finite."),
    ("odd", "error.json is damaged"),
  )
  assert found.unfinished == (
    ("begun", "stopped or still running, after step 40 of 100"),
    ("killed", "stopped or still running, before its config was written"),
    ("new", "stopped or still running, no step of 100 logged yet"),
  )
  assert [run.name for run in found.runs] == ["healed"]


@pytest.mark.parametrize(
  ("outcome", "began", "listed"),
  [
    ("running", "2026-11-22T12:00:00+00:00", "unfinished"),  # tried again
    ("interrupted", "2026-11-22T12:00:00+00:00", "unfinished"),
    ("failed", "2026-11-22T12:00:00+00:00", "failed"),  # and failed again, by another clock
    ("running", "2026-11-22T10:00:00+00:00", "failed"),  # the error says that it was killed
    ("running", "some time", "failed"),
  ],
)
def test_the_last_attempt_decides_whether_an_error_still_counts(tmp_path, outcome, began, listed):
  error = {"message": "Out of memory.", "kind": None, "time": "2026-11-22T11:00:00+00:00"}
  run_folders.dump(tmp_path / "a" / "error.json", error)
  config = run_folders.reduced("model=R14x0.5,shots=5")
  run_folders.dump(tmp_path / "a" / "config.json", config.to_dict())
  tries = [{"started": "2026-11-22T09:00:00+00:00", "seconds": 60, "outcome": "failed"}]
  tries.append({"started": began, "seconds": None, "outcome": outcome})
  run_folders.dump(tmp_path / "a" / "sweep.json", {"sweep": "mine", "attempts": tries})
  found = run_folders.collected(tmp_path)
  assert {"failed": found.failed, "unfinished": found.unfinished}[listed]
  assert len(found.failed) + len(found.unfinished) == 1


def test_a_speed_of_nothing_is_none(tmp_path):
  result = {"images_per_second": 0, "seconds": -1.0}
  run_folders.write(tmp_path / "a", run_folders.reduced(), 0.5, result=result)
  run = run_folders.only(tmp_path)
  assert (run.images_per_second, run.step_seconds) == (None, None)


def test_what_a_run_was_made_on(tmp_path):
  environment = {"device": "NVIDIA H200", "num_devices": 8}
  run_folders.write(tmp_path / "a", run_folders.reduced(), 0.5, environment=environment)
  assert run_folders.only(tmp_path).place == "8 x NVIDIA H200"
  run_folders.write(tmp_path / "a", run_folders.reduced(), 0.5)
  assert run_folders.only(tmp_path).place == "cpu (Linux x86_64, 2 cores)"


@pytest.mark.parametrize("loaded", ["/elsewhere/a/model.npz", None])
def test_a_checkpoint_s_file_may_have_moved(tmp_path, loaded):
  config = run_folders.config("model=R14x0.5,weights=a/model.npz")
  run_folders.write(tmp_path, config, 0.5, environment={"weights": loaded})
  run = run_folders.only(tmp_path)
  assert run.checkpoint_agrees
  assert run.warnings == ()


@pytest.mark.parametrize(
  ("file", "change"),
  [
    ("result.json", {"warnings": 5}),
    ("environment.json", {"resumed": "x"}),
    ("sweep.json", {"labels": "x"}),
    ("config.json", {"shots": -1}),
  ],
)
def test_values_that_no_run_has_leave_it_out(tmp_path, file, change):
  folder = run_folders.write(tmp_path / "run", run_folders.config(), 0.5, sweep="mine")
  fields = json.loads((folder / file).read_text())
  run_folders.dump(folder / file, {**fields, **change})
  found = run_folders.collected(tmp_path)
  assert found.runs == ()
  assert [name for name, _ in found.left_out] == ["run"]


def test_balanced_accuracy_and_macro_f1_are_in_0_to_1(tmp_path):
  result = {"balanced_accuracy": 0.4, "macro_f1": 1.5}
  run_folders.write(tmp_path, run_folders.config(), 0.5, result=result)
  assert run_folders.only(tmp_path).metrics == {"top1": 0.5, "balanced_accuracy": 0.4, "loss": 1.5}
