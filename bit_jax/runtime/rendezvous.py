"""How the processes of a run find each other: all others connect to process 0.

Each says who it is. Process 0 starts the run when all are here, unless they don't belong together.
Until then each process says, from time to time, what it waits for. Whoever else connects to the
port is sent away.
"""

import contextlib
import dataclasses
import errno
import platform
import select
import socket
import sys
import time
from collections.abc import Collection
from typing import Any, Self

from bit_jax.runtime import cluster, differences, errors, links

PATIENCE = 300.0  # seconds that process 0 waits for the others
_FIRST_NOTICE, _NOTICE = 1.0, 30.0  # seconds until a waiting process says so, and says so again
_STRANGE = 20.0  # seconds for which another service may answer: an earlier run that is ending
_FAREWELL = 5.0  # seconds in which process 0 tells the others why there is no run
_REPORT = 10.0  # seconds in which a process that can't take part finds process 0, to say so
_PAUSE = 0.5  # seconds between two attempts
_LONGEST_HELLO, _LONGEST_WORD = 2**14, 255  # bytes of a line, letters of a name in it
_ADVICE = (
  f"Check that every process was started, that {cluster.ADDRESS} is the same in all and names the "
  f"machine of process 0, and that its port can be reached."
)

Found = tuple[dict[int, links.Link], list[str]]


def meet(place: cluster.Place) -> Found:
  """Returns the connections of this process and the hosts of all, once all are here.

  Process 0 has a connection to each other process, the others have one to process 0.

  Raises:
    UserError: They don't all come within `PATIENCE` seconds, or don't belong together.
  """
  if place.fault:
    _report(place, place.fault)
    raise errors.UserError(place.fault)
  hello = _Hello(place.index, place.count, platform.node(), differences.facts())
  return _receive_all(place, hello) if place.index == 0 else _join(place, hello)


@dataclasses.dataclass(frozen=True)
class _Hello:
  """What a process says first.

  Attributes:
    index: Its number.
    count: The number of processes that it knows of.
    host: Its machine.
    facts: Of `differences`.
    failed: Why it can't take part, as one line; None if it can.
  """

  index: int
  count: int
  host: str
  facts: dict[str, str]
  failed: str | None = None

  @classmethod
  def of(cls, message: links.Message) -> Self | None:
    """Returns what a message says; None if it is none of a process of bit_jax."""
    match message:
      case {"index": int(index), "count": int(count), "host": host, "facts": dict(facts)}:
        failed = message.get("failed")
        names_are_words = all(map(_is_word, [host, *facts, *facts.values()]))
        can_take_part = failed is None and 0 < index < count
        if names_are_words and (can_take_part or isinstance(failed, str)):
          return cls(index, count, host, facts, failed and errors.one_line(failed))
    return None


def _is_word(text: Any) -> bool:
  return isinstance(text, str) and len(text) <= _LONGEST_WORD and text.isprintable()


class _Waiting:
  """The time that a process waits, and what it says meanwhile."""

  def __init__(self, patience: float) -> None:
    """Takes the seconds after which it is over."""
    self._began, self._patience = time.monotonic(), patience
    self._next = _FIRST_NOTICE

  @property
  def seconds(self) -> float:
    return time.monotonic() - self._began

  def say(self, text: str) -> None:
    """Prints a sentence if it is time to.

    Raises:
      UserError: The time is over.
    """
    if self.seconds > self._patience:
      raise errors.UserError(f"{text} It gives up after {self._patience:.0f} s. {_ADVICE}")
    if self.seconds > self._next:
      self._next += _NOTICE
      with contextlib.suppress(OSError):
        print(f"{text} ({self.seconds:.0f} s)", file=sys.stderr, flush=True)


def _missing(place: cluster.Place, here: Collection[int]) -> str:
  absent = [str(i) for i in range(place.count) if i not in here]
  names = f"process{'es' if len(absent) > 1 else ''} {', '.join(absent)}"
  return (
    f"Process {place.index} waits for the others at {place.address}: {len(here)} of {place.count} "
    f"processes are here, {names} {'is' if len(absent) == 1 else 'are'} missing."
  )


