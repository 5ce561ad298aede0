"""Several processes as one run: they meet, exchange values, and end together.

They meet at the address of JAX's coordinator, before JAX's own service takes over the port. The
connections of that meeting stay: if a process ends, all others know it at once and end as well,
instead of waiting for it in a collective operation.
"""

import atexit
import contextlib
import json
import os
import platform
import queue
import re
import select
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, NoReturn, Self

import jax
import numpy as np
from jax.experimental import multihost_utils

from bit_jax.runtime import (
  cluster,
  errors,
  exits,
  links,
  machine_errors,
  native_errors,
  output,
  rendezvous,
  signals,
)

LOST = 75  # the exit status of a process that lost another one: it may be run again
_GRACE = 3.0  # seconds in which a process may end by its own error instead of another's
_VERDICT = 10.0  # seconds in which the loss of a process is noticed after an operation failed
_HEARTBEAT = 30  # seconds until JAX gives up a process that is frozen
_FINISHED = "Stopped while the other processes ended; the work of this one is finished."
_RESUME = "Run the same command in all processes again to resume."


class Meeting:
  """The processes of a run, as one of them sees them; a context manager around all that it does.

  Leaving the context tells the others how this process ends.
  """

  def __init__(self, place: cluster.Place):
    """Takes the place of this process."""
    self.place = place
    self._hosts = [platform.node()] * place.count
    self._links: dict[int, links.Link] = {}  # process 0 has one to each other, they one to it
    self._filter: native_errors.Filter | None = None
    self._stack = contextlib.ExitStack()
    self._rounds = 0  # of `gather`
    self._given: dict[int, dict[int, Any]] = {}  # {round: {process: value}}, in process 0
    self._gathered: queue.SimpleQueue[list[Any]] = queue.SimpleQueue()
    self._ended: dict[int, int] = {}  # {process: exit status} of those that said so
    self._changed = threading.Condition()
    self._has_ended = False  # like all the others, which it waits for
    self._leaving = False
    self._together = False
    self._status = 0
    self._ending = threading.Lock()

  def __enter__(self) -> Self:
    """Waits until all processes are here.

    Raises:
      UserError: They don't all come, or don't belong together.
    """
    if self.place.count > 1:
      self._links, self._hosts = rendezvous.meet(self.place)
      threading.Thread(target=self._watch, name="processes", daemon=True).start()
      if listener := signals.current():
        listener.before_end = self._signalled
    return self

  def start_jax(self) -> None:
    """Makes the devices of all processes JAX's; waits until all have come this far.

    Raises:
      UserError: JAX can't connect the processes.
    """
    self.gather(None)
    place = self.place
    prefix = f"bit_jax-process-{place.index}-"
    self._filter = self._stack.enter_context(native_errors.filtered(prefix))
    native_errors.on_abort(self._aborted)
    atexit.register(self._leave_after_crash)
    with contextlib.suppress(AttributeError):  # it would take SIGTERM from the run
      jax.config.update("jax_enable_preemption_service", False)
    try:
      jax.distributed.initialize(
        coordinator_address=place.address,
        num_processes=place.count,
        process_id=place.index,
        local_device_ids=place.device_ids,
        heartbeat_timeout_seconds=_HEARTBEAT,
      )
    except (ValueError, RuntimeError) as e:
      raise errors.UserError(f"The processes can't connect to each other: {e}") from e

  def gather(self, value: Any) -> list[Any]:
    """Returns the values that all processes pass, by process; waits for those that are behind.

    Args:
      value: What JSON can hold.
    """
    value = json.loads(json.dumps(value, default=str))
    if self.place.count == 1:
      return [value]
    self._rounds += 1
    if self.place.index == 0:
      self._take(self._rounds, 0, value)
    else:
      self._links[0].send({"round": self._rounds, "value": value})
    return self._gathered.get()

  def stop_together(self) -> None:
    """Says that all processes have agreed to stop: each may take its time to end."""
    self._together = True

  def _take(self, number: int, index: int, value: Any) -> None:
    """Takes a process's value of a round; sends them all once they are complete."""
    with self._changed:
      values = self._given.setdefault(number, {})
      values[index] = value
      if len(values) < self.place.count:
        return
      del self._given[number]
    found = [values[i] for i in range(self.place.count)]
    self._tell({"gathered": found})
    self._gathered.put(found)

  def _watch(self) -> None:
    """Watches the others; an error ends this process, which would not notice a loss any more."""
    try:
      self._read_all()
    except Exception as e:  # nobody else would see it
      if not self._leaving:
        self._end(
          f"error: process {self.place.index} can't follow the other processes any more "
          f"({errors.reason(e)}). {_RESUME}",
          1,
        )

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
            self._links.pop(index, None) if self.place.index == 0 else None
            self._changed.notify_all()
          if not known:
            self._lose(self._lost_sentence(index), LOST, 0)

  def _read(self, index: int, message: links.Message) -> None:
    if "gathered" in message:
      self._gathered.put(message["gathered"])
    elif "round" in message:
      self._take(message["round"], index, message["value"])
    elif "lost" in message:  # process 0 tells the others, and ends
      self._lose(message["lost"], message["status"], message["grace"])
    elif "status" in message:
      with self._changed:
        self._ended[index] = message["status"]
        self._changed.notify_all()
      if not message["together"]:
        said = f"Process {index} on {self._hosts[index]} ended: {message['text']}"
        self._lose(said, message["status"], _GRACE)

  def _lost_sentence(self, index: int) -> str:
    return (
      f"Process {index} on {self._hosts[index]} was lost: it was killed, or its machine or the "
      f"network failed, so that process {self.place.index} ends, too. {_RESUME}"
    )

  def _lose(self, sentence: str, status: int, grace: float) -> None:
    """Ends this process because of another one, unless it ends by itself within `grace` seconds."""
    if self.place.index == 0:
      self._tell({"lost": sentence, "status": status, "grace": grace})
    threading.Thread(target=self._end_after, args=(grace, sentence, status), daemon=True).start()

  def _end_after(self, seconds: float, sentence: str, status: int) -> None:
    time.sleep(seconds)
    if not self._leaving:
      self._end(f"error: {sentence}", status)

  def _aborted(self) -> NoReturn:
    """Runs in a thread of JAX that is about to abort the process."""
    if self._leaving:  # what this process does is done, well or not: JAX's end changes nothing
      time.sleep(_GRACE)  # the main thread is about to end it
      with contextlib.suppress(OSError, ValueError, RuntimeError):
        sys.stdout.flush()
      os._exit(self._status)
    time.sleep(_VERDICT)  # the connection to the process that is lost says more
    line = "" if self._filter is None else self._filter.first_line()
    self._end(f"error: {_aborted_sentence(self.place.index, line)} {_RESUME}", LOST)

  def _end(self, sentence: str, status: int) -> NoReturn:
    """Prints a sentence as the last line, and ends this process whatever its threads do."""
    self._ending.acquire()  # nobody else ends it; never released
    with contextlib.suppress(OSError, ValueError, RuntimeError):
      sys.stdout.flush()
    shown = self._filter
    if shown is None:
      with contextlib.suppress(OSError, ValueError):
        print(sentence, file=sys.stderr, flush=True)
    else:
      time.sleep(0.3)  # JAX notices the same loss at once: its trace goes to the log
      log = "" if shown.log is None else f" Details: {shown.log}"
      shown.say(f"{sentence}{log}")
    self._linger()
    os._exit(status)

  def _linger(self) -> None:
    """Keeps JAX's service until the others have ended, whose JAX would abort without it."""
    if self.place.index == 0:
      until = time.monotonic() + _GRACE + 2
      with self._changed:
        self._changed.wait_for(lambda: not self._links, until - time.monotonic())

  def __exit__(
    self,
    kind: type[BaseException] | None,
    error: BaseException | None,
    trace: TracebackType | None,
  ) -> None:
    """Tells the others how this process ends, and waits for them where all end alike."""
    together = error is None or (self._together and isinstance(error, exits.Interrupted))
    if isinstance(error, Exception) and not isinstance(error, errors.UserError | exits.Interrupted):
      time.sleep(_VERDICT if isinstance(error, jax.errors.JaxRuntimeError) else 0)
    status, text = _outcome(error)
    self._status = status
    end = {"status": status, "text": text, "together": together}
    if together:
      with signals.reacting(lambda: text or _FINISHED):
        self._has_ended = True
        self._tell(end)
        self._wait_for_all()
    else:
      self._tell(end)
    self._leaving = True
    if not together or error is not None:
      self._linger()
    self._stack.close()

  def _signalled(self, status: int, sentence: str) -> None:
    """Runs before a signal ends this process at once."""
    if not self._has_ended:  # else they know, and don't need it
      self._tell({"status": status, "text": sentence, "together": False})
    if self._filter is not None:
      self._filter.settle()
    self._linger()

  def _tell(self, message: links.Message) -> None:
    with self._changed:  # the thread that reads removes those that have ended
      others = list(self._links.values())
    for link in others:
      link.send(message)

  def _wait_for_all(self) -> None:
    others = {*range(self.place.count)} - {self.place.index} if self.place.index == 0 else {0}
    if self.place.count > 1:
      with self._changed:
        self._changed.wait_for(lambda: others <= {*self._ended})

  def _leave_after_crash(self) -> None:
    """Ends the process without JAX's own shutdown, which would wait for the others."""
    if self._status == 1:
      output.finish()
      os._exit(1)


