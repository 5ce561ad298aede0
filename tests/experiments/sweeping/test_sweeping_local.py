"""Tests of experiments.sweeping.local: which worker gets which run; workers are stand-ins."""

import dataclasses
import os
import pathlib

import pytest
import resolving
import running

from bit_jax.runtime import stopping
from experiments.sweeping import grid, local, queueing


class Worker:
  """A worker that replies at once: it finishes its runs, or is killed by one named 'killed'."""

  def __init__(self, place, variables, lock, log):
    self.variables, self.run, self.runs, self.ended = variables, None, [], False
    read, write = os.pipe()
    self.replies, self._outcomes = os.fdopen(read), os.fdopen(write, "w")
    WORKERS.append(self)

  def start(self, name, job):
    self.run = name
    self.runs.append(name)
    if name == "killed":
      self._outcomes.close()
      return
    folder = pathlib.Path(job.folder)
    folder.mkdir()
    (folder / "result.json").write_text('{"top1": 0.5}')
    self._outcomes.write("finished\n")
    self._outcomes.flush()

  def kill(self):
    self.ended = True
    self.replies.close()
    self._outcomes.close()


WORKERS: list[Worker] = []


@pytest.fixture
def execute(tmp_path, monkeypatch):
  """A function that executes runs on one device, and returns their queue."""
  monkeypatch.setattr(local, "_Worker", Worker)
  monkeypatch.setenv("XLA_FLAGS", "--xla_other=1")
  WORKERS.clear()

  def run(*names):
    config, spec = resolving.resolve(running.config())
    planned = [
      grid.Planned(
        name,
        dataclasses.replace(config, deterministic=name == "deterministic"),
        spec,
        {},
        None,
        None,
      )
      for name in names
    ]
    queue = queueing.Queue(planned, tmp_path, "mine")
    local.Local(queue, stopping.StopRequest(), [local.Place({})], 0).run()
    return queue

  return run


def test_one_worker_executes_runs_one_after_the_other(execute):
  assert execute("a", "b").done == {"a", "b"}
  (worker,) = WORKERS
  assert (worker.runs, worker.variables, worker.ended) == (["a", "b"], {}, True)


def test_a_deterministic_run_gets_a_worker_with_its_option(execute):
  execute("a", "deterministic")
  plain, other = WORKERS
  assert (plain.runs, plain.variables, plain.ended) == (["a"], {}, True)
  assert other.runs == ["deterministic"]
  assert other.variables == {"XLA_FLAGS": "--xla_other=1 --xla_gpu_deterministic_ops=true"}


def test_after_a_killed_worker_another_one_takes_the_next_run(execute):
  queue = execute("killed", "b")
  assert "was killed" in queue.failed["killed"]
  assert queue.done == {"b"}
  assert [worker.runs for worker in WORKERS] == [["killed"], ["b"]]
