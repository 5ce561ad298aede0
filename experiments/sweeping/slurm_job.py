"""What a Slurm job does: it makes one run.

Slurm asks a job to stop before its time is over (SIGUSR2, as submitit has it) and before it is
preempted or cancelled (SIGTERM). Both stop the run after the step it is at, its state saved.
"""

import pathlib
import signal
from types import FrameType

import submitit

from bit_jax import interruption
from experiments.sweeping import ledger, worker


def make(job: worker.Job) -> ledger.Outcome:
  """Makes a run; what it prints goes into its folder's log.

  Raises:
    interruption.Interrupted: It was asked to stop before it began.
  """
  before_the_end = signal.Signals["SIG" + submitit.JobEnvironment.USR_SIG]
  signal.signal(signal.SIGTERM, _stop)  # in place of submitit's, which only tells of it
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


def _stop(number: int, frame: FrameType | None) -> None:
  """Ends the run where the trainer doesn't listen yet: there is nothing to be saved."""
  raise interruption.Interrupted("Stopped before the first step.")
