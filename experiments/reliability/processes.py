"""Runs of two processes on this machine, one of which differs, is killed, freezes, or shall stop.

    python -m experiments.reliability.processes

Both must end soon, with the statuses and the sentence that docs/several_processes.md promises. Runs
that were killed or stopped are resumed, and must end as one that nobody disturbed, up to rounding.
Counts go to `processes.jsonl`.
"""

import argparse
import contextlib
import dataclasses
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import psutil

from bit_jax.runtime import errors, exits
from experiments.reliability import records

RECORDS = pathlib.Path(__file__).with_name("processes.jsonl")
_CONFIG = "--config=configs/quickstart.py:shots=3,protocol=select"
_FIELDS = {
  "batch_size": 16,
  "resize": 40,
  "crop": 32,
  "log_every": 2,
  "eval_every": 12,
  "checkpoint_every": 5,
  "eval_batch_size": 50,
  "mixup_alpha": 0.5,
  "total_steps": 24,
}
_LIMIT = 45.0  # seconds in which all must have ended after one has
_PATIENCE = 900.0  # seconds for a whole run on a busy machine
_TOLERANCE = 1e-5


@dataclasses.dataclass(frozen=True)
class Differs:
  """What the second process has that the first one hasn't.

  Attributes:
    name: What it is.
    said: A part of the sentence.
    flags: Flags of the second process.
    variables: Its variables.
    start: The folder that it is started in, whose code it runs.
  """

  name: str
  said: str
  flags: tuple[str, ...] = ()
  variables: Mapping[str, str] = dataclasses.field(default_factory=dict)
  start: str = "."


DIFFERENCES = (
  Differs("seed", "seed is 0 in process 0 and 1 in process 1", ("--config.seed=1",)),
  Differs("base_lr", "base_lr is 0.003 in process 0 and 0.1", ("--config.base_lr=0.1",)),
  Differs("weights", "and none in process 1", ("--config.weights=none",)),
  Differs("batch_size", "batch_size is 16 in process 0 and 32", ("--config.batch_size=32",)),
  Differs("total_steps", "total_steps is 24 in process 0 and 30", ("--config.total_steps=30",)),
  Differs("eval_every", "eval_every is 12 in process 0 and 6", ("--config.eval_every=6",)),
  Differs("dtype", "dtype is auto in process 0 and bfloat16", ("--config.dtype=bfloat16",)),
  Differs("an unknown field", "no field 'sede'", ("--config.sede=1",)),
  Differs("no data", "not found", ("--config=configs/npz.py:path={folder}/no.npz",)),
  Differs("code", "the code of bit_jax is sha256 ", start="{folder}/code"),
  Differs("folder", "The run folder is not shared", ("--workdir={folder}/own",)),
  Differs("number", "JAX_NUM_PROCESSES is 2 in", variables={"JAX_NUM_PROCESSES": "3"}),
  Differs("the same id", "have JAX_PROCESS_ID=0", variables={"JAX_PROCESS_ID": "0"}),
  Differs("an id too high", "JAX_PROCESS_ID=2 is not one", variables={"JAX_PROCESS_ID": "2"}),
)


@dataclasses.dataclass(frozen=True)
class Ended:
  """The end of a process.

  Attributes:
    status: Its exit status.
    err: What it wrote on standard error.
    at: Seconds of the monotonic clock.
  """

  status: int
  err: str
  at: float

  @property
  def last(self) -> str:
    """The last line on standard error."""
    return (self.err.strip().splitlines() or [""])[-1]


