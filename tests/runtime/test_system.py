"""The system in words: the processor's instructions, drivers, free space."""

import shutil

import pytest

from bit_jax.runtime import system

X86 = "processor : 0\nmodel name\t: Toy 9000\nflags\t\t: fpu avx2 fma made_up amx_bf16\n"
ARM = "processor : 0\nFeatures : fp asimd sve bf16\n"


@pytest.mark.parametrize(
  ("content", "has"),
  [(X86, "Toy 9000, avx2 fma amx_bf16"), (ARM, ", asimd sve bf16"), ("", "flags unknown")],
)
def test_the_processor(content, has, tmp_path, monkeypatch):
  (tmp_path / "cpuinfo").write_text(content)
  monkeypatch.setattr(system, "_CPU", tmp_path / "cpuinfo")
  assert system.processor().endswith(has)


@pytest.mark.parametrize(
  ("script", "lines"),
  [
    (
      "echo 'Toy GPU, 570.1, 80 GiB, 9.0'; echo 'Toy GPU, 570.1, 80 GiB, 9.0'",
      ["Toy GPU, 570.1, 80 GiB, 9.0"] * 2,
    ),
    ("echo 'no driver'; exit 9", ["nvidia-smi failed: no driver"]),
    ("sleep 600", ["nvidia-smi did not answer within 0.5 seconds"]),
  ],
)
def test_drivers(script, lines, tmp_path, monkeypatch):
  program = tmp_path / "nvidia-smi"
  program.write_text(f"#!/bin/sh\n{script}\n")
  program.chmod(0o755)
  monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
  monkeypatch.setattr(system, "_TPU_DEVICES", ())
  if "sleep" in script:
    monkeypatch.setattr(system, "_SECONDS", 0.5)
  assert system.accelerators() == lines


def test_without_drivers_there_is_no_accelerator(monkeypatch, tmp_path):
  monkeypatch.setenv("PATH", str(tmp_path))
  monkeypatch.setattr(system, "_TPU_DEVICES", ())
  assert system.accelerators() == []


def test_free_space_of_a_folder_that_is_not_there_yet(tmp_path, monkeypatch):
  asked = []
  usage = shutil.disk_usage
  monkeypatch.setattr(shutil, "disk_usage", lambda path: (asked.append(path), usage(path))[1])
  assert system.free_space(tmp_path / "a" / "b") > 0
  assert asked == [tmp_path]
