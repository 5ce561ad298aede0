"""Time that runs took."""

import json
import math

import pytest
import run_folders

from experiments.results import effort, seeds


def started(arguments, minute, seconds, sweep="mine", **fields):
  more = {
    "sweep": sweep,
    "began": f"2026-11-22T09:{minute:02}:00+00:00",
    "result": {"startup_seconds": seconds},
  }
  return run_folders.reduced(f"model=R14x0.5,{arguments}", **fields), 0.5, more


def test_the_first_run_of_a_program_and_the_later_ones(tmp_path):
  found = run_folders.table(
    tmp_path,
    started("shots=5,seed=1", 10, 3.0),
    started("shots=5,seed=0", 5, 30.0),  # the first, whatever its folder is called
    started("shots=10", 20, 5.0),  # other examples, the same program
    started("shots=10,preset=paper", 30, 4.0),  # another schedule, too
    started("shots=1", 40, None),
    started("shots=25", 50, 20.0, crop=40),  # another program, alone
    started("shots=100", 4, 50.0, sweep=None),  # nobody noted when it began
  )
  (startup,) = seeds.rows(effort.startups(found))
  assert startup[:5] == ("R14x0.5", 56, 48, 64, 10)
  assert (startup.first.count, startup.first.median) == (1, 30.0)
  assert str(startup.later) == "4.0 (3.0 to 5.0), 3 runs"


def test_runs_that_began_side_by_side_all_compile(tmp_path):
  found = run_folders.table(
    tmp_path,
    started("shots=5,seed=0", 10, 90.0),
    started("shots=5,seed=1", 11, 70.0),  # the first one is not ready before half past
    started("shots=5,seed=2", 12, 6.0),
  )
  (startup,) = seeds.rows(effort.startups(found))
  assert (startup.first.count, startup.first.low, startup.first.high) == (2, 70.0, 90.0)
  assert (startup.later.count, startup.later.median) == (1, 6.0)
  (startup,) = seeds.rows(effort.startups(found[:2]))
  assert startup.later is None


def test_an_interrupted_run_belongs_where_its_last_attempt_began(tmp_path):
  folder = tmp_path / "0"
  run_folders.written(
    tmp_path, started("shots=5,seed=0", 0, 5.0), started("shots=5,seed=1", 9, 40.0)
  )
  noted = json.loads((folder / "sweep.json").read_text())
  again = {**noted["attempts"][0], "started": "2026-11-22T09:30:00+00:00"}
  run_folders.dump(folder / "sweep.json", {**noted, "attempts": [*noted["attempts"], again]})
  found = seeds.frame(run_folders.collected(tmp_path).runs)
  (startup,) = seeds.rows(effort.startups(found))
  assert (startup.first.median, startup.later.median) == (40.0, 5.0)


def test_what_runs_took_adds_up(tmp_path):
  def run(seed, rate, seconds, **fields):
    more = {"sweep": "mine", "seconds": seconds, "result": {"images_per_second": rate}}
    return run_folders.reduced(f"model=R14x0.5,shots=5,seed={seed}", **fields), 0.5, more

  found = run_folders.table(
    tmp_path,
    run(0, 400.0, (10.0, 1000.0)),
    run(1, 100.0, (690.0,)),
    run(2, 200.0, (100.0,)),
    run(3, None, (1.0,)),
    run(4, 300.0, (50.0,), length=0.4),
  )
  first, second = seeds.rows(effort.efforts(found))
  assert first[:5] == ("R14x0.5", 56, 48, 64, 100)
  assert (first.runs, first.images, first.rate, first.total) == (3, 6400, 200.0, 0.5)
  assert first.hours == pytest.approx(3 * 6400 / 200 / 3600)
  assert (second.runs, second.images, second.steps) == (1, 12_800, 200)


def test_time_that_no_sweep_took_is_not_known(tmp_path):
  found = run_folders.table(tmp_path, (run_folders.reduced(), 0.5, {}))
  (one,) = seeds.rows(effort.efforts(found))
  assert math.isnan(one.total)
  assert one.rate == 272.0


def test_without_timed_runs_there_are_no_rows(tmp_path):
  found = run_folders.table(tmp_path)
  assert effort.efforts(found).empty
  assert effort.startups(found).empty
