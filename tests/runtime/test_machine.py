"""The cores and memory that this process may use, and how its C library keeps freed memory."""

import os
import resource
import subprocess
import sys
import types
from importlib import metadata

import psutil
import pytest

from bit_jax.runtime import errors, machine

QUOTAS = {
  "400000 100000": 4,  # docker --cpus=4
  "150000 100000": 2,
  "50000 100000": 1,
  "1000 1000000": 1,
  "12800000 100000": 64,
  "max 100000": 64,
  "-1 100000": 64,
  "100000 0": 64,
  "nonsense 1": 64,
}


@pytest.fixture
def cgroups(monkeypatch, tmp_path):
  """A machine with 64 cores and 1,000 bytes free, whose cgroups are files of this test."""
  monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)), raising=False)
  monkeypatch.setattr(psutil, "virtual_memory", lambda: types.SimpleNamespace(available=1000))
  monkeypatch.setattr(machine, "_CGROUP_ROOT", tmp_path / "fs")
  monkeypatch.setattr(machine, "_CGROUP_MEMBERSHIP", tmp_path / "cgroup")
  for name in ("BIT_JAX_CORES", "BIT_JAX_MEMORY_SHARE"):
    monkeypatch.delenv(name, raising=False)

  def write(membership, **files):
    """Writes /proc/self/cgroup, and files below /sys/fs/cgroup by their paths."""
    (tmp_path / "cgroup").write_text(f"9:pids:/elsewhere\n{membership}\n")
    for path, text in files.items():
      file = tmp_path / "fs" / path
      file.parent.mkdir(parents=True, exist_ok=True)
      file.write_text(f"{text}\n")

  return write


def cpu_v1(folder, quota):
  quota, period = quota.split()
  return {f"{folder}/cpu.cfs_quota_us": quota, f"{folder}/cpu.cfs_period_us": period}


def memory_v2(folder, limit, used, cached):
  files = {"memory.max": limit, "memory.current": used}
  files["memory.stat"] = f"anon 5\ninactive_file {cached}"
  return {f"{folder}/{name}".lstrip("/"): text for name, text in files.items()}


def memory_v1(folder, limit, used, cached):
  files = {"memory.limit_in_bytes": limit, "memory.usage_in_bytes": used}
  files["memory.stat"] = f"inactive_file 7\ntotal_inactive_file {cached}"
  return {f"memory{folder}/{name}": text for name, text in files.items()}


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="only Linux can bind a process")
def test_only_cores_that_the_process_is_bound_to_count(printed_by):
  assert machine.bound_cores() == sorted(os.sched_getaffinity(0))
  bind = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); "
  code = f"{bind}from bit_jax.runtime import machine; print(machine.usable_cores())"
  assert printed_by(code) == "1\n"


@pytest.mark.usefixtures("cgroups")
def test_all_cores_count_where_binding_is_unknown(monkeypatch):
  monkeypatch.delattr(os, "sched_getaffinity", raising=False)
  monkeypatch.setattr(os, "cpu_count", lambda: 7)
  assert machine.usable_cores() == 7


@pytest.mark.parametrize(("quota", "expected"), QUOTAS.items())
def test_a_cpu_quota_of_a_container_or_job(cgroups, quota, expected):
  cgroups("0::/job/step", **{"job/step/cpu.max": quota})
  assert machine.usable_cores() == expected
  cgroups("3:cpu,cpuacct:/job/step", **cpu_v1("cpu/job/step", quota))
  assert machine.usable_cores() == expected


@pytest.mark.parametrize("folder", ["job/step/", "job/", ""])
def test_the_smallest_quota_of_all_groups_above_applies(cgroups, folder):
  cgroups("0::/job/step", **{"job/step/cpu.max": "3200000 100000"})
  cgroups("0::/job/step", **{f"{folder}cpu.max": "300000 100000"})
  assert machine.usable_cores() == 3


@pytest.mark.parametrize(
  ("controllers", "mount"), [("cpu", "cpu"), ("cpuacct,cpu", "cpuacct,cpu"), ("cpu,cpuacct", "cpu")]
)
def test_the_cpu_controller_is_found_at_each_of_its_mounts(cgroups, controllers, mount):
  cgroups(f"3:{controllers}:/job", **cpu_v1(f"{mount}/job", "200000 100000"))
  assert machine.usable_cores() == 2


def test_the_quota_of_another_controller_does_not_count(cgroups):
  cgroups("3:cpuset:/job", **cpu_v1("cpu/job", "200000 100000"))
  assert machine.usable_cores() == 64


@pytest.mark.usefixtures("cgroups")
def test_the_variable_for_cores_is_an_upper_limit(monkeypatch):
  monkeypatch.setenv("BIT_JAX_CORES", "5")
  assert machine.usable_cores() == 5
  monkeypatch.setenv("BIT_JAX_CORES", "500")
  assert machine.usable_cores() == 64


@pytest.mark.parametrize("text", ["0", "-1", "2.5", "all", ""])
def test_an_invalid_number_of_cores(monkeypatch, text):
  monkeypatch.setenv("BIT_JAX_CORES", text)
  with pytest.raises(errors.UserError, match=f"BIT_JAX_CORES .* at least 1, not '{text}'"):
    machine.usable_cores()


