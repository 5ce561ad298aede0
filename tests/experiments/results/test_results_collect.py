"""Which runs count, each once; their names; and the reasons for all the others."""

import csv
import dataclasses
import io
import json
import shutil

import pytest
import run_folders
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from experiments import reduced
from experiments.results import collect


def test_a_checkpoint_without_a_hash_differs_from_one_with_a_hash(tmp_path):
  for seed, sha in enumerate([run_folders.SHA, None]):
    config = run_folders.config(f"model=R14x0.5,seed={seed}")
    folder = run_folders.write(tmp_path / str(seed), config, 0.5)
    if sha is None:
      (folder / "environment.json").unlink()
  found = run_folders.collected(tmp_path)
  assert [run.start for run in found.runs] == [
    "R14x0.5-CIFAR100 (3ef653a3)",
    "R14x0.5-CIFAR100 (no hash recorded)",
  ]
  assert found.remarks == (("1", "environment.json is missing: device unknown"),)
  assert found.runs[1].devices == ("unknown device",)


def test_damaged_files(tmp_path):
  for name, file in (("a", "config.json"), ("b", "result.json"), ("c", "environment.json")):
    folder = run_folders.write(
      tmp_path / name, run_folders.config(f"model=R14x0.5,seed={ord(name)}"), 0.5
    )
    (folder / file).write_text('{"half')
  found = run_folders.collected(tmp_path)
  assert [run.name for run in found.runs] == ["c"]
  assert found.left_out == (("a", "config.json is damaged"), ("b", "result.json is damaged"))
  assert found.remarks == (("c", "environment.json is damaged"),)


def test_a_copy_counts_once(tmp_path):
  run_folders.write(tmp_path / "b", run_folders.config("model=R14x0.5,seed=4"), 0.5)
  shutil.copytree(tmp_path / "b", tmp_path / "a" / "copy")
  found = run_folders.collected(tmp_path)
  assert [run.name for run in found.runs] == ["a/copy"]
  said = "same settings and seed 4 as a/copy, which counts; both have 50.00%"
  assert found.duplicates == (("b", said),)


def test_the_earlier_of_two_counts_and_they_disagree(tmp_path):
  config = run_folders.config("model=R14x0.5,seed=4")
  run_folders.write(tmp_path / "a", config, 0.5, environment={"started": "2026-11-23T00:00:00"})
  config = dataclasses.replace(config, name="another")  # of no consequence, but in the hash
  run_folders.write(tmp_path / "b", config, 0.61, environment={"started": "2026-11-22T00:00:00"})
  found = run_folders.collected(tmp_path)
  assert [run.name for run in found.runs] == ["b"]
  said = "same settings and seed 4 as b, which counts; they disagree: 61.00% counts, not 50.00%"
  assert found.duplicates == (("a", said),)


@pytest.mark.parametrize(
  "change",
  [
    {"seed": 1},
    {"shots": 5},
    {"protocol": "select"},
    {"random_flip": False},
    {"mixup_alpha": 0.0},
    {"weights": "none"},
  ],
)
def test_runs_that_differ_both_count(tmp_path, change):
  run_folders.write(tmp_path / "a", run_folders.config(), 0.5)
  run_folders.write(tmp_path / "b", run_folders.config(**change), 0.5)
  assert len(run_folders.collected(tmp_path).runs) == 2


def test_one_config_with_another_checkpoint_behind_its_name_counts_twice(tmp_path):
  for sha in ("a", "b"):
    run_folders.write(tmp_path / sha, run_folders.config(), 0.5, sha=sha * 64)
  assert len(run_folders.collected(tmp_path).runs) == 2


JSON = st.recursive(
  st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
  lambda inner: (
    st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
  ),
  max_leaves=5,
)
FILES = ("config.json", "environment.json", "result.json", "sweep.json", "error.json")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(file=st.sampled_from(FILES), data=st.data())
def test_nothing_that_a_file_holds_makes_it_crash(tmp_path, file, data):
  folder = tmp_path / "run"
  shutil.rmtree(folder, ignore_errors=True)
  run_folders.write(folder, run_folders.reduced("model=R14x0.5,shots=5"), 0.5, sweep="offline")
  fields = json.loads((folder / file).read_text()) if (folder / file).exists() else {}
  changed = data.draw(st.dictionaries(st.sampled_from([*fields, "more"]), JSON, min_size=1))
  run_folders.dump(folder / file, {**fields, **changed})
  found = run_folders.collected(tmp_path)
  listed = (found.left_out, found.failed, found.unfinished)
  assert len(found.runs) + sum(map(len, listed)) == 1


_LABEL = "pre-trained on CIFAR-100"


def labelled(dataset, label, arguments="", **more):
  config = run_folders.config(f"model=R14x0.5{arguments}", dataset)
  return config, 0.5, {"sweep": "offline" if label else None, "start": label, **more}


def starts(folder, *runs):
  return {(run.dataset, run.start) for run in run_folders.written(folder, *runs)}


def test_names_of_starts(tmp_path):
  for name, arguments, sha, label in (
    ("0", "weights=none", None, None),
    ("1", "weights=/home/me/runs/half/model.npz", "a" * 64, None),
    ("2", "weights=runs/part/model.npz", "b" * 64, "pre-trained on a part"),
    ("3", "weights=elsewhere/part/model.npz", "b" * 64, None),  # the same file
    ("4", "weights=/mnt/runs/half/model.npz", "c" * 64, None),  # another, of the same name
  ):
    config = run_folders.config(f"model=R14x0.5,seed={name},{arguments}")
    sweep = "offline" if label else None
    run_folders.write(tmp_path / name, config, 0.5, sha=sha, sweep=sweep, start=label)
  starts = {run.name: run.start for run in run_folders.collected(tmp_path).runs}
  assert starts == {
    "0": "random initialisation",
    "1": "half/model.npz (aaaaaaaa)",
    "2": "pre-trained on a part",
    "3": "pre-trained on a part",
    "4": "half/model.npz (cccccccc)",
  }


