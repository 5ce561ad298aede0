"""Makes the runs of a sweep on a cluster, each as a Slurm job.

This process submits what can be made, and watches. What became of a run is told by its folder; a
job that has left Slurm's queue without a result was killed, unless it says that it was interrupted:
then it is submitted again, and goes on from its checkpoint. Whoever stops or kills this process
leaves the jobs at work; the next one finds them in the queue.
"""

import collections
import contextlib
import dataclasses
import pathlib
import time

from bit_jax.runtime import errors, exits
from experiments import ledger
from experiments.sweeping import jobs, progress, queueing, slurm_cluster

_LOOK = 5.0  # seconds between two looks at the queue
_GONE = 12  # looks in a row that must not find a job that has noted no end: a shared file system
# may show a result a minute late
_FRUITLESS = 3  # interruptions in a row before which no further step was taken

_NOT_ITS_FAULT = ("PREEMPTED", "TIMEOUT", "NODE_FAIL", "BOOT_FAIL")  # states
_WHY = {
  "CANCELLED": "was cancelled",
  "OUT_OF_MEMORY": "took more memory than it had asked for (--slurm=mem_gb=...)",
}
_OTHERWISE = "ended without a word: killed, most likely for want of memory, or its node failed"


@dataclasses.dataclass
class _Watched:
  """A job of which no end is known.

  Attributes:
    number: Slurm's.
    steps: That its run had taken when it was submitted.
    state: As squeue told last.
    reason: Why it waits, as squeue told.
    gone: Looks in a row that didn't find it.
  """

  number: str
  steps: int
  state: str = "PENDING"
  reason: str = "None"
  gone: int = 0


