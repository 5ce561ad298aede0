"""Kills runs, and asks them to stop, at every phase; then checks that they end as if undisturbed.

    python -m experiments.reliability.kills --kills=50 --seed=0
    python -m experiments.reliability.kills --part=signals

A run of the smallest network on arrays marks what it is doing (`child.py`). It is killed in the
middle of a phase, or at a random moment; the same command runs again, and may be killed again,
until it finishes. Then its weights, metrics, result and tables must be those of a run that nobody
disturbed, byte for byte; only times differ. Counts go to `kills.jsonl`.
"""

import argparse
import collections
import contextlib
import dataclasses
import itertools
import json
import os
import pathlib
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from bit_jax.runs import run_folder
from bit_jax.runtime import errors, exits, signals
from experiments.reliability import child, records, small_runs

RECORDS = pathlib.Path(__file__).with_name("kills.jsonl")
_ROOT = pathlib.Path(__file__).parents[2]
_CLASSES, _SIDE = 4, 40
_TABLES = ("per_class.csv", "confusion.csv", "mistakes.csv", "classes.txt", "parameters.txt")
_OTHERS = ("curves.png", "augmented.png", "predictions.png", "confusion.png", "mistakes.png")
_POLL, _PATIENCE = 0.002, 1800.0  # seconds
_ATTEMPTS = 10  # to send a signal in a phase of milliseconds
_COLD = 8  # of so many runs, one begins without compiled programs
# Entered several times, or shorter once programs are compiled.
_REPEATED = (child.FIRST_STEP, child.STEPS, child.MICRO_BATCHES, child.SAVING, child.EVALUATION)
_FIELDS: dict[str, Any] = {
  "batch_size": 8,
  "resize": 40,
  "crop": 32,
  "log_every": 3,  # neither divides the other: metrics of steps are saved before they are logged
  "eval_every": 5,
  "checkpoint_every": 4,
  "eval_batch_size": 10,
  "total_steps": 14,
  "mixup_alpha": 0.2,
}


@dataclasses.dataclass(frozen=True)
class Case:
  """A run.

  Attributes:
    name: Its name.
    fields: What it changes in the common config.
  """

  name: str
  fields: Mapping[str, Any] = dataclasses.field(default_factory=dict)


CASES = (
  Case("resident"),
  Case("micro-batches", {"microbatch": 2, "keep_best": True, "patience": 9}),
  Case("streamed", {"resident_share": 0.0, "keep_best": True}),
)


@dataclasses.dataclass(frozen=True)
class Ended:
  """A process that has ended.

  Attributes:
    status: Its exit status, as `subprocess` has it.
    phase: In which it was disturbed; 'end' if it ended before.
    saves: Whether a checkpoint was being written then, in the background or not.
    seconds: From the signal to its end.
    out: Standard output.
    err: Standard error.
  """

  status: int
  phase: str
  saves: bool
  seconds: float
  out: str
  err: str


