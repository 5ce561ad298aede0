"""What one process compiled, the next one loads, whatever became of the folder in between."""

import json
import os
import re
import subprocess
import sys

import pytest
import running

from bit_jax.runtime import compile_cache

SMALL = """
import collections, json, sys
import jax, numpy as np
from bit_jax.runtime import compile_cache
from bit_jax.inference import programs
counts = collections.Counter()
jax.monitoring.register_event_listener(lambda name, **_: counts.update([name.split("/")[-1]]))
remark = compile_cache.keep()
images = np.zeros((5, 2, 2, 3), np.uint8)
for n in (5, 4):  # two programs of the same name
  programs.ResidentSet(images[:n], np.arange(n)).take(np.array([[1, 2], [3, 0]]))
print(json.dumps({
  "remark": remark,
  "requests": counts["compile_requests_use_cache"],
  "loaded": counts["cache_hits"],
}))
"""


def small(cache, **environment):
  """Runs two devices' gathering in a process of its own, and returns what it says of its cache."""
  variables = {**os.environ, "XLA_FLAGS": running.xla_flags(2)}
  variables |= {"BIT_JAX_CACHE": str(cache), **environment}
  done = subprocess.run(
    [sys.executable, "-c", SMALL],
    cwd=running.ROOT,
    env=variables,
    capture_output=True,
    text=True,
    check=True,
  )
  return {**json.loads(done.stdout), "stderr": done.stderr}


def entries(folder):
  return sorted(p for p in folder.iterdir() if p.name.endswith("-cache"))


def test_without_a_home_folder_a_sentence_says_what_to_set(no_home):
  assert re.fullmatch(
    r"Compiled programs can't be stored: .* The path ~/.* Set \$BIT_JAX_CACHE to a folder\.",
    compile_cache.keep(),
  )


@pytest.mark.slow
def test_a_program_is_compiled_once_and_again_where_its_entry_is_damaged(tmp_path):
  folder = tmp_path / "compiled"
  first = small(tmp_path)
  requests = first["requests"]
  assert requests > first["loaded"] == 0
  written = entries(folder)
  assert len(written) == requests
  names = [path.name.partition("-")[0] for path in written]
  shared = next(path for path, name in zip(written, names, strict=True) if names.count(name) > 1)
  for damaged in ([shared], written):
    for path in damaged:
      path.write_bytes(path.read_bytes()[:100])
    again = small(tmp_path)
    assert again["loaded"] == requests - len(damaged)  # others of the same name are kept
    (sentence,) = again["stderr"].splitlines()
    assert f"{folder} can't be loaded (" in sentence
    small(tmp_path)
    assert entries(folder) == written
  last = small(tmp_path)
  assert (last["loaded"], last["stderr"]) == (requests, "")


@pytest.mark.slow
def test_where_programs_can_not_be_kept_they_run_all_the_same(tmp_path):
  (tmp_path / "file").write_text("")
  said = small(tmp_path / "file")
  assert re.fullmatch(
    r"Compiled programs can't be stored: .* Not a directory: '.*file/compiled'", said["remark"]
  )
  assert said["stderr"] == ""
  off = small(tmp_path / "off", JAX_ENABLE_COMPILATION_CACHE="0")
  assert (off["remark"], off["stderr"]) == (None, "")
  assert not (tmp_path / "off").exists()
  own = tmp_path / "own"
  assert small(tmp_path / "unused", JAX_COMPILATION_CACHE_DIR=str(own))["remark"] is None
  assert entries(own)
  assert not (tmp_path / "unused").exists()


def test_the_entries_that_were_not_used_for_the_longest_time_go_first(tmp_path):
  for i, name in enumerate(["old-cache", "read-cache", "new-cache", "other"]):
    (tmp_path / name).write_bytes(bytes(100))
    os.utime(tmp_path / name, (1000 + i, 1000 + i))
  os.utime(tmp_path / "read-cache", (2000, 1001))
  compile_cache.limit(tmp_path, 300)
  assert len(entries(tmp_path)) == 3
  compile_cache.limit(tmp_path, 299)
  assert [p.name for p in entries(tmp_path)] == ["new-cache", "read-cache"]
  compile_cache.limit(tmp_path, 199)
  assert [p.name for p in entries(tmp_path)] == ["read-cache"]
  compile_cache.limit(tmp_path, 0)
  assert [p.name for p in tmp_path.iterdir()] == ["other"]


RUN = """
import collections, json, sys
import jax
counts = collections.Counter()
def note(name, **_):
  if name.startswith("/jax/compilation_cache/cache_"):
    counts[name.split("/")[-1]] += 1
jax.monitoring.register_event_listener(note)
sys.modules["tensorflow"] = None  # it is slow to import, and not needed
from bit_jax import train
train.main(["train", *sys.argv[1:]])
print(json.dumps(counts))
"""


def compiled_in_a_run(tmp_path, name, arguments, **changes):
  """Returns how many programs a run in a process of its own loads, and how many it compiles."""
  line = running.command("--workdir", str(tmp_path / name), arguments=arguments, **changes)[3:]
  variables = {**os.environ, "XLA_FLAGS": running.xla_flags(1), "BIT_JAX_CACHE": str(tmp_path)}
  done = subprocess.run(
    [sys.executable, "-c", RUN, *line],
    cwd=running.ROOT,
    env=variables,
    capture_output=True,
    text=True,
    check=True,
  )
  assert done.stderr == ""
  counts = json.loads(done.stdout.splitlines()[-1])
  return counts.get("cache_hits", 0), counts.get("cache_misses", 0)


@pytest.mark.slow
def test_runs_of_the_same_shapes_compile_once(tmp_path):
  """They differ in seed, length, schedule, augmentation and MixUp."""
  loaded, first = compiled_in_a_run(tmp_path, "first", "shots=3,protocol=select")
  assert first > loaded == 0
  changes = {"total_steps": 5, "base_lr": 0.01, "mixup_alpha": 0.0}
  arguments = "shots=4,protocol=select,seed=1,crop=False,flip=True"
  loaded, anew = compiled_in_a_run(tmp_path, "second", arguments, **changes)
  assert (loaded, anew) == (first - 1, 1)  # what takes examples from 40 images instead of 30
