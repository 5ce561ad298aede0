"""Implementations measured side by side, each in a process and an environment of its own.

A worker builds what is to be measured and warms it up; then it does one repetition whenever it is
told to, and reports. The parent lets the workers take turns, so that a machine that slows down
slows down all of them. Only the standard library, so that a worker of another environment
(PyTorch's) imports it too.

    # in the worker's module, run as `python -m`
    workers.serve(build)  # build(spec) -> workers.Workload

    # in the parent
    with contextlib.ExitStack() as stack:
      ours = stack.enter_context(workers.Worker("ours", [sys.executable, "-m", module], spec))
      medians = workers.alternate([ours, theirs], rounds=5)
"""

import contextlib
import dataclasses
import json
import math
import os
import pathlib
import queue
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

from bit_jax.runtime import paths
from experiments.benchmarks import machine

_ROOT = pathlib.Path(__file__).parents[2]  # of the checkout: modules are found from there
_ERROR = re.compile(r"^[\w.]*(Error|Exception|Exit|Interrupt)\b", re.MULTILINE)
_LONGEST = 300  # characters of a failed worker's message


class WorkerError(Exception):
  """A worker could not be started, or failed; its text says why."""


@dataclasses.dataclass(frozen=True)
class Workload:
  """What a worker measures, built and warmed up.

  Attributes:
    repeat: Does one repetition and waits for its end; returns how many items (images, mostly) it
      went through.
    info: What the parent should know of it: JSON values.
    peak_memory: The most bytes that it has held at once.
    check: Returns numbers that all implementations must agree in, such as logits.
  """

  repeat: Callable[[], int]
  info: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  peak_memory: Callable[[], int] = machine.peak_memory
  check: Callable[[], Sequence[float]] = list


@dataclasses.dataclass(frozen=True)
class Repetition:
  """One repetition of a worker.

  Attributes:
    seconds: How long it took.
    items: How many items it went through.
    peak_memory: The most bytes held so far.
  """

  seconds: float
  items: int
  peak_memory: int


@dataclasses.dataclass(frozen=True)
class Figures:
  """What came of a worker's repetitions.

  Attributes:
    rate: Median over the repetitions of items per second.
    seconds: Median seconds of an item.
    peak_memory: The most bytes held at once.
    rates: Items per second of each repetition.
  """

  rate: float
  seconds: float
  peak_memory: int
  rates: tuple[float, ...]


def summarize(repetitions: Sequence[Repetition]) -> Figures:
  """Returns the medians and the peak of some repetitions."""
  rates = tuple(r.items / r.seconds for r in repetitions)
  rate = statistics.median(rates)
  return Figures(rate, 1 / rate, max(r.peak_memory for r in repetitions), rates)


def speeds(ours: Figures, theirs: Figures) -> list[float]:
  """Returns how many times as fast one worker was as another it took turns with, by rounds."""
  return [a / b for a, b in zip(ours.rates, theirs.rates, strict=True)]


def speed(ours: Figures, theirs: Figures) -> float:
  """Returns the median of `speeds`."""
  return statistics.median(speeds(ours, theirs))


def spread(ours: Figures, theirs: Figures) -> dict[str, str]:
  """Returns the least and the largest of `speeds`, as a further figure of a `results.Row`."""
  found = speeds(ours, theirs)
  return {"rounds": f"{min(found):.2f} to {max(found):.2f}"}