class Bench:
  """The folder of all runs: their data, compiled programs, and the undisturbed runs."""

  def __init__(self, folder: pathlib.Path):
    """Writes the data."""
    self.folder, self.marks = folder, folder / "marks"
    self.durations: dict[str, dict[str, float]] = {}  # {case: {phase: seconds}}
    self._whole: dict[str, pathlib.Path] = {}
    small_runs.write_noise(folder / "images.npz", {"train": 32, "test": 41}, _SIDE, _CLASSES)

  def command(self, case: Case, workdir: pathlib.Path) -> list[str]:
    """Returns the command line of a run."""
    data = f"model=R14x0.5,weights=none,path={self.folder / 'images.npz'}"
    fields = [f"--config.{k}={v}" for k, v in {**_FIELDS, **case.fields}.items()]
    line = [
      sys.executable,
      "-m",
      "experiments.reliability.child",
      f"--config=configs/npz.py:{data}",
    ]
    return [*line, *fields, f"--workdir={workdir}"]

  def start(
    self, case: Case, workdir: pathlib.Path, cold: pathlib.Path | None = None
  ) -> subprocess.Popen[str]:
    """Starts a run, with new marks.

    Args:
      case: The run.
      workdir: Its folder.
      cold: A folder for compiled programs that only this run uses.
    """
    self.marks.unlink(missing_ok=True)
    variables = {
      child.VARIABLE: str(self.marks),
      "BIT_JAX_CACHE": str(self.folder / "cache"),
      "JAX_PLATFORMS": "cpu",
      "PYTHONUNBUFFERED": "1",
      **({"JAX_COMPILATION_CACHE_DIR": str(cold)} if cold else {}),
    }
    with (self.folder / "out").open("w") as out, (self.folder / "err").open("w") as err:
      return subprocess.Popen(
        self.command(case, workdir),
        cwd=_ROOT,
        env={**os.environ, **variables},
        stdin=subprocess.DEVNULL,
        stdout=out,
        stderr=err,
        text=True,
      )

  def phase(self) -> str:
    """Returns the phase that the run is in."""
    try:
      lines = self.marks.read_text().splitlines()
    except FileNotFoundError:
      return child.START
    return lines[-1].partition(" ")[2] if lines else child.START

  def disturb(
    self,
    process: subprocess.Popen[str],
    workdir: pathlib.Path,
    number: signal.Signals,
    phase: str | None,
    after: float,
  ) -> Ended:
    """Sends a signal to a run, and waits for its end.

    Args:
      process: The run.
      workdir: Its folder.
      number: The signal.
      phase: Wait until the run is in this phase; None: don't wait.
      after: Seconds to wait then.
    """
    with _ending(process):
      began = time.monotonic()
      while phase is not None and process.poll() is None and self.phase() != phase:
        _require(time.monotonic() - began < _PATIENCE, f"The run never came to {phase}.")
        time.sleep(_POLL)
      time.sleep(after)
      alive = process.poll() is None
      found = self.phase() if alive else child.END
      saves = alive and any((workdir / "checkpoints").glob("*tmp*"))
      began = time.monotonic()
      if alive:
        process.send_signal(number)
      status = process.wait(_PATIENCE)
      seconds = time.monotonic() - began
    return Ended(status, found, saves, seconds, self._text("out"), self._text("err"))

  def finish(self, case: Case, workdir: pathlib.Path, cold: pathlib.Path | None = None) -> None:
    """Runs to the end; takes what `start` takes."""
    with _ending(self.start(case, workdir, cold)) as process:
      status = process.wait(_PATIENCE)
    _require(status == 0, f"{workdir}: exit status {status}: {self._text('err')}")

  def undisturbed(self, case: Case) -> pathlib.Path:
    """Returns the folder of a case's run without a disturbance, which is timed."""
    if case.name in self._whole:
      return self._whole[case.name]
    folder = self._whole[case.name] = self.folder / f"{case.name}-whole"
    self.finish(case, folder)
    marks = [line.partition(" ") for line in self.marks.read_text().splitlines()]
    seconds: dict[str, float] = collections.defaultdict(float)
    for (at, _, phase), (until, _, _) in itertools.pairwise(marks):
      seconds[phase] += float(until) - float(at)
    self.durations[case.name] = dict(seconds)
    return folder

  def _text(self, name: str) -> str:
    return (self.folder / name).read_text(errors="replace")


@contextlib.contextmanager
def _ending(process: subprocess.Popen[str]) -> Iterator[subprocess.Popen[str]]:
  """Ends a process, also after an error."""
  with process:
    try:
      yield process
    finally:
      process.kill()


def differences(whole: pathlib.Path, other: pathlib.Path) -> list[str]:
  """Returns in what a run's folder differs from that of the undisturbed run."""
  found = []
  for name in ("model.npz", *_TABLES):
    if (whole / name).read_bytes() != (other / name).read_bytes():
      found.append(name)
  if small_runs.rows(whole) != small_runs.rows(other):
    found.append("metrics.jsonl")
  expected, result = (
    small_runs.without_times(json.loads((f / "result.json").read_text())) for f in (whole, other)
  )
  if expected != result:
    found.append("result.json")
  found += [f"no {name}" for name in (*_OTHERS, "report.html") if not (other / name).exists()]
  found += [f"left {path.name}" for path in other.iterdir() if _is_left(path)]
  return found


