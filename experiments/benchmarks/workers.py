"""Implementations measured in turns, each in its own process and environment.

A worker builds its workload and warms it up, then does one repetition per request and reports it.
The parent lets workers take turns, so that a change of the machine's speed affects all of them.
Needs only the standard library and numpy, so that workers of other environments (PyTorch) can
import it.

    # in the worker's module, run as `python -m`
    workers.serve(build)  # build(spec) -> workers.Workload

    # in the parent
    figures = workers.measure({"ours": {...}, "theirs": {...}}, rounds=5)
"""

import contextlib
import ctypes
import dataclasses
import json
import math
import os
import pathlib
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import timeit
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from bit_jax.runtime import cache
from experiments.benchmarks import inputs, machine

Spec = Mapping[str, Any]  # what a worker does, as JSON values
MATMUL_SIDE = 2048  # of the matrices whose product measures the processor's speed
_ROOT = pathlib.Path(__file__).parents[2]  # the checkout, where modules are found
_ERROR = re.compile(r"^[\w.]*(Error|Exception|Exit|Interrupt)\b", re.MULTILINE)
_LONGEST = 300  # characters of a failed worker's message
_PARENT_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of Linux


class WorkerError(Exception):
  """A worker could not be started, or failed; the text gives the reason."""


@dataclasses.dataclass(frozen=True)
class Workload:
  """What a worker measures, built and warmed up.

  Attributes:
    repeat: Does one repetition and waits for its end; returns the number of items processed
      (mostly images).
    info: JSON values for the parent.
    peak_memory: Returns the peak memory in bytes.
  """

  repeat: Callable[[], int]
  info: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  peak_memory: Callable[[], int] = machine.peak_memory


@dataclasses.dataclass(frozen=True)
class Figures:
  """The measurements of one worker.

  Attributes:
    rates: Items per second of each repetition.
    peak_memory: Peak memory in bytes.
  """

  rates: tuple[float, ...]
  peak_memory: int

  @property
  def gigabytes(self) -> float:
    """Peak memory in 1e9 bytes."""
    return self.peak_memory / 1e9

  @property
  def rate(self) -> float:
    """Median of the items per second."""
    return statistics.median(self.rates)

  def relative_to(self, other: "Figures") -> list[float]:
    """Returns this worker's speed divided by that of one it took turns with, for each round."""
    return [a / b for a, b in zip(self.rates, other.rates, strict=True)]