def test_a_sweep_s_name_of_a_start_comes_before_any_other(tmp_path):
  for seed, label in enumerate((None, "pre-trained on CIFAR-100", None)):
    config = run_folders.config(f"model=R14x0.5,seed={seed}")
    sweep = "offline" if label else None
    run_folders.write(tmp_path / str(seed), config, 0.5, sweep=sweep, start=label)
  assert {run.start for run in run_folders.collected(tmp_path).runs} == {"pre-trained on CIFAR-100"}
  assert run_folders.collected(tmp_path).runs[0].network == "R14x0.5, pre-trained on CIFAR-100"


def test_a_sweep_may_call_a_checkpoint_otherwise_on_other_data(tmp_path):
  assert starts(
    tmp_path,
    labelled("cifar10", _LABEL),
    labelled("cifar10", None, ",seed=1"),
    labelled("vtab/cifar100", f"{_LABEL} itself"),
    labelled("vtab/cifar100", None, ",seed=1"),
    labelled("oxford_iiit_pet", None),
  ) == {
    ("cifar10", _LABEL),
    ("vtab/cifar100", f"{_LABEL} itself"),
    ("oxford_iiit_pet", _LABEL),
  }


@pytest.mark.parametrize("datasets", [("cifar10", "cifar10"), ("vtab/svhn", "vtab/cifar100")])
def test_what_stands_in_one_figure_has_one_name(tmp_path, datasets):
  first, second = datasets
  runs = (labelled(first, _LABEL), labelled(second, f"{_LABEL} itself", ",seed=1"))
  assert {start for _, start in starts(tmp_path, *runs)} == {_LABEL}


def test_two_sweeps_that_call_a_checkpoint_otherwise_are_no_reason_for_two_names(tmp_path):
  found = starts(
    tmp_path,
    labelled("cifar10", _LABEL),
    labelled("cifar100", "the embedded checkpoint", sweep="another"),
  )
  assert found == {("cifar10", "the embedded checkpoint"), ("cifar100", "the embedded checkpoint")}


def test_no_name_for_two_checkpoints_though_on_other_data(tmp_path):
  found = starts(
    tmp_path,
    labelled("cifar10", _LABEL, sha="a" * 64),
    labelled("vtab/cifar100", f"{_LABEL} itself", sha="a" * 64),
    labelled("vtab/cifar100", _LABEL, sha="b" * 64),
  )
  assert found == {
    ("cifar10", f"{_LABEL} (aaaaaaaa)"),
    ("vtab/cifar100", f"{_LABEL} itself"),
    ("vtab/cifar100", f"{_LABEL} (bbbbbbbb)"),
  }


def test_a_row_for_each_run_and_metric(tmp_path):
  first = run_folders.reduced("model=R14x0.5,shots=10,seed=3")
  result = {"top5": 0.9, "warnings": ["one", "two, three"]}
  run_folders.write(tmp_path / "runs" / "b", first, 0.44, sweep="offline", result=result)
  second = run_folders.config("model=R14x0.5,weights=none")
  run_folders.write(tmp_path / "runs" / "a", second, 0.7, result={"seconds": None})
  text = collect.table(run_folders.collected(tmp_path / "runs").runs).to_csv(index=False)
  rows = list(csv.DictReader(io.StringIO(text)))
  found = [(r["run"], r["metric"], r["value"]) for r in rows]
  assert found == [
    ("b", "top1", "0.44"),
    ("b", "top5", "0.9"),
    ("b", "loss", "1.5"),
    ("a", "top1", "0.7"),
    ("a", "loss", "1.5"),
  ]
  few, full = rows[0], rows[3]
  expected = {
    "sweep": "offline",
    "model": "R14x0.5",
    "start": "R14x0.5-CIFAR100",
    "dataset": "cifar10",
    "protocol": "final",
    "regime": "small",
    "shots": "10",
    "seed": "3",
    "preset": "code",
    "reason": reduced.REASON,
    "batch_size": "64",
    "resize": "56",
    "crop": "48",
    "steps": "100",
    "mixup_alpha": "0.0",
    "dtype": "float32",
    "num_train": "100",
    "num_test": "10000",
    "wall_seconds": "71.25",
    "startup_seconds": "9.75",
    "step_seconds": "23.5",
    "images_per_second": "272.0",
    "device": "cpu",
    "num_devices": "1",
    "checkpoint_sha256": run_folders.SHA,
    "started": "2026-11-22T08:51:09+00:00",
    "warnings": "one | two, three",
  }
  assert {name: few[name] for name in expected} == expected
  assert few["rule"].startswith("resize 56 (rule: 160), crop 48")
  assert (full["shots"], full["rule"], full["regime"]) == ("full", "as the rule", "medium")
  assert (full["wall_seconds"], full["step_seconds"], full["checkpoint_sha256"]) == ("", "", "")


def test_a_run_that_went_on_elsewhere(tmp_path):
  environment = {"resumed": [{"device": "NVIDIA H200", "machine": "Linux x86_64, 16 cores"}]}
  found = run_folders.written(tmp_path, (run_folders.config(), 0.5, {"environment": environment}))
  named = collect.table(found).iloc[0]
  assert named["device"] == "cpu, then NVIDIA H200"
  assert named["machine"] == "Linux x86_64, 2 cores, then Linux x86_64, 16 cores"
