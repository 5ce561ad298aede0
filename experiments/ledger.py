"""Records of a sweep in each run folder: attempts (`sweep.json`), error (`error.json`) and log."""

import datetime
import json
import os
import pathlib
import time
import traceback
from typing import Any, Literal

from bit_jax.runs import reporting, run_folder
from bit_jax.runtime import errors

SWEEP, ERROR, LOG = "sweep.json", "error.json", "log.txt"  # files of a run folder

State = Literal["finished", "failed", "begun", "open"]
Outcome = Literal["finished", "failed", "interrupted"]

SCORES = {"top1": "top-1", "balanced_accuracy": "balanced accuracy", "macro_f1": "macro F1"}
_LONGEST = 1e10  # seconds, 300 years: a longer duration is damaged
_TAIL = 1 << 14  # bytes, many times a line of metrics


def state(folder: pathlib.Path) -> State:
  """Returns the state of the run in a folder; a failed run that was started again is 'begun'."""
  if result(folder) is not None:
    return "finished"
  if (folder / ERROR).exists():
    return "failed"
  return "begun" if (folder / SWEEP).exists() else "open"


def outcome(folder: pathlib.Path, slurm_job: str | None = None) -> str | None:
  """Returns the recorded outcome of the last attempt.

  Args:
    folder: The run folder.
    slurm_job: Number of the Slurm job that the attempt must belong to; None: any.

  Returns:
    An `Outcome`; 'running' if no end is recorded: it runs, or was killed; None if there is no such
    attempt.
  """
  attempts = _attempts(folder)
  if not attempts or slurm_job not in (None, attempts[-1].get("slurm_job")):
    return None
  return str(attempts[-1]["outcome"])


def seconds(folder: pathlib.Path) -> float | None:
  """Returns the duration of a run, as `total_seconds` does."""
  return total_seconds(_attempts(folder))


def last_step(folder: pathlib.Path) -> int:
  """Returns the last step that a run has logged, 0 if none."""
  try:
    with (folder / reporting.METRICS).open("rb") as file:
      file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL))
      *lines, _ = file.read().split(b"\n")  # the last may be incomplete
  except OSError:  # the run itself reports the problem
    return 0
  for line in reversed(lines):
    try:
      return int(json.loads(line)["step"])
    except (ValueError, TypeError, KeyError):  # damaged, as by a power cut
      continue
  return 0


def result(folder: pathlib.Path) -> dict[str, Any] | None:
  """Returns the result of a finished run, with a number 'top1'; None if there is none."""
  try:
    found = run_folder.finished(folder)
  except (errors.UserError, OSError):
    return None
  return found if found and type(found.get("top1")) in (int, float) else None


def scores(result: dict[str, Any]) -> str:
  """Returns e.g. 'top-1 97.30%, balanced accuracy 96.10%, macro F1 96.00%'.

  Args:
    result: Result of a finished run; earlier versions recorded top-1 alone.
  """
  known = {name: result.get(key) for key, name in SCORES.items()}
  return ", ".join(
    f"{name} {value:.2%}" for name, value in known.items() if isinstance(value, int | float)
  )


def checked(attempts: Any) -> list[dict[str, Any]]:
  """Returns the attempts of a record; none if any of them is damaged.

  Each has its start ('started', as `moment` reads it), its 'seconds' (at least 0; None: unknown),
  and its 'outcome' (an `Outcome`, 'running' or 'killed').
  """
  valid = isinstance(attempts, list) and all(map(_is_attempt, attempts))
  return attempts if valid else []


def total_seconds(attempts: Any) -> float | None:
  """Returns the sum of the attempts' seconds; None if any is unknown, or all are 0."""
  taken = [attempt["seconds"] for attempt in checked(attempts)]
  return None if None in taken else float(sum(taken)) or None


