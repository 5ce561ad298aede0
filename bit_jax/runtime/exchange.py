"""Messages between the processes of a run: values that all exchange, and how each of them ends.

Process 0 has a connection to each other process, the others have one to process 0. If a process
ends, all others know it at once, instead of waiting for it in a collective operation.
"""

import json
import platform
import queue
import select
import threading
from collections.abc import Callable
from typing import Any

from bit_jax.runtime import cluster, exits, links, rendezvous

RESUME = "Run the same command in all processes again to resume."
GRACE = 3.0  # seconds in which a process may end by its own error instead of another's

Lost = Callable[[str, int, float], None]


class Exchange:
  """The connections of a process to the others."""

  def __init__(self, place: cluster.Place, lost: Lost, failed: Callable[[Exception], None]):
    """Takes the place of this process.

    Args:
      place: Of this process.
      lost: Called once another process has ended while this one may not go on, with the sentence
        and the exit status that this one ends with, unless it ends by itself within some seconds.
      failed: Called with an error after which a loss would go unnoticed.
    """
    self._place, self._lost, self._failed = place, lost, failed
    self._hosts = [platform.node()] * place.count
    self._links: dict[int, links.Link] = {}
    self._rounds = 0  # of `gather`
    self._given: dict[int, dict[int, Any]] = {}  # {round: {process: value}}, in process 0
    self._gathered: queue.SimpleQueue[list[Any]] = queue.SimpleQueue()
    self._ended: set[int] = set()  # processes that said so
    self._changed = threading.Condition()

  def connect(self) -> None:
    """Waits until all processes are here; from then on, calls `lost` or `failed` in a thread.

    Raises:
      UserError: They don't all come, or don't belong together.
    """
    self._links, self._hosts = rendezvous.meet(self._place)
    threading.Thread(target=self._watch, name="processes", daemon=True).start()

  def gather(self, value: Any) -> list[Any]:
    """Returns the values that all processes pass, by process; waits for those that are behind.

    Args:
      value: What JSON can hold.
    """
    value = json.loads(json.dumps(value, default=str))
    if self._place.count == 1:
      return [value]
    self._rounds += 1
    if self._place.index == 0:
      self._take(self._rounds, 0, value)
    else:
      self._links[0].send({"round": self._rounds, "value": value})
    return self._gathered.get()

  def tell(self, message: links.Message) -> None:
    """Sends a message to all that this process has a connection to."""
    with self._changed:  # the thread that reads removes those that have ended
      others = list(self._links.values())
    for link in others:
      link.send(message)

  def wait_for_ends(self) -> None:
    """Waits until those that this process has connections to have said that they end."""
    place = self._place
    if place.count > 1:
      others = {*range(1, place.count)} if place.index == 0 else {0}
      with self._changed:
        self._changed.wait_for(lambda: others <= self._ended)

  def linger(self) -> None:
    """Waits, in process 0 and for some seconds, until the connections to all others have ended.

    It has JAX's service, without which JAX would abort them.
    """
    if self._place.index == 0:
      with self._changed:
        self._changed.wait_for(lambda: not self._links, GRACE + 2)

  def _take(self, number: int, index: int, value: Any) -> None:
    """Takes a process's value of a round; sends them all once they are complete."""
    with self._changed:
      values = self._given.setdefault(number, {})
      values[index] = value
      if len(values) < self._place.count:
        return
      del self._given[number]
    found = [values[i] for i in range(self._place.count)]
    self.tell({"gathered": found})
    self._gathered.put(found)

  def _watch(self) -> None:
    """Reads what the others send; tells an error, which nobody else would see."""
    try:
      self._read_all()
    except Exception as e:
      self._failed(e)

  def _read_all(self) -> None:
    """Reads the connections until all others have ended."""
    open_links = dict(self._links)
    while open_links:
      ready = select.select(list(open_links.values()), [], [])[0]
      for index, link in list(open_links.items()):
        if link not in ready:
          continue
        try:
          for message in link.receive():
            self._read(index, message)
        except links.Gone:
          del open_links[index]
          with self._changed:
            known = index in self._ended
            self._links.pop(index, None) if self._place.index == 0 else None
            self._changed.notify_all()
          if not known:
            self._lose(self._sentence(index), exits.LOST, 0)

  def _read(self, index: int, message: links.Message) -> None:
    if "gathered" in message:
      self._gathered.put(message["gathered"])
    elif "round" in message:
      self._take(message["round"], index, message["value"])
    elif "lost" in message:  # process 0 tells the others, and ends
      self._lose(message["lost"], message["status"], message["grace"])
    elif "status" in message:
      with self._changed:
        self._ended.add(index)
        self._changed.notify_all()
      if not message["together"]:
        said = f"Process {index} on {self._hosts[index]} ended: {message['text']}"
        self._lose(said, message["status"], GRACE)

  def _sentence(self, index: int) -> str:
    return (
      f"Process {index} on {self._hosts[index]} was lost: it was killed, or its machine or the "
      f"network failed, so that process {self._place.index} ends, too. {RESUME}"
    )

  def _lose(self, sentence: str, status: int, grace: float) -> None:
    """Ends this process because of another one, unless it ends by itself within `grace` seconds."""
    if self._place.index == 0:
      self.tell({"lost": sentence, "status": status, "grace": grace})
    self._lost(sentence, status, grace)