class Worker(contextlib.AbstractContextManager):
  """A process that measures one implementation; the context manager ends it.

  Attributes:
    info: What its workload reports of itself.
  """

  def __init__(self, spec: Spec):
    """Starts the process and waits until it is warmed up.

    Args:
      spec: What to build; becomes the last argument. Optional are 'module', whose program is
        `serve` (default: `run_worker`), 'python', the interpreter, and 'environment', variables to
        add to this process's environment.

    Raises:
      WorkerError: The program doesn't exist, or it failed.
    """
    if not (python := shutil.which(spec.get("python", sys.executable))):
      raise WorkerError(f"Program not found: {spec['python']}.")
    module = spec.get("module", "experiments.benchmarks.run_worker")
    path = os.pathsep.join([str(_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    self._messages = tempfile.TemporaryFile("w+")  # noqa: SIM115 (open as long as the worker)
    self._process = subprocess.Popen(
      [python, "-m", module, json.dumps(dict(spec))],
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      stderr=self._messages,
      env={**os.environ, "PYTHONPATH": path, **spec.get("environment", {})},
      text=True,
    )
    self.info = self._receive()

  def repeat(self) -> tuple[float, int]:
    """Returns the items per second of a repetition, and the peak memory in bytes.

    Raises:
      WorkerError: The worker failed.
    """
    assert self._process.stdin
    with contextlib.suppress(BrokenPipeError):  # it has ended: _receive gives the reason
      self._process.stdin.write("\n")
      self._process.stdin.flush()
    return self._receive()

  def __exit__(self, *_: object) -> None:
    """Ends the process, whatever it is doing."""
    self._process.kill()
    self._process.communicate()
    self._messages.close()

  def _receive(self) -> Any:
    assert self._process.stdout
    if line := self._process.stdout.readline():
      return json.loads(line)
    status = self._process.wait()
    self._messages.seek(0)
    messages = self._messages.read()
    self.__exit__()
    begins = [match.start() for match in _ERROR.finditer(messages)]  # of the last exception
    reason = " ".join(messages[begins[-1] if begins else -_LONGEST :].split())[:_LONGEST]
    raise WorkerError(reason or f"The worker ended with exit status {status}.")


def measure(specs: Mapping[str, Spec], rounds: int) -> dict[str, Figures]:
  """Starts a worker for each spec and measures them in turns.

  Args:
    specs: Specs by name.
    rounds: Repetitions of each.

  Raises:
    WorkerError: A worker could not be started, or failed.
  """
  with contextlib.ExitStack() as stack:
    started = {name: stack.enter_context(Worker(spec)) for name, spec in specs.items()}
    return alternate(started, rounds)


def alternate(workers: Mapping[str, Worker], rounds: int) -> dict[str, Figures]:
  """Lets workers take turns, in reverse order every other round; returns figures by name.

  Raises:
    WorkerError: One of them failed.
  """
  repetitions: dict[str, list[tuple[float, int]]] = {name: [] for name in workers}
  for i in range(rounds):
    for name in list(workers)[:: 1 if i % 2 == 0 else -1]:
      repetitions[name].append(workers[name].repeat())
  return {
    name: Figures(tuple(rate for rate, _ in done), max(peak for _, peak in done))
    for name, done in repetitions.items()
  }


def compiled_programs() -> str:
  """Returns the folder in which XLA keeps workers' compiled programs between runs."""
  return os.environ.get("JAX_COMPILATION_CACHE_DIR", str(cache.directory() / "benchmarks"))


def serve(build: Callable[[Any], Workload]) -> None:
  """Runs a worker: builds the workload of the last argument, then answers requests.

  Whatever the implementation prints goes to the standard error; the standard output carries the
  replies to the parent. The worker ends with its parent, at once on Linux.

  Args:
    build: Returns the workload of a spec, warmed up.
  """
  if sys.platform == "linux":
    ctypes.CDLL(None).prctl(_PARENT_DEATH_SIGNAL, signal.SIGKILL)
  replies = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)
  os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
  workload = build(json.loads(sys.argv[-1]))
  print(json.dumps(dict(workload.info)), file=replies)
  for _ in sys.stdin:
    start = time.perf_counter()
    items = workload.repeat()
    rate = items / (time.perf_counter() - start)
    print(json.dumps([rate, workload.peak_memory()]), file=replies)


def comparable(
  spec: Spec,
  device: str,
  step: Callable[[], Any],
  array: Callable[[Any], np.ndarray],
  multiply: Callable[[], object],
  peak_memory: Callable[[], int],
) -> Workload:
  """Returns the workload of a network that is compared with other implementations of it.

  Its info has 'matmul_flops', the FLOP/s of the fastest of several products of two matrices, and
  'numbers' that must agree between all implementations.

  Args:
    spec: See `comparison.compare`.
    device: What it runs on, 'cpu' or 'gpu'.
    step: Starts a step; the first call compiles it.
    array: Waits for the end of a step; returns what `step` computed, as in `inputs.compared`.
    multiply: Multiplies two matrices of `MATMUL_SIDE`, and waits for the result.
    peak_memory: Returns the peak memory in bytes.

  Raises:
    RuntimeError: It runs on another device than that of the spec.
  """
  if device != spec["device"]:
    raise RuntimeError(f"It runs on {device} instead of {spec['device']}.")
  matmul_flops = 2 * MATMUL_SIDE**3 / min(timeit.repeat(multiply, number=1, repeat=6))
  numbers = inputs.compared([array(step()) for _ in range(2)])
  repeat = repetition(step, array, spec["batch"], spec["seconds"])
  machine.reset_peak_memory()
  return Workload(repeat, {"matmul_flops": matmul_flops, "numbers": numbers}, peak_memory)


def repetition(
  step: Callable[[], Any], wait: Callable[[Any], object], items: int, seconds: float
) -> Callable[[], int]:
  """Returns a repetition of as many steps as take about `seconds`, for a `Workload`.

  Args:
    step: Starts a step, which is compiled already.
    wait: Waits for the end of a step, given what `step` returned.
    items: Items in a step.
    seconds: Minimum length of a repetition.
  """

  def repeat(count: int) -> int:
    for _ in range(count):
      last = step()
    wait(last)
    return count * items

  start = time.perf_counter()
  repeat(1)
  count = max(1, math.ceil(seconds / (time.perf_counter() - start)))
  return lambda: repeat(count)
