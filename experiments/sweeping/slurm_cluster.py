"""Slurm's commands as a sweep uses them: submits runs as jobs through submitit, and lists them.

submitit passes a script to sbatch, and then writes the job's task to `<number>_submitted.pkl`; a
job whose submission was interrupted before that fails after a minute. The output of a job outside
of its run goes to `<number>_0_log.err`. submitit knows the state of a job only from accounting,
which many clusters lack, so states come from squeue.
"""

import contextlib
import importlib.util
import io
import math
import os
import pathlib
import shlex
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from bit_jax.runtime import arguments, errors
from experiments.sweeping import worker

_ROOT = pathlib.Path(__file__).parents[2]  # of the checkout
_PROGRAMS = ("sbatch", "srun", "squeue")
_HOURS = 4  # of a job by default: many partitions allow that, and a longer run is resumed
_PATIENCE = 60.0  # seconds for Slurm to answer
_SEPARATOR = "\x1f"  # of squeue's columns: not in names and paths


def _gigabytes(text: str) -> float:
  number = float(text)
  if not (math.isfinite(number) and number >= 0):
    raise ValueError
  return number


_TEXT = arguments.Argument(None)
# submitit's options for one process on one node; its others don't apply to a run.
_OPTIONS = {
  "timeout_min": arguments.integer(_HOURS * 60, 1),
  "mem_gb": arguments.Argument(None, _gigabytes, "a number of gigabytes, 0 for all of a node"),
  "cpus_per_task": arguments.integer(None, 1),
  "gpus_per_node": arguments.integer(None, 0),
  **dict.fromkeys(("partition", "account", "qos", "gres", "constraint", "nodelist"), _TEXT),
  "exclude": _TEXT,
  "exclusive": arguments.boolean(),
  "mem_per_cpu": _TEXT,
  "mem_per_gpu": _TEXT,
  "signal_delay_s": arguments.integer(None, 1),
  **dict.fromkeys(("comment", "dependency", "mail_type", "mail_user", "wckey"), _TEXT),
  "setup": arguments.Argument(None, lambda text: [text], "a shell command", takes_rest=True),
}
# States of squeue in which a job has ended.
_OVER = (
  *("BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY"),
  *("PREEMPTED", "REVOKED", "TIMEOUT"),
)


class SlurmError(Exception):
  """A command of Slurm failed and may succeed the next time; the message is Slurm's own."""


class Listed(NamedTuple):
  """A job in squeue.

  Attributes:
    name: Of the run.
    state: Such as 'PENDING'; ended jobs are listed for some minutes.
    reason: Why it waits, such as 'Resources'.
  """

  name: str
  state: str
  reason: str

  @property
  def over(self) -> bool:
    """Whether it has ended."""
    return self.state in _OVER


