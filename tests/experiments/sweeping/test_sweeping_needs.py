"""Tests of experiments.sweeping.needs: what is told to be missing before a sweep is made."""

import pytest

from bit_jax import run_config
from bit_jax.configs import cifar10, quickstart
from experiments.sweeping import grid, needs


@pytest.fixture(autouse=True)
def _nothing_here(tmp_path, monkeypatch):
  monkeypatch.setenv("BIT_JAX_CACHE", str(tmp_path / "cache"))
  monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "sets"))


def planned(config, after=None):
  resolved, spec = run_config.resolve(config)
  return grid.Planned("a", resolved, spec, {}, after, None)


def digits(arguments="", **fields):
  config = quickstart.get_config(arguments)
  config.update(fields)
  return planned(config)


def test_what_is_at_hand_is_not_told():
  mistaken = grid.Planned("b", None, None, {}, None, "No.")
  assert not list(needs.missing([digits(), digits("weights=none"), mistaken]))


def test_a_released_checkpoint_that_is_not_in_the_cache(tmp_path):
  (tmp_path / "sets/cifar10/3.0.2").mkdir(parents=True)
  (tmp_path / "sets/cifar10/3.0.2/dataset_info.json").touch()
  runs = [planned(cifar10.get_config(f"model=BiT-M-R50x1,shots={n}")) for n in (1, 5)]
  (told,) = needs.missing(runs)
  assert told.startswith("2 of them are not ready: BiT-M-R50x1 is not in the cache: ")
  assert "bit_jax.weights download BiT-M-R50x1" in told
  (tmp_path / "cache").mkdir()
  (tmp_path / "cache/BiT-M-R50x1.npz").touch()
  assert not list(needs.missing(runs))


def test_a_file_of_weights_that_is_not_there(tmp_path):
  run = digits(f"weights={tmp_path}/mine.npz")
  (told,) = needs.missing([run])
  assert told.startswith(f"1 of them is not ready: {tmp_path}/mine.npz doesn't exist")
  (tmp_path / "mine.npz").touch()
  assert not list(needs.missing([run]))


def test_weights_of_an_earlier_run_are_still_to_come():
  config = quickstart.get_config()
  config.weights = "earlier/model.npz"
  assert not list(needs.missing([planned(config, after="earlier")]))


@pytest.mark.parametrize("by_variable", [True, False])
def test_a_set_that_is_not_prepared(tmp_path, monkeypatch, by_variable):
  config = cifar10.get_config("model=R14x0.5")
  if not by_variable:
    config.data_dir = str(tmp_path / "sets")
    monkeypatch.delenv("TFDS_DATA_DIR")
  (told,) = needs.missing([planned(config)])
  assert told == (
    f"1 of them is not ready: cifar10 is not prepared in {tmp_path}/sets: python -m bit_jax.data "
    f"doctor cifar10 says how to get it."
  )
  incomplete = tmp_path / "sets/cifar10/3.0.2.incompleteABC"
  incomplete.mkdir(parents=True)
  assert list(needs.missing([planned(config)]))
  incomplete.rename(tmp_path / "sets/cifar10/3.0.2")
  (tmp_path / "sets/cifar10/3.0.2/dataset_info.json").touch()
  assert not list(needs.missing([planned(config)]))


def test_more_shots_than_there_are_images():
  (told,) = needs.missing([digits("shots=79"), digits("shots=80")])
  assert told == (
    "1 of them is not ready: 80 images of each of the 10 classes of digits are more than the 797 "
    "that there are to train on."
  )
