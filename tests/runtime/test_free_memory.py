"""What is free: in the machine, in the groups that this process is in, and by `ulimit -v`."""

import resource
import types

import psutil
import pytest

from bit_jax.runtime import cgroups, errors, free_memory


@pytest.fixture
def machine(monkeypatch, tmp_path):
  """A machine with 1,000 bytes free; returns a function that adds a group of a version."""
  monkeypatch.setattr(psutil, "virtual_memory", lambda: types.SimpleNamespace(available=1000))
  monkeypatch.setattr(cgroups, "_ROOT", tmp_path / "fs")
  monkeypatch.setattr(cgroups, "_MEMBERSHIP", tmp_path / "cgroup")

  def group(version, path, limit, used, cached):
    root = tmp_path / "fs" / ("memory" if version == 1 else "")
    line = "4:cpu,memory" if version == 1 else "0:"
    with (tmp_path / "cgroup").open("a") as file:
      file.write(f"7:pids:/elsewhere\n{line}:{path}\n")
    folder = root / path.lstrip("/")
    folder.mkdir(parents=True, exist_ok=True)
    names = free_memory._FILES[version]
    for name, value in zip(names[:2], (limit, used), strict=True):
      (folder / name).write_text(f"{value}\n")
    (folder / "memory.stat").write_text(f"anon 5\n{names[2]} {cached}\n")

  return group


def test_without_groups_it_is_the_machine_s(machine):
  del machine
  assert free_memory.available() == 1000


def test_one_of_several_processes_plans_with_its_share(machine, monkeypatch):
  del machine
  monkeypatch.setenv("BIT_JAX_MEMORY_SHARE", "0.25")
  assert free_memory.available() == 250


@pytest.mark.parametrize("text", ["0", "1.5", "-1", "half", "nan", ""])
def test_a_share_that_is_none(machine, monkeypatch, text):
  del machine
  monkeypatch.setenv("BIT_JAX_MEMORY_SHARE", text)
  with pytest.raises(errors.UserError, match=f"BIT_JAX_MEMORY_SHARE={text} is no part"):
    free_memory.available()


@pytest.mark.parametrize("version", [1, 2])
def test_a_group_s_limit_less_its_use_but_not_what_can_be_taken_back(machine, version):
  machine(version, "/job/step", 900, 600, 100)
  assert free_memory.available() == 400
  machine(version, "/job", 300, 250, 20)  # the group above has less left
  assert free_memory.available() == 70
  machine(version, "/", 10, 50, 0)
  assert free_memory.available() == 0


def test_a_group_without_limit(machine):
  machine(2, "/", "max", 600, 100)
  assert free_memory.available() == 1000


def test_a_limit_of_the_shell(machine, monkeypatch):
  del machine
  process = types.SimpleNamespace(memory_info=lambda: types.SimpleNamespace(vms=5300))
  monkeypatch.setattr(psutil, "Process", lambda: process)
  monkeypatch.setattr(resource, "getrlimit", lambda _: (6000 + (2 << 30),) * 2)
  assert free_memory.available() == 700
