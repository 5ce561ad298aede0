"""The task of a Slurm job: one run. submitit records it by the names of this module and function.

Slurm signals a job before its time is over (SIGUSR2, as submitit requests it) and before it is
preempted or cancelled (SIGTERM). Both stop the run after the current step, with its state saved.
"""

import pathlib
import signal
from types import FrameType

import submitit

from bit_jax.runtime import stopping
from experiments import ledger
from experiments.sweeping import worker


def make(job: worker.Job) -> ledger.Outcome:
  """Executes a run; its output goes into its folder's log.

  Raises:
    exits.Interrupted: A stop was requested before it began.
  """
  time_limit = signal.Signals["SIG" + submitit.JobEnvironment.USR_SIG]
  signal.signal(signal.SIGTERM, stopping.stop_at_once)  # submitit's handler only logs it
  signal.signal(time_limit, _forward)
  try:
    with worker.output_into(pathlib.Path(job.folder)):
      worker.prepare()
      return worker.perform(job)
  finally:
    for number in (signal.SIGTERM, time_limit):
      signal.signal(number, signal.SIG_IGN)  # the run is over


def _forward(number: int, frame: FrameType | None) -> None:
  """Asks the trainer to stop, if it listens."""
  signal.raise_signal(signal.SIGTERM)
