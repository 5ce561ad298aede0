"""Tests of experiments.sweeping.queueing: folders stand for runs."""

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from run_folders import finished, planned

from bit_jax.runtime import clock
from experiments import ledger
from experiments.cost import footprint
from experiments.sweeping import queueing


def test_finished_runs_are_not_made_again_and_failed_ones_come_last(tmp_path):
  finished(tmp_path / "b")
  ledger.note_failure(tmp_path / "a", "It failed.")
  queue = queueing.Queue([planned(n) for n in "abcd"], tmp_path, "mine")
  assert queue.done == {"b"}
  assert not queue.failed
  assert [queue.take().name for _ in range(3)] == ["c", "d", "a"]
  assert queue.take() is None
  assert queue.left == 3


def test_a_run_waits_for_the_one_whose_weights_it_needs(tmp_path):
  queue = queueing.Queue([planned("a"), planned("b", after="a"), planned("c")], tmp_path, "mine")
  assert [queue.take().name, queue.take().name] == ["a", "c"]
  assert queue.take() is None
  queue.finish("a")
  assert queue.take().name == "b"


def test_what_needs_a_failed_run_fails_with_it(tmp_path):
  runs = [planned("a"), planned("b", after="a"), planned("c", after="b"), planned("d")]
  queue = queueing.Queue(runs, tmp_path, "mine")
  assert queue.take().name == "a"
  assert queue.fail("a", "It failed.") == ["b", "c"]
  assert queue.failed["c"] == "It starts from the weights of b, which failed."
  assert ledger.failure(tmp_path / "b") == "It starts from the weights of a, which failed."
  assert (queue.take().name, queue.left) == ("d", 1)


def test_a_run_that_cannot_be_made_has_failed_before_it_begins(tmp_path):
  queue = queueing.Queue([planned("a", mistake="No."), planned("b", after="a")], tmp_path, "mine")
  assert queue.failed.keys() == {"a", "b"}
  assert queue.left == 0
  assert ledger.failure(tmp_path / "a") == "No."


def test_a_run_that_was_stopped_comes_next(tmp_path):
  queue = queueing.Queue([planned("a"), planned("b")], tmp_path, "mine")
  queue.take()
  queue.put_back("a")
  assert queue.take().name == "a"


def log(out, name, step):
  (out / name).mkdir(exist_ok=True)
  (out / name / "metrics.jsonl").write_text(json.dumps({"step": step}) + "\n")


def test_work_counts_operations_and_the_steps_of_runs_under_way(tmp_path):
  runs = [planned("a", steps=100), planned("b", steps=300)]
  queue = queueing.Queue(runs, tmp_path, "mine")
  a, b = (footprint.flops(one.config, one.spec) for one in runs)
  assert queue.work() == (0, a + b)
  queue.take()
  log(tmp_path, "a", 25)
  assert queue.work() == (pytest.approx(a / 4), a + b)
  queue.finish("a")
  assert queue.work() == (a, a + b)
  queue.take()
  log(tmp_path, "b", 30)
  queue.fail("b", "It failed.")  # the rest of it is no longer to be done
  assert queue.work() == (pytest.approx(a + b / 10), pytest.approx(a + b / 10))


def test_steps_of_stopped_runs_are_done(tmp_path):
  (run,) = runs = [planned("a")]
  work = footprint.flops(run.config, run.spec)
  log(tmp_path, "a", 50)  # of an earlier sweep
  queue = queueing.Queue(runs, tmp_path, "mine")
  assert queue.work() == (pytest.approx(work / 2), work)
  queue.take()
  for step in (75, 70):  # it may resume from an earlier step than the last one
    log(tmp_path, "a", step)
    assert queue.work() == (pytest.approx(step / 100 * work), work)
  queue.put_back("a")
  assert queue.work() == (pytest.approx(0.7 * work), work)


def test_the_time_left_is_by_the_speed_since_the_start(tmp_path, monkeypatch):
  now = [0.0]
  monkeypatch.setattr(queueing.time, "monotonic", lambda: now[0])
  log(tmp_path, "a", 50)
  queue = queueing.Queue([planned("a"), planned("b")], tmp_path, "mine")
  shown = queueing.Progress(queue)
  queue.take()
  now[0] = 600.0
  assert shown._time_left(*queue.work()) == "time left unknown"
  log(tmp_path, "a", 75)
  assert shown._time_left(*queue.work()) == f"{clock.format_seconds(5 * 600.0)} left"


def test_an_update_of_the_progress_looks_at_each_run_once(tmp_path, monkeypatch, capsys):
  looks = []
  monkeypatch.setattr(ledger, "last_step", lambda folder: looks.append(folder.name) or 50)
  monkeypatch.setattr(queueing, "_EVERY", 0.0)
  queue = queueing.Queue([planned("a"), planned("b"), planned("c")], tmp_path, "mine")
  queue.take()
  queue.take()
  shown = queueing.Progress(queue)
  looks.clear()
  shown.update("running: a, b")
  assert sorted(looks) == ["a", "b"]
  assert "0 of 3 runs, 50% of the work" in capsys.readouterr().out


@given(st.lists(st.integers(0, 3), min_size=1, max_size=12), st.data())
def test_every_run_ends_once_whatever_becomes_of_it(tmp_path_factory, befores, data):
  runs, one = [], planned("one")
  for i, before in enumerate(befores):
    after = f"r{i - before}" if 0 < before <= i else None
    runs.append(dataclasses.replace(one, name=f"r{i}", after=after))
  queue = queueing.Queue(runs, tmp_path_factory.mktemp("queue"), "mine")
  taken = []
  while (one := queue.take()) is not None:
    taken.append(one.name)
    what = data.draw(st.sampled_from(["finish", "fail"]))
    queue.finish(one.name) if what == "finish" else queue.fail(one.name, "It failed.")
  assert queue.left == 0
  assert len(taken) == len(set(taken))
  assert queue.done | queue.failed.keys() == {one.name for one in runs}
  assert not queue.done & queue.failed.keys()
  for one in runs:
    if one.after in queue.failed:
      assert one.name in queue.failed


def test_a_run_that_is_under_way_elsewhere_is_not_taken(tmp_path):
  finished(tmp_path / "b")
  queue = queueing.Queue([planned("a"), planned("b"), planned("c")], tmp_path, "mine")
  assert [queue.resume(name) for name in ("a", "b", "x")] == [True, False, False]
  assert (queue.take().name, queue.take(), queue.left) == ("c", None, 2)
