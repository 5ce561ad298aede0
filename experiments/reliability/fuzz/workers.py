"""Sessions in processes of their own, which may die or hang: that is a finding, too."""

import dataclasses
import multiprocessing
import os
import pathlib
import tempfile
import time
from multiprocessing import connection
from multiprocessing.sharedctypes import Synchronized

from experiments.benchmarks import machine
from experiments.reliability.fuzz import kinds, session, target

_SILENT = 120  # seconds without a next input after which a process hangs
_POLL = 0.5
_EVERY = 100  # inputs after which a process reports its cost


@dataclasses.dataclass(frozen=True)
class Cost:
  """What inputs have cost a process.

  Attributes:
    memory: The most bytes that it has taken.
    before: The most bytes that it had taken before its first input.
    seconds: The time of the inputs since the last report.
  """

  memory: int
  before: int
  seconds: float


@dataclasses.dataclass
class Tally:
  """How the inputs of a kind ended.

  Attributes:
    accepted: Number of inputs with a value.
    refused: Number of inputs with the error that users get.
    findings: Number of inputs with any other end.
    distinct: {place: the first finding there}.
    memory: The most bytes that a process has taken while it read inputs.
    before: The most bytes that a process had taken before its first input.
    seconds: The time of all inputs.
  """

  accepted: int = 0
  refused: int = 0
  findings: int = 0
  distinct: dict[str, session.Finding] = dataclasses.field(default_factory=dict)
  memory: int = 0
  before: int = 0
  seconds: float = 0.0

  @property
  def inputs(self) -> int:
    """The number of all inputs."""
    return self.accepted + self.refused + self.findings

  def add(self, cost: Cost) -> None:
    """Adds the cost of some inputs."""
    self.memory, self.before = max(self.memory, cost.memory), max(self.before, cost.before)
    self.seconds += cost.seconds

  def note(self, found: session.Finding) -> None:
    """Counts a finding."""
    self.findings += 1
    self.distinct.setdefault(found.place, found)


def fuzz(kind: str, seed: int, count: int) -> Tally:
  """Reads the corpus of a kind and then `count` inputs more."""
  tally = Tally()
  corpus = target.kept(kind)
  context = multiprocessing.get_context("spawn")
  at = context.Value("q", -len(corpus))
  while at.value < count:
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(kind, seed, count, at, sender), daemon=True)
    process.start()
    sender.close()
    end = _follow(process, at, receiver, tally)
    if end is not None:
      made = kinds.load(kind)
      tally.note(session.Finding(end, end, _input(made, kind, seed, at.value, corpus)))
      at.value += 1
  return tally


def _input(made: target.Target, kind: str, seed: int, number: int, corpus: list[bytes]) -> bytes:
  """Returns an input by its number; those of the corpus have negative ones."""
  if number < 0:
    return corpus[number]
  return made.make(target.numbered(seed, kind, number), corpus)


def _follow(
  process: multiprocessing.context.SpawnProcess,
  at: "Synchronized[int]",
  receiver: connection.Connection,
  tally: Tally,
) -> str | None:
  """Adds what a process reports to the tally; returns how it ended, None if it ended well."""
  last, since = at.value, time.monotonic()
  try:
    while True:
      if receiver.poll(_POLL):
        match receiver.recv():
          case bool(accepted):
            tally.accepted += accepted
            tally.refused += not accepted
          case session.Finding() as found:
            tally.note(found)
          case Cost() as cost:
            tally.add(cost)
      if at.value != last:
        last, since = at.value, time.monotonic()
      elif time.monotonic() - since > _SILENT:
        process.kill()
        process.join()
        return "hangs"
  except EOFError:  # the process has ended
    process.join()
    return None if process.exitcode == 0 else f"died with status {process.exitcode}"


def _work(
  kind: str, seed: int, count: int, at: "Synchronized[int]", sender: connection.Connection
) -> None:
  """Reads inputs from number `at` on, in a process of its own."""
  made, corpus = kinds.load(kind), target.kept(kind)
  with tempfile.TemporaryDirectory() as folder:
    for data in made.seeds:  # so that everything is imported
      session.attempt(made, data, pathlib.Path(folder))
    before, began = machine.peak_memory(), time.monotonic()
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # libraries print warnings there
    with session.limited(made.memory):
      while at.value < count:
        data = _input(made, kind, seed, at.value, corpus)
        sender.send(_timed(made, data, pathlib.Path(folder)))
        at.value += 1
        if at.value % _EVERY == 0 or at.value == count:
          now = time.monotonic()
          sender.send(Cost(machine.peak_memory(), before, now - began))
          began = now


def _timed(made: target.Target, data: bytes, folder: pathlib.Path) -> bool | session.Finding:
  try:
    with session.timed():
      return session.attempt(made, data, folder)
  except session.TooLong as e:  # it came just outside of the attempt
    return session.Finding("TooLong", str(e), data)
