"""Tests of experiments.sweeping.executor: what becomes of runs, with outcomes that a test lists."""

import dataclasses
import json

import pytest
import resolving
import running

from bit_jax.runtime import exits, stopping
from experiments import ledger
from experiments.sweeping import executor, grid, queueing


def planned(name, after=None):
  config, spec = resolving.resolve(running.config(total_steps=100))
  return grid.Planned(name, config, spec, {"start": "in words"}, after, None)


class Listed(executor.Executor):
  """Runs end in the order in which they start, by the outcomes of a test."""

  def __init__(self, queue, outcomes, limit=1):
    super().__init__(queue, stopping.StopRequest(), limit)
    self.started, self.most, self._outcomes = [], 0, iter(outcomes)

  def start(self, one, job):
    self.started.append(one.name)
    self.most = max(self.most, len(self.queue.under_way))
    return True

  def poll(self):
    if self.queue.under_way:
      yield next(self._outcomes)(self.out)

  def wait(self):
    pass


def finish(name, **scores):
  def end(out):
    (out / name).mkdir(exist_ok=True)
    (out / name / "result.json").write_text(json.dumps({"top1": 0.5, **scores}))
    return executor.Ended(name)

  return end


def end(name, **keywords):
  return lambda out: executor.Ended(name, **keywords)


def execute(out, outcomes, runs, limit=1):
  queue = queueing.Queue(runs, out, "mine")
  one = Listed(queue, outcomes, limit)
  one.run()
  return one


def test_runs_are_executed_in_order_and_at_the_limit(tmp_path):
  runs = [planned("a"), planned("b", after="a"), planned("c"), planned("d")]
  outcomes = [finish("a"), finish("c"), finish("b"), finish("d")]
  one = execute(tmp_path, outcomes, runs, limit=2)
  assert one.started == ["a", "c", "b", "d"]
  assert (one.most, one.queue.done) == (2, set("abcd"))


def test_an_interrupted_run_comes_next_and_a_failed_one_takes_others_with_it(tmp_path, capsys):
  runs = [planned("a"), planned("b"), planned("c", after="b")]
  outcomes = [
    end("a", interrupted=True),
    finish("a"),
    end("b", error="Killed."),
  ]
  one = execute(tmp_path, outcomes, runs)
  assert one.started == ["a", "a", "b"]
  assert one.queue.failed == {
    "b": "Killed.",
    "c": "It starts from the weights of b, which failed.",
  }
  assert ledger.failure(tmp_path / "b") == "Killed."
  assert "[3/3] c" in capsys.readouterr().out


def test_scores_of_a_finished_run_are_printed(tmp_path, capsys):
  execute(tmp_path, [finish("a", balanced_accuracy=0.4, macro_f1=0.25)], [planned("a")])
  text = capsys.readouterr().out
  assert "top-1 50.00%, balanced accuracy 40.00%, macro F1 25.00%" in text


def test_a_result_removes_the_error_of_an_earlier_attempt(tmp_path):
  ledger.note_failure(tmp_path / "a", "Earlier.")
  execute(tmp_path, [finish("a")], [planned("a")])
  assert ledger.failure(tmp_path / "a") is None


@pytest.mark.parametrize(
  ("result", "fact"),
  [
    (None, "neither a result nor an error"),
    ('{"loss": 1}', "a/result.json holds no result"),
    ("{", "a/result.json holds no result"),
  ],
)
def test_a_run_without_result_and_error_has_failed(tmp_path, result, fact):
  (tmp_path / "a").mkdir()
  if result is not None:
    (tmp_path / "a" / "result.json").write_text(result)
  one = execute(tmp_path, [end("a")], [planned("a")])
  assert fact in one.queue.failed["a"]


def test_a_job_has_the_fields_of_the_run_and_the_weights_of_another(tmp_path):
  first, second = planned("a"), planned("b", after="a")
  config = dataclasses.replace(second.config, weights="a/model.npz")
  second = dataclasses.replace(second, config=config)
  one = Listed(queueing.Queue([first, second], tmp_path, "mine"), [])
  assert one.job(first).weights is None
  job = one.job(second)
  assert (job.folder, job.weights) == (f"{tmp_path}/b", f"{tmp_path}/a/model.npz")
  assert (job.sweep, job.labels) == ("mine", {"start": "in words"})
  assert job.config == second.config.to_dict()


def test_a_stop_says_how_many_runs_are_left(tmp_path):
  one = Listed(queueing.Queue([planned("a"), planned("b")], tmp_path, "mine"), [finish("a")])
  one.wait = lambda: setattr(one.stop, "requested", True)
  with pytest.raises(exits.Interrupted, match="1 of 2 runs left"):
    one.run()