def _receive_all(place: cluster.Place, hello: _Hello) -> Found:
  """Does process 0's part of `meet`."""
  port = place.bind_port or place.port
  try:
    server = links.listen(port)
  except OSError as e:
    twice = f"Two processes have {cluster.INDEX}=0: give each its own number."
    if e.errno == errno.EADDRINUSE and _report(place, twice):
      raise errors.UserError(twice) from e
    raise errors.UserError(
      f"Process 0 can't use the port {port} for {cluster.ADDRESS}={place.address}: "
      f"{e.strerror}. Choose another port, in all processes."
    ) from e
  with server:
    reception, waiting = _Reception(server, place, hello), _Waiting(PATIENCE)
    try:
      while len(reception.here) < place.count - 1:
        reception.receive()
        waiting.say(_missing(place, {0, *reception.here}))
      return reception.start()
    except (errors.UserError, KeyboardInterrupt) as e:
      reception.dismiss(str(e) or "Process 0 was interrupted.")
      raise


class _Reception:
  """The processes that have come to process 0.

  Attributes:
    here: {process: its connection} of those that have said who they are.
  """

  def __init__(self, server: socket.socket, place: cluster.Place, hello: _Hello):
    self.here: dict[int, links.Link] = {}
    self._server, self._place = server, place
    self._open: list[links.Link] = []
    self._hellos = {0: hello}

  def receive(self) -> None:
    """Takes connections and reads what they say, for `_PAUSE` seconds at most.

    Raises:
      UserError: A process doesn't belong to this run.
    """
    numbers = {link.fileno(): link for link in self._open}
    ready = select.select([self._server.fileno(), *numbers], [], [], _PAUSE)[0]
    for number in ready:
      if number in numbers:
        self._read(numbers[number])
    if self._server.fileno() in ready:
      with contextlib.suppress(OSError):  # it is gone already
        self._open.append(links.Link(self._server.accept()[0]))

  def _read(self, link: links.Link) -> None:
    """Reads who a process is; forgets one that has ended, and any other program."""
    try:
      for message in link.receive(_LONGEST_HELLO):
        self._admit(link, message)
    except links.Gone:
      link.close()
      self._open.remove(link)
      for index in [i for i, other in self.here.items() if other is link]:
        del self.here[index], self._hellos[index]
        self._tell()

  def _admit(self, link: links.Link, message: links.Message) -> None:
    hello = _Hello.of(message)
    if hello is None or link in self.here.values():  # who is here only waits
      raise links.Strange
    index, count, host = hello.index, hello.count, hello.host
    if hello.failed is not None:
      if hello.facts != self._hellos[0].facts:  # nobody else knows the hash of the code
        raise links.Strange
      raise errors.UserError(f"A process on {host} ended: {hello.failed}")
    if count != self._place.count:
      raise errors.UserError(
        f"The processes differ: {cluster.COUNT} is {self._place.count} in process 0 and {count} in "
        f"process {index} on {host}. Start every process with the same number."
      )
    if index in self._hellos:
      raise errors.UserError(
        f"Two processes have {cluster.INDEX}={index}, on {self._hellos[index].host} and on "
        f"{host}: give each its own number, from 0 to {count - 1}."
      )
    self.here[index], self._hellos[index] = link, hello
    self._tell()

  def _tell(self) -> None:
    for link in self.here.values():
      link.send({"here": [0, *self.here]})

  def dismiss(self, sentence: str) -> None:
    """Tells all processes why there is no run; waits a little for those that come late."""
    until, told = time.monotonic() + _FAREWELL, 0
    while time.monotonic() < until and told < self._place.count - 1:
      for link in self._open[told:]:
        link.send({"refused": sentence})
      told = len(self._open)
      if select.select([self._server], [], [], _PAUSE)[0]:
        with contextlib.suppress(OSError):
          self._open.append(links.Link(self._server.accept()[0]))
    for link in self._open:  # unread messages would take back what was sent
      with contextlib.suppress(links.Gone):
        _received(link, 0)

  def start(self) -> Found:
    """Lets the run begin unless the processes differ."""
    hellos = [self._hellos[i] for i in range(self._place.count)]
    if sentence := differences.sentence([hello.facts for hello in hellos]):
      raise errors.UserError(sentence)
    hosts = [hello.host for hello in hellos]
    for link in self._open:
      if link in self.here.values():
        link.send({"hosts": hosts})
      else:
        link.close()
    return self.here, hosts