def run(
  folder: pathlib.Path, workdir: str, second: Differs, signals: Mapping[int, tuple[int, int]]
) -> list[Ended]:
  """Runs two processes to their ends.

  Args:
    folder: For their output.
    workdir: The run folder, within it.
    second: What the second process has.
    signals: {process: (the step in which it gets a signal, the signal)}.
  """
  with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    port = free.getsockname()[1]
  texts, started = [], []
  with contextlib.ExitStack() as stack:
    for index in range(2):
      own = second if index else Differs("", "")
      variables = {name: text.format(folder=folder) for name, text in own.variables.items()}
      flags = [flag.format(folder=folder) for flag in own.flags]
      fields = [f"--config.{name}={value}" for name, value in _FIELDS.items()]
      line = [sys.executable, "-m", "experiments.reliability.signalled"]
      line += map(str, signals.get(index, (0, 0)))
      config = [flag for flag in flags if flag.startswith("--config=")] or [_CONFIG]
      flags = [flag for flag in flags if flag not in config]
      line += [*config, *fields, f"--workdir={folder / workdir}", "--distributed", *flags]
      environment = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "JAX_COMPILATION_CACHE_DIR": str(folder / "compiled"),
        "JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}",
        "JAX_NUM_PROCESSES": "2",
        "JAX_PROCESS_ID": str(index),
        "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=2",
        **variables,
      }
      start = own.start.format(folder=folder)
      texts.append(folder / f"err{index}")
      err = stack.enter_context(texts[-1].open("w"))
      started.append(
        subprocess.Popen(line, cwd=start, env=environment, stdout=subprocess.DEVNULL, stderr=err)
      )
      stack.callback(started[-1].kill)
    times = _ends(started)
  return [
    Ended(process.returncode, text.read_text(errors="replace"), at)
    for process, text, at in zip(started, texts, times, strict=True)
  ]


def _ends(started: Sequence[subprocess.Popen[bytes]]) -> list[float]:
  """Waits for processes; returns when each ended, or froze before."""
  found: dict[int, float] = {}
  until = time.monotonic() + _PATIENCE
  while time.monotonic() < until:
    running = [process for process in started if process.poll() is None]
    for index, process in enumerate(started):
      if index not in found and (process not in running or _is_frozen(process)):
        found[index] = time.monotonic()
    if not running:
      break
    if len(found) == len(started):
      for process in running:
        process.send_signal(signal.SIGCONT)  # it ends, as the others have
    time.sleep(0.05)
  return [found.get(index, float("inf")) for index in range(len(started))]


def _is_frozen(process: subprocess.Popen[bytes]) -> bool:
  try:
    return psutil.Process(process.pid).status() == psutil.STATUS_STOPPED
  except psutil.NoSuchProcess:
    return False


class Counts:
  """The outcomes of one kind of attempt."""

  def __init__(self) -> None:
    self.tried, self.right, self.seconds = 0, 0, 0.0
    self.wrong: list[str] = []

  def add(self, name: str, ended: Sequence[Ended], fault: str | None) -> None:
    """Takes the end of two processes, and what was wrong with it."""
    seconds = abs(ended[0].at - ended[1].at)
    if fault is None and seconds > _LIMIT:
      fault = f"{seconds:.0f} s until the other ended"
    self.tried, self.right = self.tried + 1, self.right + (fault is None)
    self.seconds = max(self.seconds, seconds)
    if fault is not None:
      self.wrong.append(f"{name}: {fault}")
    print(f"{name}: {seconds:.1f} s. {ended[1].last:.160} {fault or ''}", flush=True)

  def record(self) -> dict[str, Any]:
    """Returns the counts, for a line of the records."""
    return {
      "tried": self.tried,
      "right_statuses_and_sentences": self.right,
      "longest_seconds_between_the_ends": round(self.seconds, 1),
      "wrong": self.wrong,
    }


def differ(folder: pathlib.Path) -> Counts:
  """Starts processes that don't belong together."""
  counts = Counts()
  code = folder / "code"
  shutil.copytree("bit_jax", code / "bit_jax", ignore=shutil.ignore_patterns("__pycache__"))
  for name in ("experiments", "configs"):
    (code / name).symlink_to(pathlib.Path(name).resolve())
  with (code / "bit_jax" / "hyperrule.py").open("a") as file:
    file.write("# another version\n")
  for one in DIFFERENCES:
    ended = run(folder, f"run-{one.name}".replace(" ", "-"), one, {})
    wrong = [e for e in ended if e.status != exits.USER_ERROR or one.said not in e.last]
    fault = "; ".join(f"status {e.status}, {e.last!r}" for e in wrong) or None
    counts.add(one.name, ended, fault)
  return counts


def kill(folder: pathlib.Path) -> Counts:
  """Kills each process in the first, an early and a late step, then resumes the run."""
  counts, whole = Counts(), _undisturbed(folder)
  for index, step in ((0, 1), (1, 1), (0, 7), (1, 13), (0, 20), (1, 22)):
    ended = run(folder, "killed", Differs("", ""), {index: (step, signal.SIGKILL)})
    other = ended[1 - index]
    right = other.status == exits.LOST and f"Process {index} on " in other.last
    fault = None if right else f"status {other.status}, {other.err!r}"
    counts.add(f"SIGKILL of process {index} in step {step}", ended, fault)
  counts.wrong += _resumed(folder, "killed", whole)
  return counts


