"""Several processes as one run: what all of them do together."""

import contextlib
import json
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from bit_jax.runtime import cluster, meeting

_meetings: list[meeting.Meeting] = []  # the one that this process is in


@contextlib.contextmanager
def joined() -> Iterator[meeting.Meeting]:
  """Joins the other processes of the run, and stays one of them within this context.

  Raises:
    UserError: The processes don't find each other, or don't belong together.
  """
  with meeting.Meeting(cluster.find()) as met:
    _meetings.append(met)
    try:
      yield met
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
