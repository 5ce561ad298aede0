"""Long runs of a small network, observed from outside: what they take, and how fast they stay.

    python -m experiments.reliability.soak [--steps=5000] [--devices=2] [--record]

`python -m bit_jax.train` is run twice in processes of their own: with a resident set, and with a
streamed one (`observed`). Each run evaluates and saves a hundred times. While it runs, its memory,
open files, threads and compilations are sampled. The command fails if one of them grows. With
--record the figures go to experiments/reliability/soak.jsonl, and the page that shows them is
written again.
"""

import argparse
import dataclasses
import datetime
import json
import os
import pathlib
import re
import statistics
import subprocess
import sys
import tempfile
import time
import tracemalloc
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
import psutil
import tensorstore
from scipy import stats

from bit_jax.runs import metrics_log, reporting, run_folder
from bit_jax.runtime import exits
from bit_jax.training import orbax_handlers
from experiments.reliability import page, small_runs

Record = dict[str, Any]
_ROOT = pathlib.Path(__file__).parents[2]
_EVENTS = 100  # evaluations, and as many checkpoints
_BATCH, _SIZE, _CLASSES = 16, 16, 4
_IMAGES = {"train": 200, "test": 50}
_WINDOW = 5  # steps of a row of metrics
_BLOCKS = 50  # of steps, in each of which memory is the least of its samples
_GROWTH = 1.0  # MB per 1,000 steps that count as a leak
# XLA ends a process whose devices don't meet within 40 seconds, which happens where others have the
# cores.
_PATIENT = "--xla_cpu_collective_call_terminate_timeout_seconds=600"
_COMPILING = re.compile(
  r"Compiling (?:jit\()?(\w+)\)? with global shapes and types (.*)\. Argument"
)
_USED = "used"  # the file with the bytes in use
_COMPILED = b"Finished XLA compilation"


@dataclasses.dataclass(frozen=True)
class Plan:
  """What is run.

  Attributes:
    streamed: Whether images are streamed; else they are resident.
    steps: Training steps.
    events: Evaluations and checkpoints.
    devices: CPU devices.
    interval: Seconds between samples.
  """

  streamed: bool = False
  steps: int = 5000
  events: int = _EVENTS
  devices: int = 2
  interval: float = 0.1

  @property
  def kind(self) -> str:
    """Returns the name of the run in records."""
    return "streamed" if self.streamed else "resident"

  def command(self, folder: pathlib.Path) -> list[str]:
    """Returns the command line of the run in a folder with `set.npz`."""
    fields = {
      "resize": _SIZE + 4,
      "crop": _SIZE,
      "batch_size": _BATCH,
      "eval_batch_size": 20,
      "total_steps": self.steps,
      "log_every": _WINDOW,
      "eval_every": self.steps // self.events,
      "checkpoint_every": self.steps // self.events,
      "keep_best": True,
      "resident_share": 0 if self.streamed else 0.5,
    }
    return [
      *(sys.executable, "-m", "experiments.reliability.observed", str(folder / _USED)),
      f"--config=configs/npz.py:model=R14x0.5,path={folder / 'set.npz'}",
      *(f"--config.{name}={value}" for name, value in fields.items()),
      f"--workdir={folder / 'run'}",
    ]


@dataclasses.dataclass(frozen=True)
class Sample:
  """A process at one moment.

  Attributes:
    step: Steps that it has logged.
    bytes: Its resident memory, without libraries and other mapped files: the system evicts those.
    used: Bytes of it that are in use; the others are in pools.
    files: Its open file descriptors.
    threads: Its threads.
    compiled: Programs that it has compiled.
    checkpoint: The step of its newest checkpoint, 0 without one.
  """

  step: int
  bytes: int
  used: int
  files: int
  threads: int
  compiled: int
  checkpoint: int


def run(
  plan: Plan, folder: pathlib.Path, environment: Mapping[str, str] | None = None
) -> tuple[list[Sample], Counter[tuple[str, str]]]:
  """Runs a plan in a process of its own.

  Args:
    plan: What to run.
    folder: An empty folder; the run is in its folder 'run' afterwards.
    environment: Variables that are added to those of this process.

  Returns:
    The samples in their order, and how often each program was compiled, by its function and the
    types of its arguments.

  Raises:
    RuntimeError: The run failed.
  """
  small_runs.write_noise(folder / "set.npz", _IMAGES, _SIZE, _CLASSES)
  flags = (
    f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={plan.devices} "
    f"{_PATIENT}"
  )
  variables = {
    **os.environ,
    "JAX_PLATFORMS": "cpu",
    "XLA_FLAGS": flags.strip(),
    "JAX_LOG_COMPILES": "1",
    "PYTHONMALLOC": "malloc",
    **({"BIT_JAX_CACHE": str(folder / "cache")} if environment is None else environment),
  }
  samples: list[Sample] = []
  log = folder / "log.txt"
  with log.open("wb") as output:
    process = subprocess.Popen(
      plan.command(folder), cwd=_ROOT, env=variables, stdout=output, stderr=output
    )
  try:
    observed = psutil.Process(process.pid)
    while process.poll() is None:
      if (sample := _sample(observed, folder / "run", log)) is not None:
        samples.append(sample)
      time.sleep(plan.interval)
  finally:
    process.kill()
    process.wait()
  text = log.read_text(encoding="utf-8", errors="replace")
  if process.returncode:
    raise RuntimeError(f"The run failed with status {process.returncode}:\n{text[-3000:]}")
  return samples, Counter(_COMPILING.findall(text))


