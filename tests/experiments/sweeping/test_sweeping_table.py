"""Tests of experiments.sweeping.table: what runs take and what they lack."""

import json

import pytest
import resolving
from run_folders import finished, planned

from bit_jax.configs import cifar10, quickstart
from experiments.cost import footprint
from experiments.sweeping import grid, table


@pytest.fixture(autouse=True)
def _nothing_here(tmp_path, monkeypatch):
  monkeypatch.setenv("BIT_JAX_CACHE", str(tmp_path / "cache"))
  monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "sets"))


def resolved(config, after=None):
  resolved, spec = resolving.resolve(config)
  return grid.Planned("a", resolved, spec, {}, after, None)


def digits(arguments="", **fields):
  config = quickstart.get_config(arguments)
  config.update(fields)
  return resolved(config)


def test_available_files_are_not_listed():
  mistaken = grid.Planned("b", None, None, {}, None, "No.")
  assert not list(table.missing([digits(), digits("weights=none"), mistaken]))


def test_a_released_checkpoint_that_is_not_in_the_cache(tmp_path):
  (tmp_path / "sets/cifar10/3.0.2").mkdir(parents=True)
  (tmp_path / "sets/cifar10/3.0.2/dataset_info.json").touch()
  runs = [resolved(cifar10.get_config(f"model=BiT-M-R50x1,shots={n}")) for n in (1, 5)]
  (sentence,) = table.missing(runs)
  assert sentence.startswith("2 of them are not ready: BiT-M-R50x1 is not in the cache: ")
  assert "bit_jax.weights download BiT-M-R50x1" in sentence
  (tmp_path / "cache").mkdir()
  (tmp_path / "cache/BiT-M-R50x1.npz").touch()
  assert not list(table.missing(runs))


def test_a_file_of_weights_that_is_not_there(tmp_path):
  run = digits(f"weights={tmp_path}/mine.npz")
  (sentence,) = table.missing([run])
  assert sentence.startswith(f"1 of them is not ready: {tmp_path}/mine.npz doesn't exist")
  (tmp_path / "mine.npz").touch()
  assert not list(table.missing([run]))


def test_weights_of_an_earlier_run_are_still_to_come():
  config = quickstart.get_config()
  config.weights = "earlier/model.npz"
  assert not list(table.missing([resolved(config, after="earlier")]))


@pytest.mark.parametrize("by_variable", [True, False])
def test_a_set_that_is_not_prepared(tmp_path, monkeypatch, by_variable):
  config = cifar10.get_config("model=R14x0.5")
  if not by_variable:
    config.data_dir = str(tmp_path / "sets")
    monkeypatch.delenv("TFDS_DATA_DIR")
  (sentence,) = table.missing([resolved(config)])
  assert sentence == (
    f"1 of them is not ready: cifar10 is not prepared in {tmp_path}/sets: python -m bit_jax.data "
    f"doctor cifar10 says how to get it."
  )
  incomplete = tmp_path / "sets/cifar10/3.0.2.incompleteABC"
  incomplete.mkdir(parents=True)
  assert list(table.missing([resolved(config)]))
  incomplete.rename(tmp_path / "sets/cifar10/3.0.2")
  (tmp_path / "sets/cifar10/3.0.2/dataset_info.json").touch()
  assert not list(table.missing([resolved(config)]))


def test_the_table_has_a_line_for_each_run_and_the_sums(tmp_path):
  runs = [planned("first"), planned("second", steps=200), planned("third", mistake="No.")]
  text = table.describe(runs, tmp_path)
  header, first, second, third, _, total, unmakeable, hours = text.splitlines()
  assert " ".join(header.split()) == (
    "run starts from examples pixels batch lr steps images TFLOP disk MB state"
  )
  work = [footprint.flops(one.config, one.spec) / 1e12 for one in runs[:2]]
  disk = [footprint.disk_bytes(one.config.model, 10, "float32") / 1e6 for one in runs[:2]]
  expected = [
    *("first", "R14x0.5-CIFAR100", "50", "48", "64", "0.003", "100", "6,400"),
    *(f"{work[0]:.1f}", f"{disk[0]:.0f}"),
  ]
  assert first.split() == expected
  assert second.split()[6:9] == ["200", "12,800", f"{work[1]:.1f}"]
  assert third.endswith("can't be run: No.")
  assert total.startswith(f"3 runs: 19,200 images, {sum(work) / 1e3:.2f} PFLOP")
  assert unmakeable.startswith("1 of them")
  assert "once a run is finished" in hours


def test_the_table_tells_the_time_left_at_the_speed_of_finished_runs(tmp_path):
  runs = [planned("a"), planned("b"), planned("c")]
  finished(tmp_path / "a")
  attempt = {"started": "2026-01-01T00:00:00+00:00", "seconds": 7200.0, "outcome": "finished"}
  record = {"sweep": "mine", "labels": {}, "attempts": [attempt]}
  (tmp_path / "a" / "sweep.json").write_text(json.dumps(record))
  text = table.describe(runs, tmp_path)
  assert text.splitlines()[1].endswith("finished: top-1 50.00%")
  assert "\nFinished: 1, at " in text
  assert text.endswith("all take 6.0 hours of one worker, the rest 4.0.")


def test_where_no_run_can_be_made_the_table_says_so(tmp_path):
  text = table.describe([planned("a", mistake="No.")], tmp_path)
  assert "\n1 run: 0 images, 0.00 PFLOP, 0.00 GB of disk.\n1 of them can't be run" in text
