"""Several processes as one run, as one of them sees them: they meet, and end together.

They meet at the address of JAX's coordinator, before JAX's own service takes over the port.
"""

import atexit
import contextlib
import os
import re
import sys
import threading
import time
from types import TracebackType
from typing import Any, NoReturn, Self

import jax

from bit_jax.runtime import (
  cluster,
  errors,
  exchange,
  exits,
  machine_errors,
  native_errors,
  output,
  signals,
)

_VERDICT = 10.0  # seconds in which the loss of a process is noticed after an operation failed
_HEARTBEAT = 30  # seconds until JAX gives up a process that is frozen
_FINISHED = "Stopped while the other processes ended; the work of this one is finished."


class Meeting:
  """The processes of a run, as one of them sees them; a context manager around all that it does.

  Leaving the context tells the others how this process ends.
  """

  def __init__(self, place: cluster.Place):
    """Takes the place of this process."""
    self.place = place
    self._exchange = exchange.Exchange(place, self._lost, self._unwatched)
    self._filter: native_errors.Filter | None = None
    self._stack = contextlib.ExitStack()
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
      self._exchange.connect()
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
    """Returns the values that all processes pass, by process: see `exchange.Exchange.gather`."""
    return self._exchange.gather(value)

  def stop_together(self) -> None:
    """Says that all processes have agreed to stop: each may take its time to end."""
    self._together = True

  def _unwatched(self, error: Exception) -> None:
    """Ends this process, which would not notice the loss of another one any more."""
    if not self._leaving:
      self._end(
        f"error: process {self.place.index} can't follow the other processes any more "
        f"({errors.reason(error)}). {exchange.RESUME}",
        1,
      )

  def _lost(self, sentence: str, status: int, grace: float) -> None:
    threading.Thread(target=self._end_after, args=(grace, sentence, status), daemon=True).start()

  def _end_after(self, seconds: float, sentence: str, status: int) -> None:
    time.sleep(seconds)
    if not self._leaving:
      self._end(f"error: {sentence}", status)

  def _aborted(self) -> NoReturn:
    """Runs in a thread of JAX that is about to abort the process."""
    if self._leaving:  # what this process does is done, well or not: JAX's end changes nothing
      time.sleep(exchange.GRACE)  # the main thread is about to end it
      with contextlib.suppress(OSError, ValueError, RuntimeError):
        sys.stdout.flush()
      os._exit(self._status)
    time.sleep(_VERDICT)  # the connection to the process that is lost says more
    line = "" if self._filter is None else self._filter.first_line()
    self._end(f"error: {_aborted_sentence(self.place.index, line)} {exchange.RESUME}", exits.LOST)

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
    self._exchange.linger()
    os._exit(status)

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
        self._exchange.tell(end)
        self._exchange.wait_for_ends()
    else:
      self._exchange.tell(end)
    self._leaving = True
    if not together or error is not None:
      self._exchange.linger()
    self._stack.close()

  def _signalled(self, status: int, sentence: str) -> None:
    """Runs before a signal ends this process at once."""
    if not self._has_ended:  # else they know, and don't need it
      self._exchange.tell({"status": status, "text": sentence, "together": False})
    if self._filter is not None:
      self._filter.settle()
    self._exchange.linger()

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
  if re.search("distributed service|coordination service|heartbeat", line):
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