def _join(place: cluster.Place, hello: _Hello) -> Found:
  """Does the part of the other processes in `meet`."""
  # Longer than process 0: it would miss those that give up at the same moment, too.
  waiting, wrong = _Waiting(PATIENCE + _FAREWELL), _Wrong()
  absent = (
    f"Process {place.index} of {place.count}, on {platform.node()}, waits for process 0 at "
    f"{place.address}, which doesn't answer there."
  )
  while True:
    try:
      link = links.connect(place.host, place.port, 2)
      link.send(dataclasses.asdict(hello))
      return {0: link}, _wait_for_start(link, place, waiting)
    except links.Strange:
      wrong.since(
        waiting.seconds,
        f"At {place.address} there is no process 0 that waits for process {place.index}, but "
        f"another service: either the run of {place.count} processes has begun without this one, "
        f"and {cluster.INDEX}={place.index} is used twice, or another program uses the port.",
      )
    except links.Gone:  # it was here
      wrong.since(
        waiting.seconds,
        f"Process 0 at {place.address} ended while process {place.index} waited with it for the "
        f"others: start all processes again.",
      )
    except OSError:
      wrong.since(waiting.seconds)
    waiting.say(absent)
    time.sleep(_PAUSE)


class _Wrong:
  """Something else than an absent process 0, which may pass."""

  def __init__(self) -> None:
    self._sentence, self._since = "", 0.0

  def since(self, now: float, sentence: str = "") -> None:
    """Takes what is wrong at this second; '' is a process 0 that isn't there, or is no more.

    Raises:
      UserError: It has been so for `_STRANGE` seconds.
    """
    if sentence and not self._sentence:
      self._since = now
    self._sentence = sentence or self._sentence
    if self._sentence and now - self._since > _STRANGE:
      raise errors.UserError(self._sentence)


def _report(place: cluster.Place, sentence: str) -> bool:
  """Tells a process 0 that is waiting why this process ends; returns whether it has heard it."""
  hello = _Hello(place.index, place.count, platform.node(), differences.facts(), sentence)
  until = time.monotonic() + _REPORT
  while time.monotonic() < until:
    try:
      link = links.connect(place.host, place.port, 2)
      link.send(dataclasses.asdict(hello))
      return any("refused" in message for message in _received(link, _REPORT))
    except links.Strange:
      return False
    except (links.Gone, OSError):
      time.sleep(_PAUSE)
  return False


def _received(link: links.Link, seconds: float) -> list[links.Message]:
  return link.receive() if select.select([link], [], [], seconds)[0] else []


def _wait_for_start(link: links.Link, place: cluster.Place, waiting: _Waiting) -> list[str]:
  """Returns the hosts when process 0 lets the run begin.

  Raises:
    UserError: It refuses, or the time is over.
    Gone: It has ended, or is another program.
  """
  here = [0, place.index]
  while True:
    for message in _received(link, _PAUSE):
      match message:
        case {"refused": str(sentence)}:
          raise errors.UserError(sentence)
        case {"hosts": [*hosts]} if len(hosts) == place.count and all(map(_is_word, hosts)):
          return hosts
        case {"here": [*here]}:
          pass
        case _:
          raise links.Strange
    waiting.say(_missing(place, here))