class Watch:
  """The jobs of a sweep."""

  def __init__(
    self,
    queue: queueing.Queue,
    out: pathlib.Path,
    sweep: str,
    cluster: slurm_cluster.Cluster,
    most: int | None,
  ):
    """Takes what is to be done, and where.

    Args:
      queue: The runs.
      out: The sweep's folder, which all nodes see.
      sweep: Its name.
      cluster: Where the jobs run.
      most: Jobs at once, running or waiting; None: as many as there are.
    """
    self._queue, self._out, self._sweep = queue, out, sweep
    self._cluster, self._most = cluster, most
    self._jobs: dict[str, _Watched] = {}  # by the run's name
    self._fruitless: collections.Counter[str] = collections.Counter()
    self._troubles: dict[str, str] = {}  # by program, what it said since it last did as asked

  def run(self, stop: exits.StopRequest) -> None:
    """Makes all runs.

    Raises:
      UserError: Slurm takes none.
      interruption.Interrupted: It was asked to stop; the jobs go on.
    """
    with contextlib.closing(progress.Progress(self._queue)) as shown:
      self._adopt(shown)
      while self._queue.left:
        if stop.requested:
          raise exits.Interrupted(self._farewell())
        self._look(shown)
        self._submit(stop, shown)
        if self._queue.left:
          shown.update(self._told())
          _wait(stop)

  def _adopt(self, shown: progress.Progress) -> None:
    """Takes over the jobs that an earlier process has submitted."""
    for number, listed in self._cluster.alive().items():
      name = listed.name
      if not listed.told:  # it does nothing, and its run is submitted anew
        self._cluster.cancel(number)
        shown.say(
          f"{name}: job {number} cancelled: whoever submitted it was killed before it was told "
          f"what to do"
        )
      elif self._queue.resume(name):
        self._jobs[name] = _Watched(number, ledger.last_step(self._out / name), listed.state)
    if self._jobs:
      shown.say(f"Slurm's queue has {len(self._jobs)} of them already: {self._numbers()}.")

  def _submit(self, stop: exits.StopRequest, shown: progress.Progress) -> None:
    """Submits the runs that can be made."""
    while not stop.requested and (self._most is None or len(self._jobs) < self._most):
      one = self._queue.take()
      if one is None:
        return
      job = jobs.job(one, self._out, self._sweep)
      try:
        number = self._cluster.submit(one.name, job, jobs.setup(one.config))
      except slurm_cluster.NoAnswer as e:
        self._queue.put_back(one.name)
        if not stop.requested:  # Ctrl-C ends sbatch as well
          self._refused(e, shown)
        return
      self._troubles.pop("sbatch", None)
      self._jobs[one.name] = _Watched(number, ledger.last_step(self._out / one.name))
      shown.say(f"{one.name}: job {number}")

  def _refused(self, error: slurm_cluster.NoAnswer, shown: progress.Progress) -> None:
    """Tells that a job wasn't taken, which may change as others end, if there are others."""
    if not self._jobs:
      raise errors.UserError(f"Slurm takes no job: sbatch says: {error}.") from error
    self._tell_trouble("sbatch", f"sbatch takes no further job for now: {error}.", shown)

  def _look(self, shown: progress.Progress) -> None:
    """Notes what became of the jobs."""
    try:
      known = self._cluster.jobs()
    except slurm_cluster.NoAnswer as e:
      self._tell_trouble("squeue", f"squeue doesn't answer: {e}.", shown)
      return
    self._troubles.pop("squeue", None)
    for name, watched in list(self._jobs.items()):
      listed = known.get(watched.number)
      if listed is not None:
        watched.state, watched.reason = listed.state, listed.reason
      watched.gone = watched.gone + 1 if listed is None or listed.over else 0
      noted = ledger.outcome(self._out / name, watched.number) in ("failed", "interrupted")
      if watched.gone >= (2 if noted else _GONE) or self._is_finished(name):
        self._settle(name, self._jobs.pop(name), shown)

  def _is_finished(self, name: str) -> bool:
    """Returns whether a run has its result, and its process is done with the folder."""
    folder = self._out / name
    return ledger.state(folder) == "finished" and not ledger.under_way(folder)

  def _settle(self, name: str, watched: _Watched, shown: progress.Progress) -> None:
    """Notes what became of a run whose job has ended."""
    folder, why = self._out / name, None
    outcome = ledger.outcome(folder, watched.number)
    if ledger.result(folder) is None and outcome != "failed":
      if self._interrupted(outcome, watched) and self._fruitful(name, watched):
        self._queue.put_back(name)
        shown.say(f"{name}: interrupted at step {ledger.last_step(folder)}")
        return
      why = self._why(name, watched)
    jobs.settle(self._queue, self._out, name, shown, why)

  def _interrupted(self, outcome: str | None, watched: _Watched) -> bool:
    """Returns whether Slurm stopped a job for reasons of its own."""
    if watched.state == "CANCELLED":
      return False
    return outcome == "interrupted" or watched.state in _NOT_ITS_FAULT

  def _fruitful(self, name: str, watched: _Watched) -> bool:
    """Returns whether it makes sense to go on with a run that was interrupted."""
    further = ledger.last_step(self._out / name) > watched.steps
    self._fruitless[name] = 0 if further else self._fruitless[name] + 1
    return self._fruitless[name] < _FRUITLESS

  def _why(self, name: str, watched: _Watched) -> str:
    """Returns a sentence on a job that ended without a result."""
    if self._fruitless[name] >= _FRUITLESS:
      what = (
        f"was the last of {_FRUITLESS} that were stopped before they took a further step: give "
        f"them more time (--slurm=timeout_min=..., signal_delay_s=...)"
      )
    else:
      what = _WHY.get(watched.state, _OTHERWISE)
    log = self._cluster.log(watched.number)
    where = f" What it said is in {log}." if log.exists() else ""
    return f"Its Slurm job {watched.number} {what}.{where}"

  def _told(self) -> str:
    """Returns how many jobs run, and how many wait and for what."""
    waiting = [watched for watched in self._jobs.values() if watched.state == "PENDING"]
    reasons = ", ".join(sorted({watched.reason for watched in waiting} - {"None"}))
    return (
      f"jobs: {len(self._jobs) - len(waiting)} running, {len(waiting)} waiting"
      f"{f' ({reasons})' if reasons else ''}"
    )

  def _tell_trouble(self, program: str, trouble: str, shown: progress.Progress) -> None:
    """Tells of it once, until the program does again as asked."""
    if trouble != self._troubles.get(program):
      shown.say(trouble)
    self._troubles[program] = trouble

  def _farewell(self) -> str:
    left = f"Stopped with {self._queue.left} of {len(self._queue)} runs to go"
    if not self._jobs:
      return f"{left}; the same command goes on."
    return (
      f"{left}, of which {len(self._jobs)} stay in Slurm's queue and are made. The same command "
      f"watches them again, and submits the others. To cancel them: scancel {self._numbers()}"
    )

  def _numbers(self) -> str:
    return " ".join(sorted((watched.number for watched in self._jobs.values()), key=int))


def _wait(stop: exits.StopRequest) -> None:
  """Waits until it is time to look again, or to stop."""
  end = time.monotonic() + _LOOK
  while not stop.requested and (rest := end - time.monotonic()) > 0:
    time.sleep(min(rest, 0.2))
