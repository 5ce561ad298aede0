"""Runs a sweep on a cluster, each run as a Slurm job.

This process submits the runs that can start, and watches. The run's folder says what became of a
run. A job that has left Slurm's queue without a result was killed, unless it recorded that it was
interrupted: then it is submitted again and resumes from its checkpoint. If this process is stopped
or killed, the jobs continue; the next one finds them in the queue.

submitit passes a script to sbatch, and then writes the job's task to `<number>_submitted.pkl`; a
job whose submission was interrupted before that fails after a minute. The output of a job outside
of its run goes to `<number>_0_log.err`. submitit knows the state of a job only from accounting,
which many clusters lack, so states come from squeue.
"""

import collections
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
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from bit_jax.runtime import arguments, errors, numerics, phrases, stopping
from experiments import ledger
from experiments.sweeping import executor, grid, queueing, worker

_ROOT = pathlib.Path(__file__).parents[2]  # of the checkout
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

_LOOK = 5.0  # seconds between two looks at the queue
# Looks in a row that must not find a job without a recorded end: a shared file system may show a
# result a minute late.
_GONE = 12
_FRUITLESS = 3  # interruptions in a row without a further step

_EXTERNAL = ("PREEMPTED", "TIMEOUT", "NODE_FAIL", "BOOT_FAIL")  # states that aren't the run's fault
_REASONS = {
  "CANCELLED": "was cancelled",
  "OUT_OF_MEMORY": "exceeded its memory; request more with --slurm=mem_gb=...",
}
_KILLED = "was killed, most likely because memory ran out, or its node failed"


class SlurmError(Exception):
  """A command of Slurm failed and may succeed the next time; the message is Slurm's own."""


class Listed(NamedTuple):
  """A job in squeue.

  Attributes:
    name: Name of the run.
    state: Such as 'PENDING'; ended jobs are listed for some minutes.
    reason: Why it waits, such as 'Resources'.
  """

  name: str
  state: str
  reason: str


class Cluster:
  """Takes the jobs of one sweep."""

  def __init__(self, folder: pathlib.Path, options: Mapping[str, Any]):
    """Takes the folder for submitit's files, and the values of the options (`options`)."""
    self.folder, self._options = folder, options

  def submit(self, name: str, job: worker.Job, setup: Sequence[str]) -> str:
    """Submits a run; returns the job's number.

    Args:
      name: Name of the run.
      job: Its task.
      setup: Shell commands before it, after the user's own.

    Raises:
      SlurmError: Slurm rejects it.
    """
    import submitit

    from experiments.sweeping import slurm_job

    submitter = submitit.AutoExecutor(self.folder, cluster="slurm")
    submitter.update_parameters(**self._parameters(name, setup))
    try:
      with contextlib.redirect_stderr(io.StringIO()):  # the error has the same message
        return submitter.submit(slurm_job.make, job).job_id
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
      if (self.folder / f"{number}_submitted.pkl").exists():
        found[number] = Listed(name, state, reason)
    return found

  def alive(self) -> dict[str, Listed]:
    """Returns those of `jobs` that haven't ended.

    Raises:
      UserError: squeue fails; then no run may start, as it may be in the queue already.
    """
    try:
      return {number: listed for number, listed in self.jobs().items() if listed.state not in _OVER}
    except SlurmError as e:
      raise errors.UserError(f"Slurm's queue can't be read: squeue says: {e}.") from e


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
  missing = [name for name in ("sbatch", "srun", "squeue") if shutil.which(name) is None]
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


@dataclasses.dataclass
class _Watched:
  """A job whose end is not known.

  Attributes:
    number: Slurm's.
    steps: Steps of its run when it was submitted.
    listed: As squeue last listed it.
    gone: Looks in a row that didn't find it.
  """

  number: str
  steps: int
  listed: Listed
  gone: int = 0