def _aborted_sentence(index: int, line: str) -> str:
  """Returns why JAX aborts a process.

  Args:
    index: The process.
    line: The first that JAX wrote about it.
  """
  if re.search("distributed service|heartbeat", line):
    return (
      f"Process {index} has had no sign of another one for {_HEARTBEAT} s, so that it ends: that "
      f"one is frozen, or its machine or the network failed."
    )
  line = re.sub(r"^[\w./]+:\d+\] ", "", line)  # JAX's source file
  return f"JAX ended process {index}: {line.rstrip('.')}."


def _outcome(error: BaseException | None) -> tuple[int, str]:
  """Returns the exit status of an error, and what other processes say of it."""
  if error is None:
    return 0, ""
  if isinstance(error, errors.UserError):
    return exits.USER_ERROR, str(error)
  if isinstance(error, exits.Interrupted | KeyboardInterrupt):
    number = signals.received()
    return 128 + number, str(error) or signals.unsaved(number)
  if isinstance(error, Exception) and (sentence := machine_errors.sentence(error)):
    return exits.USER_ERROR, sentence
  return 1, f"{errors.reason(error)}. See its own output."


_meetings: list[Meeting] = []  # the one that this process is in


@contextlib.contextmanager
def joined() -> Iterator[Meeting]:
  """Joins the other processes of the run, and stays one of them within this context.

  Raises:
    UserError: The processes don't find each other, or don't belong together.
  """
  with Meeting(cluster.find()) as meeting:
    _meetings.append(meeting)
    try:
      yield meeting
    finally:
      _meetings.clear()


def gather(value: Any) -> list[Any]:
  """Returns the values that all processes of the run pass, by process; all must call it together.

  Args:
    value: What JSON can hold.
  """
  if _meetings:
    return _meetings[-1].gather(value)
  text = np.frombuffer(json.dumps(value, default=str).encode(), np.uint8)
  if jax.process_count() == 1:
    return [json.loads(text.tobytes())]
  lengths = multihost_utils.process_allgather(np.int32(len(text)))  # a program connected them
  padded = np.zeros(int(lengths.max()), np.uint8)
  padded[: len(text)] = text
  rows = multihost_utils.process_allgather(padded)
  return [json.loads(row[:n].tobytes()) for row, n in zip(rows, lengths, strict=True)]


def decided(decide: Callable[[], Any]) -> Any:
  """Returns what the first process decides, in all of them; all must call it together.

  What a process finds in a shared folder may be older than what another one finds there.

  Args:
    decide: Called in the first process alone; returns what JSON can hold. Its error ends all.
  """
  return gather(decide() if jax.process_index() == 0 else None)[0]


def stop_together() -> None:
  """Says that all processes have agreed to stop at the same place."""
  if _meetings:
    _meetings[-1].stop_together()