def _sample(process: psutil.Process, run: pathlib.Path, log: pathlib.Path) -> Sample | None:
  """Returns the process as it is now; None before its first row of metrics, or if it has ended."""
  try:
    rows = (run / reporting.METRICS).read_bytes().split(b"\n")[:-1]  # whole ones
    return Sample(
      step=json.loads(rows[-1])["step"],
      bytes=(memory := process.memory_info()).rss - memory.shared,
      used=int((run.parent / _USED).read_text()),
      files=process.num_fds(),
      threads=process.num_threads(),
      compiled=log.read_bytes().count(_COMPILED),
      checkpoint=run_folder.saved_step(run),
    )
  except (FileNotFoundError, IndexError, ValueError, psutil.NoSuchProcess):
    return None


def figures(plan: Plan, samples: Sequence[Sample], rows: Sequence[Mapping[str, Any]]) -> Record:
  """Returns the figures of a run.

  Args:
    plan: What was run.
    samples: The samples, in their order.
    rows: The rows of its metrics.

  Returns:
    'steps', 'evaluations' and 'checkpoints' that were seen. Of the samples after the first tenth of
    the steps and before the last step: 'memory' in use with its slope in MB per 1,000 steps (Theil
    and Sen's estimate with its 95% interval, of the least of each block of steps after the first
    third, until which pools fill), and the medians of the process's memory in the first and the
    last tenth; 'open_files', 'threads' and 'compilations' with their minima in the first and the
    last tenth, and their maxima in the first and over
    all. 'step_ms': the median of the first and the last tenth of the steps, and their
    'ratio'. 'curve': (step, MB of the process) of the blocks.
  """
  tenth = plan.steps / 10
  steady = [s for s in samples if tenth <= s.step < plan.steps]
  first = [s for s in steady if s.step < 2 * tenth]
  last = [s for s in steady if s.step >= plan.steps - tenth]
  curve = _curve(samples, plan.steps, "bytes")
  in_use = _curve([s for s in steady if s.step >= plan.steps / 3], plan.steps, "used")
  slope, _, low, high = stats.theilslopes(*np.transpose(in_use)[::-1])
  record: Record = {
    "steps": max(row["step"] for row in rows),
    "evaluations": sum(row["kind"] != "train" for row in rows),
    "checkpoints": len({s.checkpoint for s in samples} - {0}),
    "memory": {
      "mb_per_1000_steps": slope * 1e3,
      "low": low * 1e3,
      "high": high * 1e3,
      "first_mb": statistics.median(s.bytes for s in first) / 1e6,
      "last_mb": statistics.median(s.bytes for s in last) / 1e6,
    },
  }
  for name, field in (
    ("open_files", "files"),
    ("threads", "threads"),
    ("compilations", "compiled"),
  ):
    record[name] = {
      "first": min(getattr(s, field) for s in first),
      "first_most": max(getattr(s, field) for s in first),
      "last": min(getattr(s, field) for s in last),
      "most": max(getattr(s, field) for s in steady),
    }
  record["step_ms"] = _step_times(plan, rows)
  return _rounded(record) | {"curve": [[round(step), round(mb, 1)] for step, mb in curve]}


