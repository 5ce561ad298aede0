"""Slurm as a sweep sees it: it takes a run as a job, through submitit, and tells of its jobs.

submitit writes a script into a folder, `.submission_file_<digits>.sh`, gives it to sbatch, and then
notes what the job is to do, as `<number>_submitted.pkl`; what the job prints outside of its run
comes beside them, as `<number>_0_log.err`. Of a job's state submitit knows only what accounting
tells, which many clusters don't have, so squeue is asked.
"""

import contextlib
import dataclasses
import importlib.util
import io
import math
import os
import pathlib
import shlex
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any

from bit_jax.runtime import arguments, errors
from experiments.sweeping import worker

_ROOT = pathlib.Path(__file__).parents[2]  # of the checkout
_PROGRAMS = ("sbatch", "srun", "squeue", "scancel")
# A job's time, unless given: many partitions allow it, and what it leaves is gone on with.
_HOURS = 4
_PATIENCE = 60.0  # seconds for Slurm to answer
_SEPARATOR = "\x1f"  # of squeue's columns: in no name and no path


def _gigabytes(text: str) -> float:
  number = float(text)
  if not (math.isfinite(number) and number >= 0):
    raise ValueError
  return number


# submitit's options for one process on one node; the others don't go together with a run.
_SHARED = {
  "timeout_min": arguments.integer(_HOURS * 60, 1),
  "mem_gb": arguments.Argument(
    None, _gigabytes, "a number of gigabytes, 0 for all that a node has"
  ),
  "cpus_per_task": arguments.integer(None, 1),
  "gpus_per_node": arguments.integer(None, 0),
}
_OWN = {  # of its executor for Slurm; their names have a prefix there
  "partition": arguments.Argument(None),
  "account": arguments.Argument(None),
  "qos": arguments.Argument(None),
  "gres": arguments.Argument(None),
  "constraint": arguments.Argument(None),
  "nodelist": arguments.Argument(None),
  "exclude": arguments.Argument(None),
  "exclusive": arguments.boolean(),
  "mem_per_cpu": arguments.Argument(None),
  "mem_per_gpu": arguments.Argument(None),
  "signal_delay_s": arguments.integer(None, 1),
  "comment": arguments.Argument(None),
  "dependency": arguments.Argument(None),
  "mail_type": arguments.Argument(None),
  "mail_user": arguments.Argument(None),
  "wckey": arguments.Argument(None),
  "setup": arguments.Argument(None, lambda text: [text], "a shell command", takes_rest=True),
}

# States of squeue in which a job has ended.
_OVER = {
  "BOOT_FAIL",
  "CANCELLED",
  "COMPLETED",
  "DEADLINE",
  "FAILED",
  "NODE_FAIL",
  "OUT_OF_MEMORY",
  "PREEMPTED",
  "REVOKED",
  "TIMEOUT",
}


class NoAnswer(Exception):  # noqa: N818 - it may answer the next time
  """Slurm didn't do what it was asked to; the message is its own."""


@dataclasses.dataclass(frozen=True)
class Listed:
  """A job as squeue tells of it.

  Attributes:
    name: Of the run.
    state: Such as 'PENDING'; jobs that ended are known for some minutes.
    reason: Why it waits, such as 'Resources'.
    script: Name of the file that sbatch was given.
    told: Whether it finds what it is to do. If it doesn't, whoever submitted it was killed before
      that was written; it waits for a minute, and fails.
  """

  name: str
  state: str
  reason: str
  script: str
  told: bool = True

  @property
  def over(self) -> bool:
    """Whether it has ended."""
    return self.state in _OVER


