"""Tests of experiments.sweeping.local: devices, and the share of each worker."""

import os
import types

import psutil
import pytest

from bit_jax.runtime import devices, errors, machine
from experiments.sweeping import local

SHARES = ("BIT_JAX_MEMORY_SHARE", "BIT_JAX_CORES")


@pytest.fixture(autouse=True)
def _cores(monkeypatch):
  """A machine of 96 cores, no quota."""
  monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(96)))
  monkeypatch.setattr(machine, "_cgroup_cores", lambda: iter(()))
  for name in (*SHARES, *local._VISIBLE.values()):
    monkeypatch.delenv(name, raising=False)


def variables(*arguments, **keywords):
  """Returns what shows each worker its device."""
  return [
    {name: value for name, value in place.variables.items() if name not in SHARES}
    for place in local.places(*arguments, **keywords)
  ]


def test_each_gpu_is_shown_to_one_worker():
  shown = variables("cuda", 3, None)
  assert shown == [{"CUDA_VISIBLE_DEVICES": n} for n in "012"]
  (alone,) = local.places("rocm", 2, 1)
  assert (alone.variables, alone.cores) == ({"HIP_VISIBLE_DEVICES": "0"}, None)


def test_of_the_devices_that_this_process_is_shown(monkeypatch):
  monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6")
  shown = variables("cuda", 2, None)
  assert [v["CUDA_VISIBLE_DEVICES"] for v in shown] == ["4", "6"]


def test_a_tpu_chip_alone_is_a_machine_of_one_chip():
  first, *_ = variables("tpu", 4, None)
  assert first == {
    "TPU_VISIBLE_CHIPS": "0",
    "TPU_CHIPS_PER_PROCESS_BOUNDS": "1,1,1",
    "TPU_PROCESS_BOUNDS": "1,1,1",
  }


def test_eight_workers_of_80_gb_cards_share_a_host_of_128_gb(monkeypatch):
  card = devices.Description("gpu", "NVIDIA H100 80GB HBM3", int(80e9), 1, 1)
  monkeypatch.setattr(psutil, "virtual_memory", lambda: types.SimpleNamespace(available=int(128e9)))
  monkeypatch.setattr(machine, "_cgroup_memory", lambda: iter(()))
  assert devices.resident_memory(card) == 80e9  # of a run alone
  places = local.places("cuda", 8, None)
  assert sorted(core for place in places for core in place.cores) == list(range(96))
  for place in places:
    with monkeypatch.context() as worker:
      for name, value in place.variables.items():
        worker.setenv(name, value)
      worker.setattr(os, "sched_getaffinity", lambda _, own=place.cores: own)
      assert devices.resident_memory(card) == 16e9
      assert machine.usable_cores() == 12


def test_each_worker_has_its_part_of_a_quota(monkeypatch):
  monkeypatch.setattr(machine, "_cgroup_cores", lambda: iter([16.0]))
  assert {place.variables["BIT_JAX_CORES"] for place in local.places("cuda", 8, None)} == {"2"}
  monkeypatch.setattr(machine, "_cgroup_cores", lambda: iter([3.5]))
  assert local.places("cuda", 8, None)[7].variables["BIT_JAX_CORES"] == "1"


def test_more_devices_than_cores(monkeypatch):
  monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2})
  for place in local.places("cuda", 4, None):
    assert (place.cores, place.variables["BIT_JAX_CORES"]) == (None, "1")


def test_a_sweep_that_has_a_share_itself_shares_that(monkeypatch):
  monkeypatch.setenv("BIT_JAX_MEMORY_SHARE", "0.5")
  monkeypatch.setenv("BIT_JAX_CORES", "8")
  first, *_ = local.places("cuda", 4, None)
  assert {name: first.variables[name] for name in SHARES} == {
    "BIT_JAX_MEMORY_SHARE": "0.125",
    "BIT_JAX_CORES": "2",
  }


def test_on_cpu_one_run_has_all_cores_and_several_share_them(monkeypatch):
  monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3, 4})
  (alone,) = local.places("cpu", 4, None)
  assert (alone.variables, alone.cores) == ({}, None)
  both = local.places("cpu", 1, 2)
  assert [dict(place.variables) for place in both] == 2 * [{"BIT_JAX_MEMORY_SHARE": "0.500"}]
  shares = [place.cores for place in both]
  assert shares == [{0, 2, 4}, {1, 3}]


def test_more_runs_at_once_than_there_are_devices_is_a_mistake(monkeypatch):
  with pytest.raises(errors.UserError, match=r"--jobs=3 is more than the 2 cuda devices"):
    local.places("cuda", 2, 3)
  monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
  with pytest.raises(errors.UserError, match=r"--jobs=3 is more than the 2 processor cores"):
    local.places("cpu", 1, 3)


def test_the_devices_here_are_found_in_a_process_of_its_own():
  assert local.find_devices() == ("cpu", 4)  # as tests have them


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
  assert local.platform(name, version) == expected


def test_a_platform_whose_devices_cannot_be_given_out_is_told():
  with pytest.raises(errors.UserError, match="JAX runs on neuron here"):
    local.platform("neuron", "neuron 2")


def test_ctrl_c_is_not_for_the_process_that_is_asked_for_devices(monkeypatch):
  alone = "int(os.getsid(0) == os.getpid())"
  monkeypatch.setattr(local, "_PROBE", f"import os; print({alone}, 'cpu', 'cpu')")
  assert local.find_devices() == ("cpu", 1)


def test_no_device_is_told_in_a_sentence(monkeypatch):
  monkeypatch.setenv("JAX_PLATFORMS", "nonsense")
  with pytest.raises(errors.UserError, match=r"JAX finds no device: .*nonsense"):
    local.find_devices()
