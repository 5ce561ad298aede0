"""A process that executes runs one after the other, as its standard input lists them.

    python -m experiments.sweeping.worker

Each line of input is a job (`Job`, as JSON), each line of output its outcome. A run that fails
leaves its error in its folder, and the next one follows. When the input ends, the process that gave
the jobs is gone: the current run is saved, and the worker ends.
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
from typing import Any

import ml_collections

from bit_jax.runtime import compile_cache, errors, exits, machine, output, stopping
from bit_jax.training import fine_tuning
from experiments import ledger


@dataclasses.dataclass(frozen=True)
class Job:
  """A run to execute.

  Attributes:
    folder: The run folder.
    config: The resolved config's fields.
    sweep: Name of the sweep.
    labels: The run's labels in tables and figures (`grid.Planned`).
    weights: The file of its initial weights, if the config only names it: another run's.
  """

  folder: str
  config: dict[str, Any]
  sweep: str
  labels: dict[str, str]
  weights: str | None = None


def perform(job: Job) -> ledger.Outcome:
  """Executes a run and records its outcome in its folder; raises none of its errors."""
  folder = pathlib.Path(job.folder)
  folder.mkdir(parents=True, exist_ok=True)
  attempt = ledger.Attempt(folder, job.sweep, job.labels)
  outcome: ledger.Outcome = "finished"
  try:
    fine_tuning.train_and_evaluate(ml_collections.ConfigDict(job.config), job.folder, job.weights)
  except (exits.Interrupted, KeyboardInterrupt) as e:
    print(e, flush=True)
    outcome = "interrupted"
  except Exception as e:  # whatever it is, the other runs continue
    message = str(e) if isinstance(e, errors.UserError) else f"{type(e).__name__}: {e}"
    print(f"error: {message}", flush=True)
    ledger.note_failure(folder, message, e)
    outcome = "failed"
  attempt.end(outcome)
  return outcome


def prepare() -> None:
  """Prepares this process for runs, as `python -m bit_jax.train` does; before JAX is used."""
  output.prepare()
  machine.keep_freed_memory()
  if remark := compile_cache.keep():
    print(remark)


def main() -> None:
  """Executes runs until there are no more jobs."""
  replies = os.fdopen(os.dup(sys.stdout.fileno()), "w")
  os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
  prepare()
  signal.signal(signal.SIGTERM, stopping.stop_at_once)  # until the trainer listens
  lines: queue.SimpleQueue[str] = queue.SimpleQueue()
  with (
    output.surviving("stdout", "stderr"),  # a log that can't be written ends no run
    contextlib.suppress(exits.Interrupted),  # between two runs: there is nothing to save
  ):
    # It may ask for the end at once, if nobody is there.
    threading.Thread(target=_read, args=(lines,), daemon=True).start()
    while line := lines.get():
      job, outcome = Job(**json.loads(line)), "interrupted"
      # A stop as the run begins or ends is not an error.
      with contextlib.suppress(exits.Interrupted), output_into(pathlib.Path(job.folder)):
        outcome = perform(job)
      with contextlib.suppress(BrokenPipeError):  # nobody waits for the reply
        print(outcome, file=replies, flush=True)


def _read(lines: queue.SimpleQueue[str]) -> None:
  """Passes the input on; at its end asks the current run to stop, and the process to end."""
  for line in sys.stdin:
    lines.put(line)
  os.kill(os.getpid(), signal.SIGTERM)
  lines.put("")


@contextlib.contextmanager
def output_into(folder: pathlib.Path) -> Iterator[None]:
  """Redirects all output, of libraries as well, into the folder's log."""
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
