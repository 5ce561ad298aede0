"""Saves and resumes a run with orbax: parameters, optimiser state and step."""

import copy
import logging
import pathlib
from collections.abc import Sequence
from typing import Any, Self

import jax
import numpy as np
import orbax.checkpoint as ocp
import tensorstore

from bit_jax.runtime import errors, files
from bit_jax.training import steps


def _is_not_raised(record: logging.LogRecord) -> bool:
  """Returns False for orbax's errors, which it logs with their tracebacks before it raises them."""
  return record.levelno < logging.ERROR or "orbax" not in record.pathname


class Checkpoints:
  """The newest state of a run, in a folder; a context manager that waits for pending saves."""

  def __init__(self, folder: pathlib.Path):
    """Opens the folder, which need not exist.

    Args:
      folder: Absolute path.

    Raises:
      OSError: The folder can't be written.
    """
    logger = logging.getLogger("absl")
    logger.setLevel(logging.WARNING)  # orbax logs each of its steps
    logger.addFilter(_is_not_raised)
    options = ocp.CheckpointManagerOptions(max_to_keep=1, create=True)
    folder.mkdir(parents=True, exist_ok=True)
    locks, syncs = files.can_lock_and_sync(folder)
    registry = None if locks and syncs else _without_locks(syncs)
    self._folder = folder
    self._save_args = ocp.args.StandardSave if registry is None else ocp.args.PyTreeSave
    self._manager = ocp.CheckpointManager(folder, options=options, handler_registry=registry)

  def latest_step(self) -> int:
    """Returns the number of steps done in the newest checkpoint, 0 if there is none."""
    return self._manager.latest_step() or 0

  def wait(self) -> None:
    """Waits until what was saved is on disk."""
    self._manager.wait_until_finished()

  def save(self, state: steps.TrainState, progress: dict[str, Any]) -> None:
    """Starts to save a state; the copy is made before this returns.

    Args:
      state: On devices; they may overwrite it afterwards.
      progress: What to save with it, as JSON.
    """
    host = jax.tree.map(np.array, jax.device_get(state))
    step = int(host.step)
    if step == self._manager.latest_step():
      return
    self._manager.save(
      step,
      args=ocp.args.Composite(state=self._save_args(host), run=ocp.args.JsonSave(progress)),
    )

  def restore(self, state: steps.TrainState) -> tuple[steps.TrainState, dict[str, Any]]:
    """Returns the newest state, as numpy arrays, and the progress saved with it.

    Args:
      state: One of the same structure, shapes and dtypes.

    Raises:
      UserError: The checkpoint can't be read.
    """
    step = self.latest_step()
    like = jax.tree.map(lambda x: np.empty(x.shape, x.dtype), state)
    try:
      restored: Any = self._manager.restore(
        step,
        args=ocp.args.Composite(state=ocp.args.StandardRestore(like), run=ocp.args.JsonRestore()),
      )
    except (OSError, ValueError, KeyError) as e:
      raise self._unusable(step, errors.first_line(e)) from e
    if jax.tree.map(np.shape, restored.state) != jax.tree.map(np.shape, like):
      raise self._unusable(step, "it holds arrays of other shapes")  # orbax accepts them
    return restored.state, restored.run

  def _unusable(self, step: int, reason: str) -> errors.UserError:
    return errors.UserError(
      f"The checkpoint of step {step} in {self._folder} can't be read ({reason}): delete it to "
      f"restart the run."
    )

  def __enter__(self) -> Self:
    """Returns itself."""
    return self

  def __exit__(self, *_: object) -> None:
    """Waits until all is on disk."""
    self._manager.close()


class _WithoutLocks(ocp.type_handlers.NumpyHandler):  # type: ignore[misc]  # orbax has no types
  """Writes arrays where files can't be locked, or not synced; the run folder has its own lock."""

  def __init__(self, sync: bool):
    """Takes whether files are synced to disk."""
    super().__init__()
    self._options = {"file_io_locking": {"mode": "none"}, "file_io_sync": sync}

  async def serialize(
    self,
    values: Sequence[np.ndarray],
    infos: Sequence[ocp.type_handlers.ParamInfo],
    args: Sequence[ocp.type_handlers.SaveArgs] | None = None,
  ) -> Any:
    """Writes arrays as orbax does, with options of tensorstore that orbax doesn't offer."""
    context = tensorstore.Context(self._options)
    infos = [copy.copy(info) for info in infos]
    for info in infos:
      info.ts_context = context
    return await super().serialize(values, infos, args)


def _without_locks(sync: bool) -> Any:
  """Returns orbax's handlers for a file system without locks, or without syncing.

  By default orbax collects all arrays in one database, whose manifest it locks and syncs. Here each
  array has its own files. Either form is restored everywhere.
  """
  logging.getLogger("absl").setLevel(logging.ERROR)  # orbax warns that there is no such database
  arrays = ocp.type_handlers.create_type_handler_registry((np.ndarray, _WithoutLocks(sync)))
  plain = ocp.PyTreeCheckpointHandler(use_ocdbt=False, type_handler_registry=arrays)
  numbers = ocp.JsonCheckpointHandler()
  registry = ocp.handlers.DefaultCheckpointHandlerRegistry()
  registry.add("state", ocp.args.PyTreeSave, plain)
  registry.add("state", ocp.args.StandardRestore, ocp.StandardCheckpointHandler())
  registry.add("run", ocp.args.JsonSave, numbers)
  registry.add("run", ocp.args.JsonRestore, numbers)
  return registry
