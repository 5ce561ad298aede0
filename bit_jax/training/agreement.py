"""What the processes of a run agree on: its config, data and weights, its folder, and when to stop.

Every process takes the same steps, so one with another config would train something else, or wait
for the others for ever. With one process all of this is nothing.
"""

import functools
import os
import pathlib
import platform
import time
import uuid
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from bit_jax.data import opening
from bit_jax.run_config import RunConfig
from bit_jax.runtime import differences, errors, parallel, processes, signals, stopping

# Fields in which processes may differ: places on their own disks, and notes.
_OWN = ("data_dir", "decoded_cache", "reason")
_VISIBLE = 10.0  # seconds until a new file is seen through a network's file system


def require_same(values: Mapping[str, Any]) -> None:
  """Compares values with those of the other processes, which must call it, too.

  Args:
    values: {what: value}, of what JSON can hold.

  Raises:
    UserError: A value differs; the message names it, and the processes.
  """
  if jax.process_count() > 1 and (found := differences.sentence(processes.gather(values))):
    raise errors.UserError(found)


def require_same_run(config: RunConfig, data: opening.Opened) -> None:
  """Compares config and data with those of the other processes.

  Raises:
    UserError: They differ.
  """
  if jax.process_count() == 1:
    return
  fields = {name: value for name, value in config.to_dict().items() if name not in _OWN}
  version, chosen_on, content = data.identity()
  spec = data.spec
  require_same(
    {
      **fields,
      "the data": version,
      "the validation part": chosen_on,
      "the content of the images": content,
      "training images": spec.num_train,
      "test images": spec.num_test,
      "classes": spec.num_classes,
    }
  )


def connect() -> None:
  """Lets the devices of all processes find each other.

  On CPU they give up after half a minute. Later, a process may compile or read for longer than
  another; here, all have just said that they are ready.
  """
  if jax.process_count() > 1:
    processes.gather(None)
    multihost_utils.process_allgather(np.int32(0))
    jax.block_until_ready(_largest(parallel.send(np.zeros(jax.local_device_count(), np.int32))))


def devices_of_processes() -> str | None:
  """Returns which process has which devices, a line for each; None of a single one.

  Raises:
    UserError: They don't have the same number of devices.
  """
  if jax.process_count() == 1:
    return None
  local = jax.local_devices()
  ours = {"host": platform.node(), "kind": local[0].device_kind, "devices": len(local)}
  found = processes.gather(ours)
  lines = [
    f"  process {index}: {one['devices']} x {one['kind']} on {one['host']}"
    for index, one in enumerate(found)
  ]
  if len({one["devices"] for one in found}) > 1:
    listed = "; ".join(line.strip() for line in lines)
    raise errors.UserError(
      f"The processes have different numbers of devices ({listed}): give each the same number."
    )
  return "\n".join([f"{len(lines)} processes:", *lines])


def require_shared(folder: pathlib.Path) -> None:
  """Checks that all processes see the folder that the first one writes.

  Raises:
    UserError: A process sees another folder, or none.
  """
  if jax.process_count() == 1:
    return
  mark = None
  if jax.process_index() == 0:
    mark = folder / f".seen-by-all.{uuid.uuid4().hex}"  # a temporary: see `files`
    mark.touch()
  try:
    names = processes.gather(None if mark is None else mark.name)
    name = next(name for name in names if name is not None)
    sees = processes.gather([appears(folder / name), f"{folder} on {platform.node()}"])
  finally:
    if mark is not None:
      mark.unlink(missing_ok=True)
  blind = [f"process {i} ({where})" for i, (seen, where) in enumerate(sees) if not seen]
  if blind:
    writer = next(where for name, (_, where) in zip(names, sees, strict=True) if name is not None)
    raise errors.UserError(
      f"The run folder is not shared: what the first process writes in {writer} is not seen by "
      f"{', '.join(blind)}. Give all processes the same --workdir on a disk that they share."
    )


def appears(path: pathlib.Path) -> bool:
  """Returns whether a file that another process has written is seen, at the latest in a while."""
  until = time.monotonic() + _VISIBLE
  while not path.exists():
    if time.monotonic() > until:
      return False
    for folder in (path.parent.parent, path.parent):
      if folder.is_dir():
        os.listdir(folder)  # asks a network's file system again
    time.sleep(0.5)
  return True


@functools.partial(parallel.over_devices, in_axes=0, out_axes=None)
def _largest(number: jax.Array) -> jax.Array:
  largest: jax.Array = jax.lax.pmax(number, parallel.AXIS)
  return largest


class Vote:
  """Stops all processes at the same place, whichever of them is asked to stop.

  At each place the devices compute the largest of all processes' signals. It is read at the next
  one, when it is long known, so that no step waits for another machine.
  """

  def __init__(self) -> None:
    self._sent: Any = None

  def agreed(self, stop: stopping.StopRequest) -> bool:
    """Returns whether any process was asked to stop before the last place.

    All of them end with the status of one that got a signal.
    """
    listener, number, earlier = signals.current(), 0, self._sent
    if stop.requested:
      number = signals.received()
    row = np.full(jax.local_device_count(), number, np.int32)
    self._sent = _largest(parallel.send(row))
    largest = 0 if earlier is None else int(earlier)
    if largest:
      processes.stop_together()
      if listener:
        listener.note(largest)
    return largest > 0
