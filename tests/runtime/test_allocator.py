"""Tests of bit_jax.runtime.allocator."""

import subprocess
import sys
from importlib import metadata

import pytest

from bit_jax.runtime import allocator

FAULTS = """
import resource, sys
from bit_jax.runtime import allocator
if sys.argv[1] == "kept" and not allocator.keep_freed({"JAX_PLATFORMS": "cpu"}):
  sys.exit("not glibc")
for _ in range(2):
  before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
  block = bytearray(200_000_000)
  del block
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def printed(code, *arguments):
  """Returns the number that a program prints, which needs glibc."""
  command = [sys.executable, "-c", code, *arguments]
  done = subprocess.run(command, capture_output=True, text=True, check=False)
  if done.stderr.strip() == "not glibc":
    pytest.skip("malloc has no such settings here")
  assert done.returncode == 0, done.stderr
  return int(done.stdout)


def test_freed_memory_is_taken_again_without_page_faults():
  assert printed(FAULTS, "kept") < 100
  assert printed(FAULTS, "not kept") > 40_000  # 200 MB in pages of 4 KB: 48,828


@pytest.mark.parametrize("name", ["MALLOC_ARENA_MAX", "GLIBC_TUNABLES"])
def test_what_the_user_set_is_left_alone(name):
  assert allocator.keep_freed({"JAX_PLATFORMS": "cpu", name: "4"}) is False


def test_nothing_is_set_where_there_may_be_an_accelerator(monkeypatch):
  monkeypatch.setattr(allocator, "_function", lambda name: pytest.fail(f"{name} was called"))
  assert allocator.keep_freed({"JAX_PLATFORMS": "cuda,cpu"}) is False
  plugins = [metadata.EntryPoint("cuda", "jax_cuda12_plugin", "jax_plugins")]
  monkeypatch.setattr(metadata, "entry_points", lambda group: plugins if "jax" in group else [])
  assert allocator.keep_freed({}) is False


HELD = """
import psutil
from bit_jax.runtime import allocator
if not allocator.keep_freed({"JAX_PLATFORMS": "cpu"}):
  raise SystemExit("not glibc")
blocks = [bytearray(b"x" * 1_000_000) for _ in range(100)]
del blocks
before = psutil.Process().memory_info().rss
allocator.trim()
print(before - psutil.Process().memory_info().rss)
"""


def test_trim_gives_back_what_was_kept():
  assert printed(HELD) > 90_000_000
