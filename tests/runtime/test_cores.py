"""Tests of bit_jax.runtime.cores."""

import os

import pytest

from bit_jax.runtime import cgroups, cores, errors


@pytest.fixture
def machine(monkeypatch, tmp_path):
  """A machine of 64 cores; returns a function that puts this process into a group with a quota."""
  monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)), raising=False)
  monkeypatch.setattr(cgroups, "_ROOT", tmp_path / "fs")
  monkeypatch.setattr(cgroups, "_MEMBERSHIP", tmp_path / "cgroup")

  def group(
    version, quota, own="/job/step", at="/job/step", controllers="cpu,cpuacct", mount="cpu"
  ):
    line = "0:" if version == 2 else f"3:{controllers}"
    (tmp_path / "cgroup").write_text(f"9:pids:/elsewhere\n{line}:{own}\n")
    folder = tmp_path / "fs" / ("" if version == 2 else mount) / at.lstrip("/")
    folder.mkdir(parents=True, exist_ok=True)
    if version == 2:
      (folder / "cpu.max").write_text(f"{quota}\n")
    else:
      quota, period = quota.split()
      (folder / "cpu.cfs_quota_us").write_text(f"{quota}\n")
      (folder / "cpu.cfs_period_us").write_text(f"{period}\n")

  return group


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="only Linux can bind a process")
def test_cores_that_this_process_may_not_use_do_not_count(printed_by):
  assert cores.bound() == sorted(os.sched_getaffinity(0))
  bound = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); "
  assert printed_by(f"{bound}from bit_jax.runtime import cores; print(cores.usable())") == "1\n"


def test_where_binding_is_unknown_all_cores_count(machine, monkeypatch):
  monkeypatch.delattr(os, "sched_getaffinity", raising=False)
  monkeypatch.setattr(os, "cpu_count", lambda: 7)
  assert cores.usable() == 7


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize(
  ("quota", "expected"),
  [
    ("400000 100000", 4),  # docker --cpus=4
    ("150000 100000", 2),
    ("50000 100000", 1),
    ("1000 1000000", 1),
    ("12800000 100000", 64),
    ("max 100000", 64),
    ("-1 100000", 64),
    ("100000 0", 64),
    ("nonsense 1", 64),
  ],
)
def test_a_quota_of_a_container_or_job(machine, version, quota, expected):
  machine(version, quota)
  assert cores.usable() == expected


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("at", ["/job/step", "/job", "/"])
def test_a_quota_of_any_group_above_holds(machine, version, at):
  machine(version, "3200000 100000")
  machine(version, "300000 100000", at=at)
  assert cores.usable() == 3


@pytest.mark.parametrize(
  ("controllers", "mount"), [("cpu", "cpu"), ("cpuacct,cpu", "cpuacct,cpu"), ("cpu,cpuacct", "cpu")]
)
def test_wherever_the_controller_is_mounted(machine, controllers, mount):
  machine(1, "200000 100000", controllers=controllers, mount=mount)
  assert cores.usable() == 2


def test_a_quota_of_another_controller_is_none_of_it(machine):
  machine(1, "200000 100000", controllers="cpuset")
  assert cores.usable() == 64


def test_one_of_several_processes_is_told_its_number(machine, monkeypatch):
  monkeypatch.setenv("BIT_JAX_CORES", "5")
  assert cores.usable() == 5
  monkeypatch.setenv("BIT_JAX_CORES", "500")
  assert cores.usable() == 64


@pytest.mark.parametrize("text", ["0", "-1", "2.5", "all", ""])
def test_a_number_that_is_none(monkeypatch, text):
  monkeypatch.setenv("BIT_JAX_CORES", text)
  with pytest.raises(errors.UserError, match=f"BIT_JAX_CORES={text} is no number of cores"):
    cores.usable()