def _is_left(path: pathlib.Path) -> bool:
  name = path.name
  return name.startswith("best-") or (name.startswith(".") and name != ".lock")


class Schedule:
  """When runs are killed: in the phase that was hit least often, or at a random moment."""

  def __init__(self, seed: int):
    """Starts the counts at zero."""
    self.random = random.Random(seed)
    self.counts: collections.Counter[str] = collections.Counter()

  def next(self, durations: Mapping[str, float], saved: int) -> tuple[str | None, float]:
    """Returns a phase of a run, or None for its start, and the seconds to wait then.

    Args:
      durations: {phase: seconds} of the undisturbed run.
      saved: Steps in the newest checkpoint.
    """
    if self.random.random() < 0.25:
      return None, self.random.uniform(0, sum(durations.values()))
    left_out = set() if saved else {child.RESTORING}
    if saved == _FIELDS["total_steps"]:
      left_out = {child.FIRST_STEP, child.STEPS, child.MICRO_BATCHES, child.SAVING}
    phases = [p for p in child.PHASES if p in {*durations, child.RESTORING} - left_out]
    least = min(self.counts[p] for p in phases)
    phase = self.random.choice([p for p in phases if self.counts[p] == least])
    visits = 4 if phase in _REPEATED else 1
    return phase, self.random.uniform(0, durations.get(phase, 0.1) / visits)


def kill(bench: Bench, wanted: int, seed: int, cases: Sequence[Case] = CASES) -> dict[str, Any]:
  """Kills runs, and returns the counts."""
  schedule = Schedule(seed)
  saves, runs, cold, again = 0, 0, 0, 0
  unlike: list[str] = []
  while (done := schedule.counts.total()) < wanted:
    case = cases[runs % len(cases)]
    whole = bench.undisturbed(case)
    workdir, is_cold = bench.folder / f"run-{runs}", runs % _COLD == 1
    cold_cache = bench.folder / f"cache-{runs}" if is_cold else None
    times = schedule.random.randint(2, 6)
    hits: list[str] = []
    for _ in range(min(times, wanted - done)):
      process = bench.start(case, workdir, cold_cache)
      phase, after = schedule.next(bench.durations[case.name], run_folder.saved_step(workdir))
      if is_cold and not hits:
        phase, after = child.FIRST_STEP, schedule.random.uniform(0, 5)
      ended = bench.disturb(process, workdir, signal.SIGKILL, phase, after)
      if ended.phase == child.END or ended.status == 0:
        break
      _require(ended.status == -signal.SIGKILL, f"{workdir}: {ended.status}: {ended.err}")
      hits.append(ended.phase)
      schedule.counts[ended.phase] += 1
      saves += ended.saves
    bench.finish(case, workdir, cold_cache)
    wrong = differences(whole, workdir)
    print(
      f"{case.name}{' (cold)' * is_cold}: killed in {', '.join(hits)}: {wrong or 'equal'}",
      flush=True,
    )
    unlike += [f"{case.name} after {', '.join(hits)}: {', '.join(wrong)}"] * bool(wrong)
    runs, cold, again = runs + 1, cold + is_cold, again + (len(hits) > 1)
    shutil.rmtree(workdir)
    if cold_cache is not None:
      shutil.rmtree(cold_cache, ignore_errors=True)
  return {
    "kills": schedule.counts.total(),
    "phases": {p: schedule.counts[p] for p in (child.START, *child.PHASES)},
    "while_a_checkpoint_was_written": saves,
    "runs": runs,
    "runs_killed_more_than_once": again,
    "runs_with_a_cold_cache": cold,
    "unlike": unlike,
  }


