"""Orbax's handlers of what a checkpoint holds: its arrays, and a record of them in JSON."""

import asyncio
import copy
import json
import pathlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
import tensorstore
from etils import epath
from orbax.checkpoint import future

STATE, RECORD = "state", "run"  # the items of a checkpoint
RECORD_FILE = "metadata"  # orbax's name for the file of a JSON item


def registry(locks: bool, syncs: bool) -> Any:
  """Returns orbax's handlers for a file system with or without locks and syncing.

  By default orbax collects all arrays in one database, whose manifest it locks and syncs. Where
  that is impossible, each array has its own files. Either form is restored everywhere.
  """
  options = {"file_io_locking": {"mode": "none"}, "file_io_sync": syncs}
  one_database = locks and syncs
  handlers = ocp.handlers.DefaultCheckpointHandlerRegistry()
  handlers.add(RECORD, ocp.args.JsonSave, _RecordHandler())
  arrays = _Arrays(None if one_database else options)
  handlers.add(STATE, ocp.args.PyTreeSave, _array_handler(arrays, one_database))
  return handlers


def read_arrays(folder: pathlib.Path, like: Any) -> Any:
  """Returns the arrays that orbax saved in a folder: a tree as `like` is one."""
  types = jax.tree.map(lambda x: ocp.RestoreArgs(restore_type=np.ndarray, dtype=x.dtype), like)
  return _array_handler(_Arrays()).restore(
    epath.Path(folder), args=ocp.args.PyTreeRestore(like, restore_args=types)
  )


class _RecordHandler(ocp.JsonCheckpointHandler):  # type: ignore[misc]  # orbax has no types
  """Writes a record that is made in the thread that saves: digests of large states take seconds."""

  async def async_save(
    self,
    directory: epath.Path,
    item: Any = None,
    args: ocp.args.JsonSave | None = None,
  ) -> list[future.Future]:
    """Starts to write what the item of `args`, a function, returns; only the first process does."""
    del item
    assert args is not None

    async def write() -> None:
      if jax.process_index() == 0:
        (directory / RECORD_FILE).write_text(json.dumps(args.item()))

    return [future.CommitFutureAwaitingContractedSignals(write(), name="record")]


def _array_handler(arrays: "_Arrays", one_database: bool = True) -> ocp.PyTreeCheckpointHandler:
  registry = ocp.type_handlers.create_type_handler_registry((np.ndarray, arrays))
  return ocp.PyTreeCheckpointHandler(use_ocdbt=one_database, type_handler_registry=registry)


class _Arrays(ocp.type_handlers.NumpyHandler):  # type: ignore[misc]
  """Reads and writes arrays as orbax does; waits for all before it raises the error of one.

  orbax raises it at once: the others then return to an event loop that is closed, and each prints a
  traceback.
  """

  def __init__(self, options: Mapping[str, Any] | None = None):
    """Takes options of tensorstore for writing, which orbax doesn't offer."""
    super().__init__()
    self._options = options

  async def serialize(
    self,
    values: Sequence[np.ndarray],
    infos: Sequence[ocp.type_handlers.ParamInfo],
    args: Sequence[ocp.type_handlers.SaveArgs] | None = None,
  ) -> Any:
    """Starts to write arrays."""
    if self._options is not None:
      context = tensorstore.Context(self._options)
      infos = [copy.copy(info) for info in infos]
      for info in infos:
        info.ts_context = context
    return await super().serialize(values, infos, args)

  async def _background_serialize(self, *lists: Sequence[Any]) -> None:
    """Writes arrays, in the thread that saves; orbax calls it."""
    await _each(super()._background_serialize, *lists)

  async def deserialize(
    self,
    infos: Sequence[ocp.type_handlers.ParamInfo],
    args: Sequence[ocp.type_handlers.RestoreArgs] | None = None,
  ) -> list[np.ndarray]:
    """Returns arrays."""
    arguments = args or [ocp.RestoreArgs()] * len(infos)
    return [array for one in await _each(super().deserialize, infos, arguments) for array in one]


async def _each(do: Callable[..., Awaitable[Any]], *lists: Sequence[Any]) -> list[Any]:
  """Calls a function with lists of one element each, concurrently; returns all results.

  Raises:
    Exception: The first error, once every call has ended.
  """
  calls = (do(*([one] for one in each)) for each in zip(*lists, strict=True))
  results = await asyncio.gather(*calls, return_exceptions=True)
  if failed := [result for result in results if isinstance(result, BaseException)]:
    raise failed[0]
  return results
