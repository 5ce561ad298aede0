"""From folders to runs that count, each once, and reasons for all the others."""

import dataclasses
import json
import shutil

import pytest
import run_folders
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st


def test_a_checkpoint_without_a_hash_is_not_taken_for_one_that_has(tmp_path):
  for seed, sha in enumerate([run_folders.SHA, None]):
    config = run_folders.config(f"model=R14x0.5,seed={seed}")
    folder = run_folders.write(tmp_path / str(seed), config, 0.5)
    if sha is None:
      (folder / "environment.json").unlink()
  found = run_folders.collected(tmp_path)
  assert [run.start for run in found.runs] == [
    "R14x0.5-CIFAR100 (3ef653a3)",
    "R14x0.5-CIFAR100 (no hash on record)",
  ]
  assert found.remarks == (("1", "environment.json is missing: its device isn't on record"),)
  assert found.runs[1].devices == ("a device that isn't on record",)


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
  said = "the same config and seed 4 as a/copy, which counts; both have 50.00 %"
  assert found.duplicates == (("b", said),)


def test_the_earlier_of_two_counts_and_they_disagree(tmp_path):
  config = run_folders.config("model=R14x0.5,seed=4")
  run_folders.write(tmp_path / "a", config, 0.5, environment={"started": "2026-11-23T00:00:00"})
  config = dataclasses.replace(config, name="another")  # of no consequence, but in the hash
  run_folders.write(tmp_path / "b", config, 0.61, environment={"started": "2026-11-22T00:00:00"})
  found = run_folders.collected(tmp_path)
  assert [run.name for run in found.runs] == ["b"]
  said = (
    "the same settings and seed 4 as b, which began first and counts; they disagree: 61.00 % "
    "counts, not 50.00 %"
  )
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
