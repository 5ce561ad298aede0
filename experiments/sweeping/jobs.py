"""A run as a job, wherever it is made: what its process is told, and what became of it."""

import pathlib
from typing import Any

from bit_jax.runs import run_folder
from bit_jax.runtime import numerics
from experiments import ledger
from experiments.sweeping import grid, progress, queueing, worker


def job(one: grid.Planned, out: pathlib.Path, sweep: str) -> worker.Job:
  """Returns what a worker is told of a run."""
  weights = None if one.after is None else str(out / one.config.weights)
  return worker.Job(str(out / one.name), one.config.to_dict(), sweep, one.labels, weights)


def variables(config: Any) -> dict[str, str]:
  """Returns the environment variables that the process of a run needs besides, started here."""
  return numerics.deterministic_variables() if config.deterministic else {}


def setup(config: Any) -> list[str]:
  """Returns the shell commands by which another machine has what `variables` gives a process."""
  return [numerics.deterministic_command()] if config.deterministic else []


def settle(
  queue: queueing.Queue,
  out: pathlib.Path,
  name: str,
  shown: progress.Progress,
  why: str | None = None,
) -> None:
  """Notes and tells what became of a run, as its folder says.

  Args:
    queue: The runs.
    out: The sweep's folder.
    name: Of a run whose process is done with it, or gone.
    shown: Where it is told.
    why: A sentence on why there is no result, if it is known from elsewhere.
  """
  result = ledger.result(out / name)
  if result is not None:
    (out / name / ledger.ERROR).unlink(missing_ok=True)
    queue.finish(name)
    shown.ended(name, f"top-1 {result['top1']:.2%}")
    return
  if why is not None:
    ledger.note_failure(out / name, why)
  message = ledger.failure(out / name) or _silent(out / name)
  for one in [name, *queue.fail(name, message)]:
    shown.ended(one, f"FAILED: {queue.failed[one]}")


def _silent(folder: pathlib.Path) -> str:
  """Returns a sentence on a run that is said to be over, and left no error."""
  path = folder / run_folder.RESULT
  if path.exists():
    return f"{path} holds no result: delete it."
  return "It left neither a result nor an error."