class Slurm(executor.Executor):
  """The jobs of a sweep."""

  def __init__(
    self,
    queue: queueing.Queue,
    stop: stopping.StopRequest,
    limit: int | None,
    cluster: Cluster,
  ):
    """Takes the runs and the cluster.

    Args:
      queue: The runs, whose folder all nodes see.
      stop: Whether to stop.
      limit: Most jobs at the same time, running or waiting; None: no limit.
      cluster: Where the jobs run.
    """
    super().__init__(queue, stop, limit)
    self._cluster = cluster
    self._jobs: dict[str, _Watched] = {}  # by the run's name
    self._fruitless: collections.Counter[str] = collections.Counter()
    self._refusals: dict[str, str] = {}  # {program: its last error message, if it failed}

  @contextlib.contextmanager
  def session(self) -> Iterator[None]:
    """Takes over the jobs that an earlier process has submitted."""
    for number, listed in self._cluster.alive().items():
      if self.queue.resume(listed.name):
        steps = ledger.last_step(self.out / listed.name)
        self._jobs[listed.name] = _Watched(number, steps, listed)
    if self._jobs:
      print(f"Jobs that are already in Slurm's queue: {self._numbers()}.", flush=True)
    yield

  def start(self, one: grid.Planned, job: worker.Job) -> bool:
    """Submits a run; returns False if Slurm rejects it for now, or after Ctrl-C.

    Raises:
      UserError: Slurm rejects it, and no other job is in the queue.
    """
    setup = [numerics.deterministic_command()] if one.config.deterministic else []
    try:
      number = self._cluster.submit(one.name, job, setup)
    except SlurmError as e:
      if not self.stop.requested:  # Ctrl-C ends sbatch as well
        if not self._jobs:
          raise errors.UserError(f"Slurm accepts no job: sbatch says: {e}.") from e
        self._report("sbatch", f"sbatch rejects further jobs for now: {e}.")
      return False
    self._refusals.pop("sbatch", None)
    new = Listed(one.name, "PENDING", "None")
    self._jobs[one.name] = _Watched(number, ledger.last_step(self.out / one.name), new)
    print(f"{one.name}: job {number}", flush=True)
    return True

  def poll(self) -> Iterator[executor.Ended]:
    """Yields the runs whose jobs have ended."""
    try:
      known = self._cluster.jobs()
    except SlurmError as e:
      self._report("squeue", f"squeue fails: {e}.")
      return
    self._refusals.pop("squeue", None)
    for name, watched in list(self._jobs.items()):
      listed = known.get(watched.number)
      if listed is not None:
        watched.listed = listed
      watched.gone = watched.gone + 1 if listed is None or listed.state in _OVER else 0
      outcome = ledger.outcome(self.out / name, watched.number)
      has_end = outcome in ("failed", "interrupted")
      # A finished process has a result, and has recorded its end.
      finished = ledger.result(self.out / name) and ledger.outcome(self.out / name) != "running"
      if finished or watched.gone >= (2 if has_end else _GONE):
        yield self._ended(name, self._jobs.pop(name), outcome)

  def wait(self) -> None:
    """Waits for some seconds, or until a stop is requested."""
    end = time.monotonic() + _LOOK
    while not self.stop.requested and (rest := end - time.monotonic()) > 0:
      time.sleep(min(rest, 0.2))

  def status(self) -> str:
    """Returns how many jobs run, and how many wait and why."""
    listed = [watched.listed for watched in self._jobs.values()]
    waiting = [job.reason for job in listed if job.state == "PENDING"]
    reasons = ", ".join(sorted({*waiting} - {"None"}))
    text = f"jobs: {len(listed) - len(waiting)} running, {len(waiting)} waiting"
    return f"{text} ({reasons})" if reasons else text

  def advice(self) -> str:
    """Returns how to watch the jobs again, and how to cancel them."""
    if not self._jobs:
      return super().advice()
    return (
      f"{phrases.counted(len(self._jobs), 'job')} in Slurm's queue will continue. The same command "
      f"watches them again and submits the other runs. To cancel them: scancel {self._numbers()}"
    )

  def _ended(self, name: str, watched: _Watched, outcome: str | None) -> executor.Ended:
    """Returns what is known of an ended job beside its run's folder."""
    folder = self.out / name
    if ledger.result(folder) is not None or outcome == "failed":
      return executor.Ended(name)
    state = watched.listed.state
    reason = _REASONS.get(state, _KILLED)
    if state != "CANCELLED" and (outcome == "interrupted" or state in _EXTERNAL):
      further = ledger.last_step(folder) > watched.steps
      self._fruitless[name] = 0 if further else self._fruitless[name] + 1
      if self._fruitless[name] < _FRUITLESS:
        return executor.Ended(name, interrupted=True)
      reason = (
        f"was the last of {_FRUITLESS} that were stopped before a further step: give them more "
        f"time (--slurm=timeout_min=..., signal_delay_s=...)"
      )
    log = self._cluster.folder / f"{watched.number}_0_log.err"
    where = f" Its output is in {log}." if log.exists() else ""
    return executor.Ended(name, error=f"Its Slurm job {watched.number} {reason}.{where}")

  def _report(self, program: str, message: str) -> None:
    """Prints an error of Slurm once, until the program succeeds again."""
    if message != self._refusals.get(program):
      print(message, flush=True)
    self._refusals[program] = message

  def _numbers(self) -> str:
    return " ".join(sorted((watched.number for watched in self._jobs.values()), key=int))
