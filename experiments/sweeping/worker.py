"""A process that makes one run after the other, as it is told on its standard input.

    python -m experiments.sweeping.worker

Each line in is a job (`Job`, as JSON), each line out its outcome. A run that fails leaves its error
in its folder, and the next one may come. When the input ends, whoever gave the jobs is gone: the
run that is under way is saved, and the process ends.
"""

import contextlib
import dataclasses
import json
import os
import pathlib
import queue
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import IO

import ml_collections

from bit_jax.runtime import compile_cache, errors, exits, machine, output
from bit_jax.training import loop
from experiments import ledger


@dataclasses.dataclass(frozen=True)
class Job:
  """A run to be made.

  Attributes:
    folder: The run folder.
    config: The resolved config's fields.
    sweep: Name of the sweep.
    labels: What tables and figures are told of the run (`grid.Planned`).
    weights: The file that it starts from, if the config only names it: another run's.
  """

  folder: str
  config: dict
  sweep: str
  labels: dict[str, str]
  weights: str | None = None


def perform(job: Job) -> ledger.Outcome:
  """Makes a run, and notes in its folder what came of it; raises nothing that went wrong in it."""
  folder = pathlib.Path(job.folder)
  folder.mkdir(parents=True, exist_ok=True)
  attempt = ledger.Attempt(folder, job.sweep, job.labels)
  outcome: ledger.Outcome = "finished"
  try:
    loop.train_and_evaluate(_config(job.config), job.folder, job.weights)
  except (exits.Interrupted, KeyboardInterrupt) as e:
    print(e, flush=True)
    outcome = "interrupted"
  except errors.UserError as e:
    print(f"error: {e}", flush=True)
    ledger.note_failure(folder, str(e), e)
    outcome = "failed"
  except Exception as e:  # whatever it is, the other runs go on
    ledger.note_failure(folder, f"{type(e).__name__}: {e}", e)
    outcome = "failed"
  attempt.end(outcome)
  return outcome


def prepare() -> None:
  """Sets this process up for runs, as `python -m bit_jax.train` does; before JAX is used."""
  output.prepare()
  machine.keep_freed_memory()
  if remark := compile_cache.keep():
    print(remark)


def main() -> None:
  """Makes runs until there are no more jobs."""
  replies = os.fdopen(os.dup(sys.stdout.fileno()), "w")
  os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
  prepare()
  signal.signal(signal.SIGTERM, stop_at_once)  # until the trainer listens
  with (
    output.surviving("stdout", "stderr"),  # a log that can't be written ends no run
    contextlib.suppress(exits.Interrupted),  # between two runs: there is nothing to save
  ):
    _make_all(replies)


def _make_all(replies: IO[str]) -> None:
  """Makes the runs that are asked for; each one's outcome goes to `replies`."""
  at_work, ended = threading.Event(), threading.Event()
  for job in _jobs(sys.stdin, at_work, ended):
    at_work.set()
    if ended.is_set():  # nobody is there any more, and nothing was begun
      return
    outcome: ledger.Outcome = "interrupted"
    # Where it is asked to stop as the run begins or ends, that is no error.
    with contextlib.suppress(exits.Interrupted), output_into(pathlib.Path(job.folder)):
      outcome = perform(job)
    at_work.clear()
    with contextlib.suppress(BrokenPipeError):  # whoever gave the job is gone
      print(outcome, file=replies, flush=True)


def _config(fields: dict) -> ml_collections.ConfigDict:
  """Returns a config of fields that were JSON, which knows no tuples."""
  return ml_collections.ConfigDict(
    {k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()}
  )


def stop_at_once(number: int, frame: FrameType | None) -> None:
  """Handles SIGTERM where the trainer doesn't listen: there is nothing to be saved."""
  raise exits.Interrupted("Stopped before the first step.")


def _jobs(lines: IO[str], at_work: threading.Event, ended: threading.Event) -> Iterator[Job]:
  """Yields the jobs as they come; once none is to come, asks a run that is under way to stop."""
  waiting: queue.SimpleQueue[Job | None] = queue.SimpleQueue()

  def read() -> None:
    for line in lines:
      waiting.put(Job(**json.loads(line)))
    ended.set()
    waiting.put(None)
    if at_work.is_set():
      os.kill(os.getpid(), signal.SIGTERM)

  threading.Thread(target=read, daemon=True).start()
  while (job := waiting.get()) is not None:
    yield job


@contextlib.contextmanager
def output_into(folder: pathlib.Path) -> Iterator[None]:
  """Sends what is printed, by whatever library, into the folder's log."""
  folder.mkdir(parents=True, exist_ok=True)
  earlier = [(stream, os.dup(stream.fileno())) for stream in (sys.stdout, sys.stderr)]
  with (folder / ledger.LOG).open("a") as log:
    for stream, _ in earlier:
      stream.flush()
      os.dup2(log.fileno(), stream.fileno())
  try:
    yield
  finally:
    for stream, number in earlier:
      stream.flush()
      os.dup2(number, stream.fileno())
      os.close(number)


if __name__ == "__main__":
  main()