def _curve(samples: Sequence[Sample], steps: int, field: str) -> list[tuple[float, float]]:
  """Returns (mean step, least MB of a field) of each block of steps that has samples."""
  blocks: dict[int, list[Sample]] = {}
  for sample in samples:
    if sample.step < steps:
      blocks.setdefault(sample.step * _BLOCKS // steps, []).append(sample)
  return [
    (statistics.mean(s.step for s in block), min(getattr(s, field) for s in block) / 1e6)
    for block in blocks.values()
  ]


def _step_times(plan: Plan, rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
  """Returns the median milliseconds of a step, in the first and the last tenth of the steps."""
  speeds = [(r["step"], r["images_per_second"]) for r in rows if r["kind"] == "train"]
  early = [1e3 * _BATCH / v for step, v in speeds if v and step <= plan.steps / 10]
  late = [1e3 * _BATCH / v for step, v in speeds if v and step > plan.steps * 9 / 10]
  first, last = statistics.median(early), statistics.median(late)
  return {"first": first, "last": last, "ratio": last / first}


def _rounded(record: Record) -> Record:
  """Returns a record with its fractions rounded to three places."""
  return {
    k: _rounded(v) if isinstance(v, dict) else round(v, 3) if isinstance(v, float) else v
    for k, v in record.items()
  }


def growing(record: Record) -> list[str]:
  """Returns a sentence on each thing that grows in a record by `figures`."""
  found = []
  memory = record["memory"]
  if memory["low"] > _GROWTH:
    found.append(f"Memory grows by {memory['mb_per_1000_steps']:.2f} MB per 1,000 steps.")
  for name in ("open_files", "threads", "compilations"):
    # Pools start their threads when there is work, so early samples have some fewer.
    before = record[name]["first_most" if name == "threads" else "first"]
    if record[name]["last"] > before:
      words = name.replace("_", " ").capitalize()
      found.append(f"{words}: {before}, then {record[name]['last']}.")
  return found


def repeated(programs: Mapping[tuple[str, str], int]) -> list[str]:
  """Returns a sentence on each program that was compiled more than once.

  Single operations of `jax.lax` are left out: they are compiled for each type of their result, too.

  Args:
    programs: How often each was compiled, by its function and the types of its arguments.
  """
  return [
    f"Compiled {count} times: {name}{types:.200}"
    for (name, types), count in programs.items()
    if count > 1 and not hasattr(jax.lax, name)
  ]


def main(argv: Sequence[str]) -> int:
  """Runs what a command line asks for; returns 1 if something grows."""
  parser = argparse.ArgumentParser(
    prog="python -m experiments.reliability.soak",
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument("--steps", type=int, default=5000, help="training steps of each run")
  parser.add_argument("--devices", type=int, default=2, help="CPU devices")
  parser.add_argument("--record", action="store_true", help=f"write {page.SOAK.name} and the page")
  options = parser.parse_args(argv[1:])
  records, faults = [], []
  for streamed in (False, True):
    plan = Plan(streamed, options.steps, devices=options.devices)
    with tempfile.TemporaryDirectory() as folder:
      record, wrong = observe(plan, pathlib.Path(folder))
    print(json.dumps(record), flush=True)
    records.append(record)
    faults += [f"{plan.kind}: {sentence}" for sentence in wrong]
  if options.record:
    page.SOAK.write_text("".join(f"{json.dumps(r)}\n" for r in records), encoding="utf-8")
    page.write()
  print("\n".join(faults) or "Nothing grows.")
  return int(bool(faults))


def kept_by_tensorstore(checkpoint: pathlib.Path) -> int:
  """Returns the bytes that tensorstore never frees after a checkpoint was saved.

  They are what its form as JSON leaves of the place of an array, which orbax asks for once for each
  array.

  Args:
    checkpoint: A folder that `training.resuming` wrote.
  """
  record = json.loads((checkpoint / orbax_handlers.RECORD / orbax_handlers.RECORD_FILE).read_text())
  place = tensorstore.KvStore.Spec(
    {"driver": "file", "path": f"{checkpoint / orbax_handlers.STATE}/"}
  )
  place.to_json()
  tracemalloc.start()
  before, _ = tracemalloc.get_traced_memory()
  for _ in record["arrays"]:
    place.to_json()
  after, _ = tracemalloc.get_traced_memory()
  tracemalloc.stop()
  return after - before


def observe(plan: Plan, folder: pathlib.Path) -> tuple[Record, list[str]]:
  """Runs a plan in an empty folder; returns its figures with date and versions, and what grows."""
  samples, programs = run(plan, folder)
  rows, _ = metrics_log.read(folder / "run" / reporting.METRICS)
  record = figures(plan, samples, rows)
  by_name: Counter[str] = Counter()
  for (name, _), count in programs.items():
    by_name[name] += count
  record["compilations"]["by_name"] = dict(by_name)
  newest = run_folder.saved_step(folder / "run")
  kept = kept_by_tensorstore(folder / "run" / run_folder.CHECKPOINTS / str(newest)) / 1e6
  record["memory"]["of_tensorstore"] = round(kept * plan.events * 1e3 / plan.steps, 3)
  twice = repeated(programs)
  record["compiled_twice"] = len(twice)
  environment = run_folder.read_json(folder / "run" / run_folder.ENVIRONMENT) or {}
  about = {"kind": plan.kind, "date": datetime.date.today().isoformat()}
  about |= {name: environment[name] for name in ("python", "packages", "machine", "num_devices")}
  return about | record, [*growing(record), *twice]


if __name__ == "__main__":
  exits.leave(exits.run(main, sys.argv))
