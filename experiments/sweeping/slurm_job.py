"""What a Slurm job does: it makes one run.

Slurm asks a job to stop before its time is over (SIGUSR2, as submitit has it) and before it is
preempted or cancelled (SIGTERM). Both stop the run after the step it is at, its state saved.
"""

import pathlib
import signal
from types import FrameType

import submitit

from experiments import ledger
from experiments.sweeping import worker


def make(job: worker.Job) -> ledger.Outcome:
  """Makes a run; what it prints goes into its folder's log.

  Raises:
    interruption.Interrupted: It was asked to stop before it began.
  """
  before_the_end = signal.Signals["SIG" + submitit.JobEnvironment.USR_SIG]
  signal.signal(signal.SIGTERM, worker.stop_at_once)  # submitit's only tells of it
  signal.signal(before_the_end, _ask)
  try:
    with worker.output_into(pathlib.Path(job.folder)):
      worker.prepare()
      return worker.perform(job)
  finally:
    for number in (signal.SIGTERM, before_the_end):
      signal.signal(number, signal.SIG_IGN)  # there is nothing to be stopped any more


def _ask(number: int, frame: FrameType | None) -> None:
  """Asks the trainer to stop, if it listens."""
  signal.raise_signal(signal.SIGTERM)