class Worker:
  """A process that measures one implementation; a context manager that ends it.

  Attributes:
    name: What tables call it.
    info: What its workload says of itself.
  """

  def __init__(
    self,
    name: str,
    command: Sequence[str],
    spec: Mapping[str, Any],
    *,
    environment: Mapping[str, str] | None = None,
  ):
    """Starts it, and waits until it is warmed up.

    Args:
      name: What tables call it.
      command: The program and its first arguments; one that calls `serve`.
      spec: What to build, JSON values; becomes the last argument.
      environment: Variables to add to this process's own.

    Raises:
      WorkerError: The program isn't there, or it failed.
    """
    self.name = name
    self._messages = tempfile.TemporaryFile("w+")  # noqa: SIM115 (open as long as the worker)
    paths = [str(_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    variables = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), **(environment or {})}
    try:
      self._process = subprocess.Popen(
        [*command, json.dumps(dict(spec))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=self._messages,
        env=variables,
        text=True,
      )
    except OSError as e:
      self._messages.close()
      raise WorkerError(f"{command[0]} can't be run ({e.strerror})") from e
    try:
      self.info: dict[str, Any] = self._receive()
    except BaseException:
      self.close()
      raise

  def __enter__(self) -> Self:
    """Returns itself."""
    return self

  def __exit__(
    self,
    kind: type[BaseException] | None,
    error: BaseException | None,
    traceback: types.TracebackType | None,
  ) -> None:
    """Ends the process."""
    self.close()

  def repeat(self) -> Repetition:
    """Has it do one repetition.

    Raises:
      WorkerError: It failed.
    """
    return Repetition(**self._ask("repeat"))

  def check(self) -> list[float]:
    """Returns the numbers in which all implementations must agree.

    Raises:
      WorkerError: It failed.
    """
    return self._ask("check")

  def close(self) -> None:
    """Ends the process, whatever it is doing."""
    self._process.kill()
    self._process.communicate()
    self._messages.close()

  def _ask(self, request: str) -> Any:
    assert self._process.stdin
    with contextlib.suppress(BrokenPipeError):  # it has ended: _receive says why
      self._process.stdin.write(f"{request}\n")
      self._process.stdin.flush()
    return self._receive()

  def _receive(self) -> Any:
    assert self._process.stdout
    line = self._process.stdout.readline()
    if line:
      return json.loads(line)
    status = self._process.wait()
    self._messages.seek(0)
    raise WorkerError(_reason(self._messages.read()) or f"ended with status {status}")


def compiled_programs() -> str:
  """Returns the folder that XLA keeps workers' programs in, so that the next run need not wait."""
  cache = paths.named(os.environ.get("BIT_JAX_CACHE") or "~/.cache/bit_jax")
  return os.environ.get("JAX_COMPILATION_CACHE_DIR", str(cache / "benchmarks"))


def alternate(workers: Sequence[Worker], rounds: int) -> dict[str, Figures]:
  """Lets workers take turns, in the other order every other round; returns figures by name.

  Raises:
    WorkerError: One of them failed.
  """
  repetitions: dict[str, list[Repetition]] = {worker.name: [] for worker in workers}
  for i in range(rounds):
    for worker in workers if i % 2 == 0 else reversed(workers):
      repetitions[worker.name].append(worker.repeat())
  return {name: summarize(done) for name, done in repetitions.items()}


def serve(build: Callable[[dict[str, Any]], Workload]) -> None:
  """Is a worker's whole program: builds what the last argument asks for, then does as told.

  Whatever the implementation prints goes to the standard error; the standard output is the
  parent's.

  Args:
    build: Makes the workload of a spec, warmed up.
  """
  replies = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)
  os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
  requests: queue.SimpleQueue[str] = queue.SimpleQueue()
  threading.Thread(target=_listen, args=(requests,), daemon=True).start()
  workload = build(json.loads(sys.argv[-1]))
  print(json.dumps(dict(workload.info)), file=replies)
  while True:
    if requests.get() == "check":
      reply: Any = [float(x) for x in workload.check()]
    else:
      start = time.perf_counter()
      items = workload.repeat()
      seconds = time.perf_counter() - start
      reply = dataclasses.asdict(Repetition(seconds, items, workload.peak_memory()))
    print(json.dumps(reply), file=replies)


def _reason(messages: str) -> str:
  """Returns the last exception of a worker's messages in one line, or how they end."""
  begins = [match.start() for match in _ERROR.finditer(messages)]
  return " ".join(messages[begins[-1] if begins else -_LONGEST :].split())[:_LONGEST]


def _listen(requests: queue.SimpleQueue[str]) -> None:
  """Passes on what the parent asks for; without a parent the process ends, whatever it is doing."""
  for line in sys.stdin:
    requests.put(line.strip())
  os._exit(1)


def steps_for(seconds: float, step: Callable[[], object]) -> int:
  """Returns how many calls of `step`, which waits for its own end, take about `seconds`."""
  start = time.perf_counter()
  step()
  return max(1, math.ceil(seconds / (time.perf_counter() - start)))