def freeze(folder: pathlib.Path) -> Counts:
  """Freezes each process in a step, which cuts no connection; the other must end all the same."""
  counts = Counts()
  for index in range(2):
    ended = run(folder, f"frozen-{index}", Differs("", ""), {index: (7, signal.SIGSTOP)})
    other = ended[1 - index]
    right = other.status == exits.LOST and "has had no sign of another one for" in other.last
    fault = None if right else f"status {other.status}, {other.err!r}"
    counts.add(f"SIGSTOP of process {index}", ended, fault)
  return counts


def ask(folder: pathlib.Path) -> Counts:
  """Sends each signal to each process, then resumes the run."""
  counts, whole = Counts(), _undisturbed(folder)
  numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
  steps = iter((2, 4, 6, 8, 10, 12, 14, 16, 18, 20))
  done = 0
  for number in numbers:
    for index in range(2):
      step = max(next(steps), done + 1)
      ended = run(folder, "stopped", Differs("", ""), {index: (step, number)})
      saved = [_saved(e.last) for e in ended]
      done = max(saved)
      right = {e.status for e in ended} == {128 + number} and len(set(saved)) == 1
      right = right and step <= done <= step + 2
      fault = None if right else "; ".join(f"status {e.status}, {e.last!r}" for e in ended)
      counts.add(f"{number.name} to process {index} in step {step}", ended, fault)
  counts.wrong += _resumed(folder, "stopped", whole)
  return counts


PARTS: Mapping[str, Callable[[pathlib.Path], Counts]] = {
  "differences": differ,
  "kills": kill,
  "freezes": freeze,
  "stops": ask,
}


def _undisturbed(folder: pathlib.Path) -> pathlib.Path:
  """Returns the folder of a run that nobody disturbs."""
  if not (folder / "whole").exists():
    ended = run(folder, "whole", Differs("", ""), {})
    if any(e.status for e in ended):
      raise errors.UserError(f"The undisturbed run failed: {ended}")
  return folder / "whole"


def _saved(sentence: str) -> int:
  """Returns the step up to which a run says that it is saved; 0 if it doesn't."""
  found = re.search(r"saved up to step (\d+) of", sentence)
  return int(found[1]) if found else 0


def _resumed(folder: pathlib.Path, workdir: str, whole: pathlib.Path) -> list[str]:
  """Runs to the end; returns in what it differs from the undisturbed run."""
  wrong = [f"status {e.status}, {e.last!r}" for e in run(folder, workdir, Differs("", ""), {})]
  wrong = [text for text in wrong if not text.startswith("status 0,")]
  if wrong:
    return wrong
  with np.load(whole / "model.npz") as one, np.load(folder / workdir / "model.npz") as two:
    wrong = [k for k in one.files if not np.allclose(one[k], two[k], atol=_TOLERANCE)]
  results = [json.loads((f / "result.json").read_text()) for f in (whole, folder / workdir)]
  wrong += [k for k in ("top1", "steps", "num_test") if results[0][k] != results[1][k]]
  return [f"{workdir} and resumed: {name} differs" for name in wrong]


def main(argv: Sequence[str]) -> int:
  """Tries all of it, and records the counts; returns 1 if something was wrong."""
  parser = argparse.ArgumentParser(description="Differing, killed and stopped processes.")
  parser.add_argument("--part", choices=(*PARTS, "all"), default="all")
  parser.add_argument("--out", type=pathlib.Path, default=RECORDS, metavar="FILE")
  args = parser.parse_args(argv[1:])
  parts = PARTS if args.part == "all" else {args.part: PARTS[args.part]}
  status = 0
  with tempfile.TemporaryDirectory() as name:
    folder = pathlib.Path(name)
    for part, attempt in parts.items():
      counts = attempt(folder)
      records.append(args.out, {"part": part, "seed": 0, **counts.record()})
      status |= bool(counts.wrong)
  return int(status)


if __name__ == "__main__":
  sys.exit(exits.run(main, sys.argv))
