"""Implementations measured in turns, each in its own process and environment.

A worker builds its workload and warms it up, then does one repetition per request and reports it.
The parent lets workers take turns, so that a change of the machine's speed affects all of them.
Needs only the standard library, so that workers of other environments (PyTorch) can import it.

    # in the worker's module, run as `python -m`
    workers.serve(build)  # build(spec) -> workers.Workload

    # in the parent
    figures = workers.measure({"ours": {...}, "theirs": {...}}, rounds=5)
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
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from bit_jax.runtime import paths
from experiments.benchmarks import machine

RUN_WORKER = "experiments.benchmarks.run_worker"
median = statistics.median
_ROOT = pathlib.Path(__file__).parents[2]  # the checkout, where modules are found
_ERROR = re.compile(r"^[\w.]*(Error|Exception|Exit|Interrupt)\b", re.MULTILINE)
_LONGEST = 300  # characters of a failed worker's message


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
    check: Returns numbers that must agree between all implementations, such as logits.
  """

  repeat: Callable[[], int]
  info: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  peak_memory: Callable[[], int] = machine.peak_memory
  check: Callable[[], Sequence[float]] = list


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
  def rate(self) -> float:
    """Median of the items per second."""
    return median(self.rates)

  @property
  def seconds(self) -> float:
    """Median seconds of an item."""
    return 1 / self.rate

  def relative_to(self, other: "Figures") -> list[float]:
    """Returns this worker's speed divided by that of one it took turns with, for each round."""
    return [a / b for a, b in zip(self.rates, other.rates, strict=True)]


class Worker:
  """A process that measures one implementation; close it, or use `contextlib.closing`.

  Attributes:
    info: What its workload reports of itself.
  """

  def __init__(
    self,
    spec: Mapping[str, Any],
    module: str = RUN_WORKER,
    *,
    python: str = sys.executable,
    environment: Mapping[str, str] | None = None,
  ):
    """Starts the process and waits until it is warmed up.

    Args:
      spec: What to build, JSON values; becomes the last argument.
      module: A module whose program is `serve`.
      python: The interpreter to run it with.
      environment: Variables to add to this process's environment.

    Raises:
      WorkerError: The program doesn't exist, or it failed.
    """
    path = os.pathsep.join([str(_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    self._messages = tempfile.TemporaryFile("w+")  # noqa: SIM115 (open as long as the worker)
    try:
      self._process = subprocess.Popen(
        [python, "-m", module, json.dumps(dict(spec))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=self._messages,
        env={**os.environ, "PYTHONPATH": path, **(environment or {})},
        text=True,
      )
    except OSError as e:
      self._messages.close()
      raise WorkerError(f"Could not run {python}: {e.strerror}.") from e
    try:
      self.info: dict[str, Any] = self._receive()
    except BaseException:
      self.close()
      raise

  def ask(self, request: str) -> Any:
    """Returns the reply to 'repeat' ([items per second, peak memory]) or 'check' (numbers).

    Raises:
      WorkerError: The worker failed.
    """
    assert self._process.stdin
    with contextlib.suppress(BrokenPipeError):  # it has ended: _receive gives the reason
      self._process.stdin.write(f"{request}\n")
      self._process.stdin.flush()
    return self._receive()

  def close(self) -> None:
    """Ends the process, whatever it is doing."""
    self._process.kill()
    self._process.communicate()
    self._messages.close()

  def _receive(self) -> Any:
    assert self._process.stdout
    line = self._process.stdout.readline()
    if line:
      return json.loads(line)
    status = self._process.wait()
    self._messages.seek(0)
    messages = self._messages.read()
    begins = [match.start() for match in _ERROR.finditer(messages)]  # of the last exception
    reason = " ".join(messages[begins[-1] if begins else -_LONGEST :].split())[:_LONGEST]
    raise WorkerError(reason or f"The worker ended with exit status {status}.")


def measure(
  specs: Mapping[str, Mapping[str, Any]],
  rounds: int,
  environments: Mapping[str, Mapping[str, str]] | None = None,
) -> dict[str, Figures]:
  """Starts a worker of `run_worker` for each spec and measures them in turns.

  Args:
    specs: By name.
    rounds: Repetitions of each.
    environments: Variables to set, by name of the spec.

  Raises:
    WorkerError: A worker could not be started, or failed.
  """
  environments = environments or {}
  with contextlib.ExitStack() as stack:
    return alternate(
      {
        name: stack.enter_context(
          contextlib.closing(Worker(spec, environment=environments.get(name)))
        )
        for name, spec in specs.items()
      },
      rounds,
    )


def alternate(workers: Mapping[str, Worker], rounds: int) -> dict[str, Figures]:
  """Lets workers take turns, in reverse order every other round; returns figures by name.

  Raises:
    WorkerError: One of them failed.
  """
  repetitions: dict[str, list[tuple[float, int]]] = {name: [] for name in workers}
  for i in range(rounds):
    names: Iterable[str] = workers if i % 2 == 0 else reversed(list(workers))
    for name in names:
      repetitions[name].append(tuple(workers[name].ask("repeat")))
  return {
    name: Figures(tuple(rate for rate, _ in done), max(peak for _, peak in done))
    for name, done in repetitions.items()
  }


def compiled_programs() -> str:
  """Returns the folder in which XLA keeps workers' compiled programs between runs."""
  cache = paths.named(os.environ.get("BIT_JAX_CACHE") or "~/.cache/bit_jax")
  return os.environ.get("JAX_COMPILATION_CACHE_DIR", str(cache / "benchmarks"))


def serve(build: Callable[[dict[str, Any]], Workload]) -> None:
  """Runs a worker: builds the workload of the last argument, then answers requests.

  Whatever the implementation prints goes to the standard error; the standard output carries the
  replies to the parent.

  Args:
    build: Returns the workload of a spec, warmed up.
  """
  replies = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)
  os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
  requests: queue.SimpleQueue[str] = queue.SimpleQueue()
  threading.Thread(target=_listen, args=(requests,), daemon=True).start()
  workload = build(json.loads(sys.argv[-1]))
  print(json.dumps(dict(workload.info)), file=replies)
  while True:
    if requests.get() == "check":
      reply = [float(x) for x in workload.check()]
    else:
      start = time.perf_counter()
      items = workload.repeat()
      reply = [items / (time.perf_counter() - start), workload.peak_memory()]
    print(json.dumps(reply), file=replies)


def _listen(requests: queue.SimpleQueue[str]) -> None:
  """Queues the parent's requests; ends the process at once when the parent has ended."""
  for line in sys.stdin:
    requests.put(line.strip())
  os._exit(1)


def repetition(
  step: Callable[[], Any], wait: Callable[[Any], object], items: int, seconds: float
) -> Callable[[], int]:
  """Returns a repetition of as many steps as take about `seconds`, for a `Workload`.

  Args:
    step: Starts a step, which is compiled already.
    wait: Waits for the end of a step, given what `step` returned.
    items: Of a step.
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
