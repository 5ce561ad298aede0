"""Runs a sweep on a cluster, each run as a Slurm job.

This process submits the runs that can start, and watches. The run's folder says what became of a
run. A job that has left Slurm's queue without a result was killed, unless it recorded that it was
interrupted: then it is submitted again and resumes from its checkpoint. If this process is stopped
or killed, the jobs go on; the next one finds them in the queue.
"""

import collections
import contextlib
import dataclasses
import time
from collections.abc import Iterator

from bit_jax.runtime import errors, exits, numerics, phrases
from experiments import ledger
from experiments.sweeping import executor, grid, queueing, slurm_cluster, worker

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


@dataclasses.dataclass
class _Watched:
  """A job whose end is not known.

  Attributes:
    number: Slurm's.
    steps: Of its run when it was submitted.
    listed: As squeue last listed it.
    gone: Looks in a row that didn't find it.
  """

  number: str
  steps: int
  listed: slurm_cluster.Listed
  gone: int = 0


class Slurm(executor.Executor):
  """The jobs of a sweep."""

  def __init__(
    self,
    queue: queueing.Queue,
    stop: exits.StopRequest,
    limit: int | None,
    cluster: slurm_cluster.Cluster,
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
      self.progress.say(f"Jobs that are already in Slurm's queue: {self._numbers()}.")
    yield

  def start(self, one: grid.Planned, job: worker.Job) -> bool:
    """Submits a run; returns False if Slurm rejects it for now, or after Ctrl-C.

    Raises:
      UserError: Slurm rejects it, and no other job is in the queue.
    """
    setup = [numerics.deterministic_command()] if one.config.deterministic else []
    try:
      number = self._cluster.submit(one.name, job, setup)
    except slurm_cluster.SlurmError as e:
      if not self.stop.requested:  # Ctrl-C ends sbatch as well
        if not self._jobs:
          raise errors.UserError(f"Slurm accepts no job: sbatch says: {e}.") from e
        self._report("sbatch", f"sbatch rejects further jobs for now: {e}.")
      return False
    self._refusals.pop("sbatch", None)
    new = slurm_cluster.Listed(one.name, "PENDING", "None")
    self._jobs[one.name] = _Watched(number, ledger.last_step(self.out / one.name), new)
    self.progress.say(f"{one.name}: job {number}")
    return True

  def poll(self) -> Iterator[executor.Ended]:
    """Yields the runs whose jobs have ended."""
    try:
      known = self._cluster.jobs()
    except slurm_cluster.SlurmError as e:
      self._report("squeue", f"squeue fails: {e}.")
      return
    self._refusals.pop("squeue", None)
    for name, watched in list(self._jobs.items()):
      listed = known.get(watched.number)
      if listed is not None:
        watched.listed = listed
      watched.gone = watched.gone + 1 if listed is None or listed.over else 0
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
    log = self._cluster.log(watched.number)
    where = f" Its output is in {log}." if log.exists() else ""
    return executor.Ended(name, error=f"Its Slurm job {watched.number} {reason}.{where}")

  def _report(self, program: str, message: str) -> None:
    """Prints an error of Slurm once, until the program succeeds again."""
    if message != self._refusals.get(program):
      self.progress.say(message)
    self._refusals[program] = message

  def _numbers(self) -> str:
    return " ".join(sorted((watched.number for watched in self._jobs.values()), key=int))