def last_began(attempts: Any) -> datetime.datetime | None:
  """Returns the start of the last attempt, with its time zone; None if unknown."""
  valid = checked(attempts)
  return moment(valid[-1]["started"]) if valid else None


def moment(text: str) -> datetime.datetime:
  """Returns an ISO 8601 time with its zone, by default UTC.

  Raises:
    ValueError: It isn't a time.
    TypeError: It isn't a string.
  """
  found = datetime.datetime.fromisoformat(text)
  return found if found.tzinfo else found.replace(tzinfo=datetime.UTC)


class Attempt:
  """One attempt of a run, recorded in its folder from its start: `sweep.json`."""

  def __init__(self, folder: pathlib.Path, sweep: str, labels: dict[str, str]):
    """Records the start and removes the error of an earlier attempt.

    Args:
      folder: The run folder, which exists.
      sweep: Name of the sweep.
      labels: The run's labels in tables and figures (`grid.Planned`).
    """
    self._folder = folder
    self._began = time.monotonic()
    job = os.environ.get("SLURM_JOB_ID")
    attempt = {"started": _now(), "seconds": None, "outcome": "running"}
    attempts = [_closed(earlier, folder / LOG) for earlier in _attempts(folder)]
    attempts.append(attempt if job is None else {**attempt, "slurm_job": job})
    self._record: dict[str, Any] = {"sweep": sweep, "labels": labels, "attempts": attempts}
    run_folder.write_json(folder / SWEEP, self._record)
    (folder / ERROR).unlink(missing_ok=True)

  def end(self, outcome: Outcome) -> None:
    """Records outcome and duration; removes the error of a finished run."""
    seconds = round(time.monotonic() - self._began, 1)
    self._record["attempts"][-1] |= {"seconds": seconds, "outcome": outcome}
    run_folder.write_json(self._folder / SWEEP, self._record)
    if outcome == "finished":
      (self._folder / ERROR).unlink(missing_ok=True)


def note_failure(folder: pathlib.Path, message: str, error: BaseException | None = None) -> None:
  """Writes `error.json`.

  Args:
    folder: The run folder; created if it doesn't exist.
    message: One sentence about what went wrong.
    error: The exception, if there was one.
  """
  folder.mkdir(parents=True, exist_ok=True)
  details = {
    "message": message,
    "kind": None if error is None else type(error).__name__,
    "traceback": None if error is None else "".join(traceback.format_exception(error)),
    "time": _now(),
  }
  run_folder.write_json(folder / ERROR, details)


def failure(folder: pathlib.Path) -> str | None:
  """Returns the sentence about what went wrong in a run, None if it has no error."""
  try:
    found = run_folder.read_json(folder / ERROR)
    return None if found is None else str(found["message"])
  except (errors.UserError, OSError, KeyError):
    return f"It failed, and {ERROR} is damaged."


def _attempts(folder: pathlib.Path) -> list[dict[str, Any]]:
  """Returns the recorded attempts; none if the record is damaged, as by a power cut."""
  try:
    return checked((run_folder.read_json(folder / SWEEP) or {}).get("attempts"))
  except (errors.UserError, OSError):
    return []


def _is_attempt(value: Any) -> bool:
  try:
    moment(value["started"])
    seconds = value["seconds"]
    valid = seconds is None or (type(seconds) in (int, float) and 0 <= seconds < _LONGEST)
    return valid and isinstance(value["outcome"], str)
  except (TypeError, ValueError, KeyError):
    return False


def _closed(attempt: dict[str, Any], log: pathlib.Path) -> dict[str, Any]:
  """Returns an earlier attempt with its end: one without an outcome was killed.

  It ended when it last wrote to the log.
  """
  if attempt["outcome"] != "running":
    return attempt
  started = moment(attempt["started"]).timestamp()
  seconds = max(0.0, log.stat().st_mtime - started) if log.exists() else None
  return {**attempt, "seconds": seconds, "outcome": "killed"}


def _now() -> str:
  return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
