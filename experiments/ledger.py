"""What a sweep notes in the folder of each run, beside what the run itself leaves there."""

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

_LONGEST = 1e10  # seconds, some 300 years: what is said to have taken longer is damaged
_TAIL = 1 << 14  # bytes, many times a line of metrics


def state(folder: pathlib.Path) -> State:
  """Returns how far the run of a folder is; one that failed and was begun again is 'begun'."""
  if result(folder) is not None:
    return "finished"
  if (folder / ERROR).exists():
    return "failed"
  return "begun" if (folder / SWEEP).exists() else "open"


def under_way(folder: pathlib.Path) -> bool:
  """Returns whether an attempt was begun that has no end: its process is at it, or was killed."""
  attempts = _attempts(folder)
  return bool(attempts) and attempts[-1]["outcome"] == "running"


def outcome(folder: pathlib.Path, slurm_job: str) -> str | None:
  """Returns what a Slurm job has noted of its attempt, None if nothing: an `Outcome`, 'running'."""
  attempts = _attempts(folder)
  is_its = attempts and attempts[-1].get("slurm_job") == slurm_job
  return attempts[-1]["outcome"] if is_its else None


def seconds(folder: pathlib.Path) -> float | None:
  """Returns how long a run took, as `total_seconds` does."""
  return total_seconds(_attempts(folder))


def last_step(folder: pathlib.Path) -> int:
  """Returns the number of steps of which a run has told, 0 if of none."""
  try:
    with (folder / reporting.METRICS).open("rb") as file:
      file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL))
      *whole, _ = file.read().split(b"\n")  # the last may be half-written
  except OSError:  # the run itself will say what is wrong
    return 0
  return next((step for line in reversed(whole) if (step := _step(line)) is not None), 0)


def _step(line: bytes) -> int | None:
  try:
    return int(json.loads(line)["step"])
  except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
    return None  # damaged, as by a power cut


def result(folder: pathlib.Path) -> dict[str, Any] | None:
  """Returns the result of a finished run, which has a number 'top1'; None if there is none."""
  try:
    found = run_folder.finished(folder)
  except (errors.UserError, OSError, RecursionError):
    return None
  return found if isinstance(found, dict) and type(found.get("top1")) in (int, float) else None


def checked(attempts: Any) -> list[dict[str, Any]]:
  """Returns the attempts of a record; none where any of them is damaged, or they are no list.

  Each has when it 'started' (as `moment` reads it), its 'seconds' (at least 0; None: not known),
  and its 'outcome' (an `Outcome`, 'running' or 'killed').
  """
  sound = isinstance(attempts, list) and all(map(_is_attempt, attempts))
  return attempts if sound else []


def total_seconds(attempts: Any) -> float | None:
  """Returns the sum of the attempts' seconds; None if any of them isn't on record, or all are 0."""
  taken = [attempt["seconds"] for attempt in checked(attempts)]
  return None if None in taken else float(sum(taken)) or None


def last_began(attempts: Any) -> datetime.datetime | None:
  """Returns when the last attempt began, with its time zone; None if that isn't on record."""
  noted = checked(attempts)
  return moment(noted[-1]["started"]) if noted else None


def moment(text: str) -> datetime.datetime:
  """Returns an ISO 8601 time with its zone: UTC, unless it names another.

  Raises:
    ValueError: It is no time.
    TypeError: It is no text.
  """
  found = datetime.datetime.fromisoformat(text)
  return found if found.tzinfo else found.replace(tzinfo=datetime.UTC)


class Attempt:
  """One try of a run, noted in its folder from its beginning: `sweep.json`."""

  def __init__(self, folder: pathlib.Path, sweep: str, labels: dict[str, str]):
    """Notes the beginning; what was wrong with an earlier attempt isn't any more.

    Args:
      folder: The run folder, which exists.
      sweep: Name of the sweep.
      labels: What tables and figures are told of the run (`grid.Planned`).
    """
    self._folder = folder
    self._began = time.monotonic()
    attempts = [_closed(attempt, folder / LOG) for attempt in _attempts(folder)]
    attempts.append({"started": _now(), "seconds": None, "outcome": "running", **_where()})
    self._record: dict[str, Any] = {"sweep": sweep, "labels": labels, "attempts": attempts}
    run_folder.write_json(folder / SWEEP, self._record)
    (folder / ERROR).unlink(missing_ok=True)

  def end(self, outcome: Outcome) -> None:
    """Notes what came of it, and how many seconds it took; a finished run has no error any more."""
    seconds = round(time.monotonic() - self._began, 1)
    self._record["attempts"][-1] |= {"seconds": seconds, "outcome": outcome}
    run_folder.write_json(self._folder / SWEEP, self._record)
    if outcome == "finished":
      (self._folder / ERROR).unlink(missing_ok=True)


def note_failure(folder: pathlib.Path, message: str, error: BaseException | None = None) -> None:
  """Writes `error.json`.

  Args:
    folder: The run folder; made if it isn't there.
    message: A sentence on what went wrong.
    error: What was raised, if anything was.
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
  """Returns the sentence on what went wrong in a run, None if nothing did."""
  try:
    noted = run_folder.read_json(folder / ERROR)
    return None if noted is None else str(noted["message"])
  except (errors.UserError, OSError, RecursionError, TypeError, KeyError):
    return f"It failed, and {ERROR} is damaged."


def _attempts(folder: pathlib.Path) -> list[dict[str, Any]]:
  """Returns the attempts on record; none where the record is damaged, as by a power cut."""
  try:
    record = run_folder.read_json(folder / SWEEP)
  except (errors.UserError, OSError, RecursionError):
    return []
  return checked(record.get("attempts")) if isinstance(record, dict) else []


def _is_attempt(value: Any) -> bool:
  try:
    moment(value["started"])
    seconds, outcome = value["seconds"], value["outcome"]
  except (TypeError, ValueError, KeyError):
    return False
  known = type(seconds) in (int, float) and 0 <= seconds < _LONGEST
  return isinstance(outcome, str) and (known or seconds is None)


def _closed(attempt: dict[str, Any], log: pathlib.Path) -> dict[str, Any]:
  """Returns an earlier attempt as it is to stand: one without an end was killed.

  What it took is known from when it last wrote into the log.
  """
  if attempt["outcome"] != "running":
    return attempt
  started = moment(attempt["started"]).timestamp()
  seconds = max(0.0, log.stat().st_mtime - started) if log.exists() else None
  return {**attempt, "seconds": seconds, "outcome": "killed"}


def _where() -> dict[str, str]:
  """Returns the number of the Slurm job that this process belongs to, if it does."""
  number = os.environ.get("SLURM_JOB_ID")
  return {} if number is None else {"slurm_job": number}


def _now() -> str:
  return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