class Cluster:
  """Takes jobs of one sweep."""

  def __init__(self, folder: pathlib.Path, options: Mapping[str, Any]):
    """Takes where submitit writes, and the values of the options (`options`)."""
    self._folder, self._options = folder, options

  def submit(self, name: str, job: worker.Job, setup: Sequence[str]) -> str:
    """Submits a run; returns the job's number.

    Args:
      name: Of the run.
      job: What is to be done.
      setup: Shell commands that come before it, after the user's own.

    Raises:
      NoAnswer: Slurm doesn't take it.
    """
    import submitit

    from experiments.sweeping import slurm_job

    executor = submitit.AutoExecutor(self._folder, cluster="slurm")
    executor.update_parameters(**self._parameters(name, setup))
    try:
      with contextlib.redirect_stderr(io.StringIO()):  # the message comes with the error
        return executor.submit(slurm_job.make, job).job_id
    except (submitit.core.utils.FailedJobError, submitit.core.utils.FailedSubmissionError) as e:
      raise NoAnswer(" ".join(str(e).split()) or "it gives no reason") from e

  def _parameters(self, name: str, setup: Sequence[str]) -> dict[str, Any]:
    """Returns submitit's parameters of a job."""
    o = {k: v for k, v in self._options.items() if v is not None and v is not False}
    # A step, an evaluation and the save must come between the signal and the end.
    delay = min(300, o["timeout_min"] * 60 // 5)
    path = shlex.quote(str(_ROOT)) + "${PYTHONPATH:+:$PYTHONPATH}"
    own = {
      "signal_delay_s": delay,
      **{k: v for k, v in o.items() if k in _OWN},
      "job_name": name,
      "setup": [*o.get("setup", []), f"export PYTHONPATH={path}", *setup],
    }
    if "cpus_per_task" in o:  # since 22.05, srun doesn't take it from the job
      own["srun_args"] = [f"--cpus-per-task={o['cpus_per_task']}"]
    shared = {k: v for k, v in o.items() if k in _SHARED}
    return {**shared, **{f"slurm_{k}": v for k, v in own.items()}}

  def jobs(self) -> dict[str, Listed]:
    """Returns {number: job} of the jobs of this sweep that squeue knows.

    Raises:
      NoAnswer: It doesn't answer.
    """
    here = {path.name for path in self._folder.glob("*")}
    mine = {}
    for number, listed in _listed().items():
      told = f"{number}_submitted.pkl" in here
      if told or listed.script in here:
        mine[number] = dataclasses.replace(listed, told=told)
    return mine

  def alive(self) -> dict[str, Listed]:
    """Returns those of `jobs` that haven't ended.

    Raises:
      UserError: squeue doesn't answer, and without it nothing must be begun: no run may be made
        twice at a time.
    """
    try:
      return {number: listed for number, listed in self.jobs().items() if not listed.over}
    except NoAnswer as e:
      raise errors.UserError(f"Slurm's queue can't be read: squeue says: {e}.") from e

  def cancel(self, number: str) -> None:
    """Cancels a job, if Slurm answers."""
    with contextlib.suppress(NoAnswer):
      _answer(["scancel", number])

  def log(self, number: str) -> pathlib.Path:
    """Returns the file with what a job printed outside of its run."""
    return self._folder / f"{number}_0_log.err"


def options(text: str | None) -> dict[str, Any]:
  """Returns the values of submitit's options.

  Args:
    text: Such as 'partition=gpu,gpus_per_node=1'.

  Raises:
    UserError: There is no such option, or it can't have that value.
  """
  values = arguments.parse(text, {**_SHARED, **_OWN}, "Slurm option")
  delay, minutes = values["signal_delay_s"], values["timeout_min"]
  if delay is not None and delay >= 60 * minutes:
    raise errors.UserError(
      f"The Slurm option signal_delay_s={delay} can't be used: jobs are asked to save so many "
      f"seconds before their time is over, and have timeout_min={minutes}, {60 * minutes} seconds."
    )
  return values


def connect(text: str | None, folder: pathlib.Path) -> Cluster:
  """Returns the cluster.

  Args:
    text: Its options (`options`).
    folder: Where submitit may write; seen by all nodes.

  Raises:
    UserError: The options can't be used, submitit isn't installed, or Slurm isn't here.
  """
  values = options(text)
  if importlib.util.find_spec("submitit") is None:
    raise errors.UserError("--executor=slurm needs submitit: python -m pip install submitit.")
  missing = [program for program in _PROGRAMS if shutil.which(program) is None]
  if missing:
    raise errors.UserError(
      f"--executor=slurm needs {missing[0]}, which isn't on this machine's PATH: run it where "
      f"Slurm is, such as on a login node of the cluster."
    )
  return Cluster(folder, values)


def require_no_jobs(folder: pathlib.Path) -> None:
  """Raises a `UserError` if a sweep has jobs in the queue, or that can't be known.

  Args:
    folder: Of submitit; where there is none, the sweep has submitted no job.
  """
  if not folder.is_dir() or shutil.which("squeue") is None:
    return
  if numbers := " ".join(Cluster(folder, {}).alive()):
    raise errors.UserError(
      f"Slurm's queue has jobs of this sweep: go on with --executor=slurm, or cancel them first: "
      f"scancel {numbers}"
    )


def _listed() -> dict[str, Listed]:
  """Returns {number: job} of all jobs of the user that squeue knows."""
  columns = _SEPARATOR.join(("%A", "%T", "%r", "%j", "%o"))
  command = ["squeue", "--noheader", "--states=all", f"--user={os.getuid()}"]
  found = {}
  for line in _answer([*command, f"--format={columns}"]).splitlines():
    number, state, reason, name, script = line.split(_SEPARATOR)
    found[number] = Listed(name, state, reason, os.path.basename(script))
  return found


def _answer(command: list[str]) -> str:
  """Returns what a program of Slurm prints.

  Raises:
    NoAnswer: It fails, or takes too long.
  """
  try:
    done = subprocess.run(
      command,
      capture_output=True,
      encoding="utf-8",
      errors="replace",
      check=True,
      timeout=_PATIENCE,
      start_new_session=True,  # Ctrl-C is not for it
    )
  except subprocess.TimeoutExpired as e:
    raise NoAnswer(f"no answer within {_PATIENCE:.0f} seconds") from e
  except subprocess.CalledProcessError as e:
    raise NoAnswer(" ".join(e.stderr.split())) from e
  return done.stdout