def ask(
  bench: Bench,
  numbers: Sequence[signal.Signals],
  phases: Sequence[str] = child.PHASES,
  case: Case = CASES[1],
) -> dict[str, Any]:
  """Sends each signal in each phase, and returns the counts, seconds and what went wrong."""
  whole = bench.undisturbed(case)
  seconds: dict[str, float] = {}
  sent: collections.Counter[str] = collections.Counter()
  wrong: list[str] = []
  for number in numbers:
    workdir = bench.folder / f"run-{number.name}"
    for phase in phases:
      ended = _asked(bench, case, workdir, number, phase)
      found = faults(ended, number, workdir)
      wrong += [f"{number.name} in {phase} ({ended.phase}): {fault}" for fault in found]
      sent[ended.phase] += 1
      seconds[ended.phase] = max(seconds.get(ended.phase, 0.0), round(ended.seconds, 2))
      print(
        f"{number.name} in {ended.phase}: {ended.seconds:.2f} s. {ended.err.strip()}", flush=True
      )
    bench.finish(case, workdir)
    if unlike := differences(whole, workdir):
      wrong.append(f"{number.name}: {', '.join(unlike)} differ")
    shutil.rmtree(workdir)
  return {
    "signals": [number.name for number in numbers],
    "sent": sent.total(),
    "phases": {p: sent[p] for p in child.PHASES if p in sent},
    "most_seconds_to_the_end": seconds,
    "wrong": wrong,
  }


def _asked(
  bench: Bench, case: Case, workdir: pathlib.Path, number: signal.Signals, phase: str
) -> Ended:
  """Sends a signal to a run in a phase, again where the run was over before it could be sent."""
  before = workdir.with_name(f"{workdir.name}-before")
  for _ in range(_ATTEMPTS):
    if workdir.exists():
      shutil.copytree(workdir, before)
    ended = bench.disturb(bench.start(case, workdir), workdir, number, phase, 0.0)
    if ended.phase != child.END or ended.status:  # an error is one, at whatever moment
      break
    shutil.rmtree(workdir)
    if before.exists():
      before.rename(workdir)
  shutil.rmtree(before, ignore_errors=True)
  return ended


def faults(ended: Ended, number: signal.Signals, workdir: pathlib.Path) -> Iterator[str]:
  """Yields what is wrong with the end of a run that was asked to stop."""
  if ended.status != 128 + number:
    yield f"exit status {ended.status}"
  lines = ended.err.strip().splitlines()
  if len(lines) != 1 or not lines[0].startswith("Stopped"):
    yield f"standard error: {ended.err!r}"
    return
  if "Run the same command again" not in lines[0]:
    yield f"it doesn't say how to resume: {lines[0]}"
  kept, said = run_folder.saved_step(workdir), re.search(r"saved up to step (\d+) of", lines[0])
  if (int(said[1]) if said else 0) != kept and ended.phase != child.IMPORTS:
    yield f"step {kept} is saved: {lines[0]}"


def _require(holds: bool, message: str) -> None:
  if not holds:
    raise errors.UserError(message)


def main(argv: Sequence[str]) -> int:
  """Kills runs, asks runs to stop, and records what came of it; returns 1 if a run differed."""
  parser = argparse.ArgumentParser(description="Kills runs at every phase.")
  parser.add_argument("--kills", type=int, default=50, metavar="N", help="default: 50")
  parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the moments")
  parser.add_argument("--part", choices=("kills", "signals", "all"), default="all")
  names = [number.name for number in signals.ENDING]
  about = "those to send; under nohup runs ignore SIGHUP, and it is left out"
  parser.add_argument(
    "--signals", nargs="+", choices=names, default=names, metavar="NAME", help=about
  )
  parser.add_argument("--out", type=pathlib.Path, default=RECORDS, metavar="FILE")
  args = parser.parse_args(argv[1:])
  status = 0
  with tempfile.TemporaryDirectory() as folder:
    bench = Bench(pathlib.Path(folder))
    if args.part != "signals":
      counts = kill(bench, args.kills, args.seed)
      records.append(args.out, {"part": "kills", "seed": args.seed, **counts})
      status |= bool(counts["unlike"])
    if args.part != "kills":
      numbers = [signal.Signals[name] for name in args.signals]
      counts = ask(bench, [n for n in numbers if signal.getsignal(n) != signal.SIG_IGN])
      records.append(args.out, {"part": "signals", "seed": args.seed, **counts})
      status |= bool(counts["wrong"])
  return int(status)


if __name__ == "__main__":
  sys.exit(exits.run(main, sys.argv))
