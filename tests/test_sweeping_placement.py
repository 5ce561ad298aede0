"""Tests of experiments.sweeping.placement."""

import os

import pytest

from bit_jax import errors
from experiments.sweeping import placement


def variables(*arguments, **keywords):
  return [dict(place.variables) for place in placement.places(*arguments, **keywords)]


def test_each_gpu_is_shown_to_one_worker():
  shown = variables("cuda", 3, None, {})
  assert shown == [{"CUDA_VISIBLE_DEVICES": n} for n in "012"]
  assert variables("rocm", 2, 1, {}) == [{"HIP_VISIBLE_DEVICES": "0"}]


def test_of_the_devices_that_this_process_is_shown():
  own = {"CUDA_VISIBLE_DEVICES": "4,6"}
  shown = variables("cuda", 2, None, own)
  assert [v["CUDA_VISIBLE_DEVICES"] for v in shown] == ["4", "6"]


def test_a_tpu_chip_alone_is_a_machine_of_one_chip():
  first, *_ = variables("tpu", 4, None, {})
  assert first == {
    "TPU_VISIBLE_CHIPS": "0",
    "TPU_CHIPS_PER_PROCESS_BOUNDS": "1,1,1",
    "TPU_PROCESS_BOUNDS": "1,1,1",
  }


def test_on_cpu_one_run_has_all_cores_and_several_share_them(monkeypatch):
  monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3, 4})
  (alone,) = placement.places("cpu", 4, None)
  assert (alone.variables, alone.cores) == ({}, None)
  both = placement.places("cpu", 1, 2)
  assert [dict(place.variables) for place in both] == 2 * [{"BIT_JAX_MEMORY_SHARE": "0.500"}]
  shares = [place.cores for place in both]
  assert shares == [{0, 2, 4}, {1, 3}]


def test_more_runs_at_once_than_there_are_devices_is_a_mistake(monkeypatch):
  with pytest.raises(errors.UserError, match=r"--jobs=3 is more than the 2 cuda devices"):
    placement.places("cuda", 2, 3)
  monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
  with pytest.raises(errors.UserError, match=r"--jobs=3 is more than the 2 processor cores"):
    placement.places("cpu", 1, 3)


def test_the_devices_here_are_found_in_a_process_of_its_own():
  assert placement.local() == ("cpu", 4)  # as tests have them


@pytest.mark.parametrize(
  ("name", "version", "expected"),
  [
    ("gpu", "PJRT C API cuda 13000", "cuda"),  # as jaxlib's plugins tell of themselves
    ("gpu", "cuda 12090", "cuda"),
    ("gpu", "PJRT C API rocm 70000", "rocm"),
    ("cuda", "", "cuda"),
    ("tpu", "PJRT C API TFRT TPU v4", "tpu"),
    ("cpu", "cpu", "cpu"),
  ],
)
def test_the_platform_is_known_by_what_its_client_says(name, version, expected):
  assert placement.platform(name, version) == expected


def test_a_platform_whose_devices_cannot_be_given_out_is_told():
  with pytest.raises(errors.UserError, match="JAX runs on neuron here"):
    placement.platform("neuron", "neuron 2")


def test_no_device_is_told_in_a_sentence(monkeypatch):
  monkeypatch.setenv("JAX_PLATFORMS", "nonsense")
  with pytest.raises(errors.UserError, match=r"JAX finds no device: .*nonsense"):
    placement.local()
