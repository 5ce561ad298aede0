"""Long runs: figures of made-up samples, and a short run whose counts must not grow."""

import os
import subprocess
import sys
from collections import Counter

import numpy as np
import psutil
import pytest
import running

from bit_jax.runs import metrics_log
from experiments.reliability import soak

PLAN = soak.Plan(steps=1000, events=10)


def samples(**changes):
  """Returns samples at every step; a change is a function of the step."""
  usual = {
    "bytes": lambda step: 500_000_000,
    "used": lambda step: 300_000_000,
    "files": lambda step: 8,
    "threads": lambda step: 30,
    "compiled": lambda step: 14,
    "checkpoint": lambda step: step // 100 * 100,
  }
  fields = {**usual, **changes}
  return [
    soak.Sample(step=step, **{name: value(step) for name, value in fields.items()})
    for step in range(5, 1001, 5)
  ]


def rows(milliseconds=lambda step: 20.0):
  train = [
    {"kind": "train", "step": s, "images_per_second": 16e3 / milliseconds(s)}
    for s in range(5, 1001, 5)
  ]
  return [*train, *({"kind": "eval", "step": s} for s in range(100, 1001, 100))]


def test_a_steady_run():
  early = samples(
    bytes=lambda step: 1_000_000 * min(step, 100), compiled=lambda step: min(step // 5, 14)
  )
  found = soak.figures(PLAN, early, rows())
  assert (found["steps"], found["evaluations"], found["checkpoints"]) == (1000, 10, 10)
  assert found["memory"] == {
    "mb_per_1000_steps": 0, "low": 0, "high": 0, "first_mb": 100, "last_mb": 100,
  }  # fmt: skip
  assert found["open_files"] == {"first": 8, "first_most": 8, "last": 8, "most": 8}
  assert found["compilations"] == {"first": 14, "first_most": 14, "last": 14, "most": 14}
  assert found["step_ms"] == {"first": 20, "last": 20, "ratio": 1}
  assert soak.growing(found) == []


def test_memory_that_grows_beside_noise():
  noise = np.random.default_rng(0).normal(0, 1e6, 1001)
  found = soak.figures(PLAN, samples(used=lambda s: 10**9 + 30_000 * s + noise[s]), rows())
  memory = found["memory"]
  assert memory["low"] < memory["mb_per_1000_steps"] < memory["high"]
  assert memory["mb_per_1000_steps"] == pytest.approx(30, abs=2)
  assert len(soak.growing(found)) == 1
  assert "Memory grows by" in soak.growing(found)[0]


def test_pools_of_the_process_are_not_in_use():
  found = soak.figures(PLAN, samples(bytes=lambda s: 10**9 + 30_000 * s - 3e8 * (s > 550)), rows())
  assert found["memory"]["mb_per_1000_steps"] == 0
  assert found["memory"]["first_mb"] > found["memory"]["last_mb"] + 200
  assert soak.growing(found) == []


@pytest.mark.parametrize(
  ("name", "words"), [("files", "Open files"), ("threads", "Threads"), ("compiled", "Compilations")]
)
def test_counts_that_grow(name, words):
  found = soak.figures(PLAN, samples(**{name: lambda step: step // 10}), rows())
  first = 19 if name == "threads" else 10
  assert soak.growing(found) == [f"{words}: {first}, then 90."]


def test_threads_of_pools_that_fill():
  found = soak.figures(PLAN, samples(threads=lambda s: 40 + s % 7 + (s > 150)), rows())
  assert found["threads"]["last"] > found["threads"]["first"]
  assert soak.growing(found) == []


def test_files_that_are_open_for_a_while_are_no_growth():
  found = soak.figures(PLAN, samples(files=lambda step: 8 + 9 * (step % 3 == 0)), rows())
  assert found["open_files"] == {"first": 8, "first_most": 17, "last": 8, "most": 17}
  assert soak.growing(found) == []


def test_step_times_are_medians_of_the_first_and_the_last_tenth():
  def milliseconds(step):
    return 1000.0 if step % 50 == 0 else 10.0 if step <= 100 else 30.0 if step > 900 else 20.0

  assert soak.figures(PLAN, samples(), rows(milliseconds))["step_ms"] == {
    "first": 10, "last": 30, "ratio": 3,
  }  # fmt: skip


def test_a_program_that_is_compiled_twice():
  counts = Counter({("step", "(f32[4])"): 2, ("iota", "()"): 3, ("step", "(f32[8])"): 1})
  assert soak.repeated(counts) == ["Compiled 2 times: step(f32[4])"]


def test_what_is_no_checkpoint_is_passed_over(tmp_path):
  for name in ("20", "9", "30.unusable", "\N{SUPERSCRIPT TWO}"):
    (tmp_path / "checkpoints" / name).mkdir(parents=True)
  (tmp_path / "metrics.jsonl").write_text('{"step": 25}\n')
  (tmp_path / "log").touch()
  (tmp_path.parent / "used").write_text("   7\n")
  sample = soak._sample(psutil.Process(), tmp_path, tmp_path / "log")
  assert (sample.step, sample.checkpoint, sample.used) == (25, 20, 7)


def test_memory_in_use_counts_objects_and_arrays():
  code = (
    "from experiments.reliability import observed; import numpy as np\n"
    "a = observed.used(); kept = [bytearray(100_000) for _ in range(100)]; b = observed.used()\n"
    "array = np.ones(20_000_000, np.uint8); c = observed.used(); del kept, array\n"
    "print(b - a, c - b, observed.used() - a)"
  )
  environment = {**os.environ, "PYTHONMALLOC": "malloc"}
  line = [sys.executable, "-c", code]
  out = subprocess.check_output(line, cwd=running.ROOT, env=environment, text=True)
  objects, array, left = map(int, out.split())
  assert objects == pytest.approx(10e6, rel=0.01)
  assert array == pytest.approx(20e6, rel=0.01)
  assert abs(left) < 1e5


@pytest.mark.slow
def test_nothing_grows_over_a_short_run(tmp_path, tmp_path_factory):
  plan = soak.Plan(steps=200, events=10, devices=2, interval=0.05)
  shared = {"JAX_COMPILATION_CACHE_DIR": str(running.cache_folder(tmp_path_factory))}
  seen, programs = soak.run(plan, tmp_path, {"BIT_JAX_CACHE": str(tmp_path / "cache"), **shared})
  log, _ = metrics_log.read(tmp_path / "run" / "metrics.jsonl")
  found = soak.figures(plan, seen, log)
  assert (found["steps"], found["evaluations"]) == (200, 10)
  assert found["checkpoints"] > 5  # of ten, some may be between two samples
  late = [s for s in seen if 100 <= s.step < 200]
  assert {s.compiled for s in late} == {sum(programs.values())}
  early, last = ([s.files for s in late if (s.step < 150) == first] for first in (True, False))
  assert min(last) <= min(early)
  assert soak.repeated(programs) == []
  kept = soak.kept_by_tensorstore(tmp_path / "run" / "checkpoints" / "200")
  assert 0 < kept < 100_000  # bytes of 89 arrays, by the locked version of tensorstore
