"""Tests of experiments.reliability.kills: a few kills and signals; `make kills` has them all."""

import json
import shutil
import signal

import pytest

from experiments.reliability import child, kills

pytestmark = pytest.mark.slow
CASE = kills.CASES[1]


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
  return kills.Bench(tmp_path_factory.mktemp("bench"))


def test_a_run_that_is_killed_and_asked_to_stop_ends_as_if_undisturbed(bench, tmp_path):
  whole, workdir = bench.undisturbed(CASE), tmp_path / "run"
  for number, phase in (
    (signal.SIGKILL, child.SAVING),
    (signal.SIGUSR1, child.EVALUATION),
    (signal.SIGTERM, child.PICTURES),
  ):
    process = bench.start(CASE, workdir)
    ended = bench.disturb(process, workdir, number, phase, 0.0)
    if number == signal.SIGKILL:
      assert ended.status == -signal.SIGKILL
    else:
      assert [*kills.faults(ended, number, workdir)] == []
  bench.finish(CASE, workdir)
  assert kills.differences(whole, workdir) == []


def test_a_run_that_differs_is_noticed(bench, tmp_path):
  whole, other = bench.undisturbed(CASE), tmp_path / "run"
  shutil.copytree(whole, other)
  assert kills.differences(whole, other) == []
  (other / "best-5.npz").touch()
  (other / "report.html").unlink()
  (other / "mistakes.csv").write_text("")
  lines = (other / "metrics.jsonl").read_text().splitlines()
  (other / "metrics.jsonl").write_text("\n".join(lines[1:]))
  result = json.loads((other / "result.json").read_text())
  (other / "result.json").write_text(json.dumps({**result, "seconds": -1, "loss": 0.5}))
  (other / "model.npz").write_bytes(b"")
  assert kills.differences(whole, other) == [
    "model.npz",
    "mistakes.csv",
    "metrics.jsonl",
    "result.json",
    "no report.html",
    "left best-5.npz",
  ]


def test_the_end_of_a_run_that_was_asked_to_stop_is_checked(tmp_path):
  said = "Stopped after step 3; saved up to step 3 of 14. Run the same command again to resume."
  (tmp_path / "checkpoints" / "3").mkdir(parents=True)

  def faults(err, status=143, phase=child.STEPS):
    ended = kills.Ended(status, phase, False, 0.1, "", err)
    return [*kills.faults(ended, signal.SIGTERM, tmp_path)]

  assert faults(said) == []
  assert faults(said, -15) == ["exit status -15"]
  assert faults(f"Traceback\n{said}")[0].startswith("standard error: 'Traceback")
  assert faults(said.replace("step 3 of", "step 2 of")) != []
  assert faults("Stopped; no step is lost. Run the same command again.", phase="imports") == []


def test_phases_are_hit_evenly_and_only_those_that_a_run_has():
  schedule = kills.Schedule(0)
  durations = dict.fromkeys(child.PHASES, 1.0)
  for _ in range(200):
    phase, _ = schedule.next(durations, saved=0)
    assert phase != child.RESTORING
    schedule.counts[phase or child.STEPS] += 1
  counts = [schedule.counts[p] for p in child.PHASES if p not in (child.RESTORING, child.STEPS)]
  assert max(counts) - min(counts) <= 1
  last = {schedule.next(durations, saved=14)[0] for _ in range(200)}
  assert child.RESTORING in last
  assert not last & {child.FIRST_STEP, child.STEPS, child.MICRO_BATCHES, child.SAVING}