class Cluster:
  """Takes the jobs of one sweep."""

  def __init__(self, folder: pathlib.Path, options: Mapping[str, Any]):
    """Takes the folder for submitit's files, and the values of the options (`options`)."""
    self._folder, self._options = folder, options

  def submit(self, name: str, job: worker.Job, setup: Sequence[str]) -> str:
    """Submits a run; returns the job's number.

    Args:
      name: Of the run.
      job: Its task.
      setup: Shell commands before it, after the user's own.

    Raises:
      SlurmError: Slurm rejects it.
    """
    import submitit

    from experiments.sweeping import slurm_job

    executor = submitit.AutoExecutor(self._folder, cluster="slurm")
    executor.update_parameters(**self._parameters(name, setup))
    try:
      with contextlib.redirect_stderr(io.StringIO()):  # the error has the same message
        return executor.submit(slurm_job.make, job).job_id
    except (submitit.core.utils.FailedJobError, submitit.core.utils.FailedSubmissionError) as e:
      raise SlurmError(" ".join(str(e).split()) or "no reason given") from e

  def _parameters(self, name: str, setup: Sequence[str]) -> dict[str, Any]:
    """Returns submitit's parameters of a job."""
    given = {k: v for k, v in self._options.items() if v is not None and v is not False}
    path = shlex.quote(str(_ROOT)) + "${PYTHONPATH:+:$PYTHONPATH}"
    parameters = {
      # A step, an evaluation and the save must fit between the signal and the end.
      "signal_delay_s": min(300, given["timeout_min"] * 60 // 5),
      **given,
      "job_name": name,
      "setup": [*given.get("setup", []), f"export PYTHONPATH={path}", *setup],
    }
    if "cpus_per_task" in given:  # since 22.05, srun doesn't take it from the job
      parameters["srun_args"] = [f"--cpus-per-task={given['cpus_per_task']}"]
    return {f"slurm_{k}": v for k, v in parameters.items()}

  def jobs(self) -> dict[str, Listed]:
    """Returns {number: job} of the jobs of this sweep in squeue.

    Raises:
      SlurmError: squeue fails.
    """
    columns = _SEPARATOR.join(("%A", "%T", "%r", "%j"))
    command = ("squeue", "--noheader", "--states=all", f"--user={os.getuid()}")
    try:
      done = subprocess.run(
        [*command, f"--format={columns}"],
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        check=True,
        timeout=_PATIENCE,
        start_new_session=True,  # Ctrl-C must not reach it
      )
    except subprocess.TimeoutExpired as e:
      raise SlurmError(f"no answer within {_PATIENCE:.0f} seconds") from e
    except subprocess.CalledProcessError as e:
      raise SlurmError(" ".join(e.stderr.split())) from e
    found = {}
    for line in done.stdout.splitlines():
      number, state, reason, name = line.split(_SEPARATOR)
      if (self._folder / f"{number}_submitted.pkl").exists():
        found[number] = Listed(name, state, reason)
    return found

  def alive(self) -> dict[str, Listed]:
    """Returns those of `jobs` that haven't ended.

    Raises:
      UserError: squeue fails; then no run may start, as it may be in the queue already.
    """
    try:
      return {number: listed for number, listed in self.jobs().items() if not listed.over}
    except SlurmError as e:
      raise errors.UserError(f"Slurm's queue can't be read: squeue says: {e}.") from e

  def log(self, number: str) -> pathlib.Path:
    """Returns the file with the output of a job outside of its run."""
    return self._folder / f"{number}_0_log.err"


def options(text: str | None) -> dict[str, Any]:
  """Returns the values of submitit's options.

  Args:
    text: Such as 'partition=gpu,gpus_per_node=1'.

  Raises:
    UserError: An unknown option, or a value that it can't have.
  """
  values = arguments.parse(text, _OPTIONS, "Slurm option")
  delay, seconds = values["signal_delay_s"], 60 * values["timeout_min"]
  if delay is not None and delay >= seconds:
    raise errors.UserError(
      f"The Slurm option signal_delay_s={delay} must be less than a job's time: "
      f"timeout_min={values['timeout_min']}, {seconds} seconds."
    )
  return values


def connect(values: Mapping[str, Any], folder: pathlib.Path) -> Cluster:
  """Returns the cluster.

  Args:
    values: From `options`.
    folder: For submitit's files; all nodes see it.

  Raises:
    UserError: submitit or Slurm is not installed.
  """
  if importlib.util.find_spec("submitit") is None:
    raise errors.UserError("--executor=slurm needs submitit: pip install 'bit_jax[slurm]'.")
  missing = [program for program in _PROGRAMS if shutil.which(program) is None]
  if missing:
    raise errors.UserError(
      f"--executor=slurm needs {missing[0]}, which is not on this machine's PATH: run the command "
      f"where Slurm is installed, such as on a login node."
    )
  return Cluster(folder, values)


def require_no_jobs(folder: pathlib.Path) -> None:
  """Raises a `UserError` if a sweep has jobs in the queue, or squeue fails.

  Args:
    folder: With submitit's files; without it the sweep has submitted no job.
  """
  if not folder.is_dir() or shutil.which("squeue") is None:
    return
  if numbers := " ".join(Cluster(folder, {}).alive()):
    raise errors.UserError(
      f"Slurm's queue has jobs of this sweep: resume it with --executor=slurm, or cancel them "
      f"first: scancel {numbers}"
    )