def test_free_memory_is_that_of_the_machine_times_the_share(cgroups, monkeypatch):
  cgroups("0::/", **memory_v2("", "max", 600, 100))
  assert machine.free_memory() == 1000
  monkeypatch.setenv("BIT_JAX_MEMORY_SHARE", "0.25")
  assert machine.free_memory() == 250


@pytest.mark.parametrize("text", ["0", "1.5", "-1", "half", "nan", ""])
def test_an_invalid_share_of_memory(monkeypatch, text):
  monkeypatch.setenv("BIT_JAX_MEMORY_SHARE", text)
  with pytest.raises(errors.UserError, match=rf"BIT_JAX_MEMORY_SHARE .*\(0, 1\].* not '{text}'"):
    machine.free_memory()


@pytest.mark.parametrize(
  ("membership", "files"), [("0::/job/step", memory_v2), ("4:cpu,memory:/job/step", memory_v1)]
)
def test_a_memory_limit_of_a_container_or_job(cgroups, membership, files):
  cgroups(membership, **files("/job/step", limit=900, used=600, cached=100))
  assert machine.free_memory() == 400  # cached files can be dropped
  cgroups(membership, **files("/job", limit=300, used=250, cached=20))
  assert machine.free_memory() == 70  # the group above has less left
  cgroups(membership, **files("", limit=10, used=50, cached=0))
  assert machine.free_memory() == 0


@pytest.mark.usefixtures("cgroups")
def test_a_limit_of_the_shell(monkeypatch):
  process = types.SimpleNamespace(memory_info=lambda: types.SimpleNamespace(vms=5300))
  monkeypatch.setattr(psutil, "Process", lambda: process)
  monkeypatch.setattr(resource, "getrlimit", lambda _: (6000 + (2 << 30),) * 2)
  assert machine.free_memory() == 700


PAGE_FAULTS = """
import resource, sys
from bit_jax.runtime import machine
if sys.argv[1] == "kept" and not machine.keep_freed_memory({"JAX_PLATFORMS": "cpu"}):
  sys.exit("not glibc")
for _ in range(2):
  before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
  block = bytearray(200_000_000)
  del block
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
HUGE = """
import ctypes, pathlib, resource, sys
from bit_jax.runtime import machine
enabled = pathlib.Path("/sys/kernel/mm/transparent_hugepage/enabled")
if not enabled.exists() or "[madvise]" not in enabled.read_text():
  sys.exit("not glibc")
if sys.argv[1] == "limited":
  resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))
if sys.argv[1] == "strict":
  machine._OVERCOMMIT = pathlib.Path(sys.argv[2])
if not machine.keep_freed_memory({"JAX_PLATFORMS": "cpu"}):
  sys.exit("not glibc")
if sys.argv[1] == "trimmed":
  machine.trim_memory()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
block = bytearray(200_000_000)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
TRIMMED = """
import psutil
from bit_jax.runtime import machine
if not machine.keep_freed_memory({"JAX_PLATFORMS": "cpu"}):
  raise SystemExit("not glibc")
blocks = [bytearray(b"x" * 1_000_000) for _ in range(100)]
del blocks
before = psutil.Process().memory_info().rss
machine.trim_memory()
print(before - psutil.Process().memory_info().rss)
"""


def printed(code, *arguments):
  """Returns the number that a program prints, which needs glibc."""
  command = [sys.executable, "-c", code, *arguments]
  done = subprocess.run(command, capture_output=True, text=True, check=False)
  if done.stderr.strip() == "not glibc":
    pytest.skip("malloc has no such settings here")
  assert done.returncode == 0, done.stderr
  return int(done.stdout)


def test_freed_memory_is_reused_without_page_faults():
  assert printed(PAGE_FAULTS, "kept") < 100
  assert printed(PAGE_FAULTS, "not kept") > 40_000  # 200 MB in pages of 4 KB: 48,828


def test_new_memory_comes_in_huge_pages(tmp_path):
  assert printed(HUGE, "free") < 1_000  # 200 MB in pages of 2 MB: 96
  assert printed(HUGE, "trimmed") < 1_000
  (strict := tmp_path / "overcommit_memory").write_text("2\n")
  assert printed(HUGE, "strict", str(strict)) > 40_000
  assert printed(HUGE, "limited") > 40_000


def test_trim_returns_freed_memory_to_the_system():
  assert printed(TRIMMED) > 90_000_000


@pytest.mark.parametrize("name", ["MALLOC_ARENA_MAX", "GLIBC_TUNABLES"])
def test_malloc_settings_of_the_user_take_precedence(name):
  assert machine.keep_freed_memory({"JAX_PLATFORMS": "cpu", name: "4"}) is False


def test_freed_memory_is_not_kept_where_there_may_be_an_accelerator(monkeypatch):
  monkeypatch.setattr(machine.ctypes, "CDLL", lambda _: pytest.fail("the C library was called"))
  assert machine.keep_freed_memory({"JAX_PLATFORMS": "cuda,cpu"}) is False
  plugins = [metadata.EntryPoint("cuda", "jax_cuda12_plugin", "jax_plugins")]
  monkeypatch.setattr(metadata, "entry_points", lambda group: plugins if "jax" in group else [])
  assert machine.keep_freed_memory({}) is False
