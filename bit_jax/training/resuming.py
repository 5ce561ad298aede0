"""Saves and resumes a run with orbax: parameters, optimiser state and step.

orbax doesn't notice flipped bits in its data files, so every checkpoint has a record with digests.
The last two are kept: if the newest one can't be used, a run resumes from the one before.
"""

import asyncio
import contextlib
import copy
import dataclasses
import errno
import functools
import json
import logging
import pathlib
import re
import shutil
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Any, Self

import jax
import numpy as np
import orbax.checkpoint as ocp
import tensorstore
from etils import epath
from jax.experimental import multihost_utils
from orbax.checkpoint import future

from bit_jax.runtime import errors, exits, files, processes
from bit_jax.training import checkpoint_record, steps

_KEPT = 2  # checkpoints
_STATE, _RECORD = "state", "run"  # the items of a checkpoint
_RECORD_FILE = "metadata"  # orbax's name for the file of a JSON item
_OF_THE_FILE = (errno.EIO, errno.EISDIR, errno.EUCLEAN)  # errors of reading that damage can cause
_LEFTOVER = re.compile(r"\d+\.orbax-checkpoint-tmp.*")  # of a save that was interrupted
_NONE, _FAILED = 0, -1  # instead of a step, for other processes


def _is_not_of_orbax(record: logging.LogRecord) -> bool:
  """Returns False for what orbax logs: its steps, and tracebacks of errors that it raises."""
  return "orbax" not in record.pathname


class Checkpoints:
  """The last states of a run, in a folder; a context manager that waits for pending saves."""

  def __init__(self, folder: pathlib.Path, run: str, *, older: bool = False):
    """Opens the folder, which need not exist; the first process removes interrupted saves.

    All processes must call it; only the first one writes.

    Args:
      folder: Absolute path. No other process may save there.
      run: Identifies the run; a checkpoint of another one is not restored.
      older: Whether the run was started by version 0.2 or before, whose checkpoints have no
        digests. Of other runs, a checkpoint without digests is not restored.

    Raises:
      OSError: The folder can't be written.
    """
    logger = logging.getLogger("absl")
    logger.setLevel(logging.WARNING)
    logger.addFilter(_is_not_of_orbax)
    can = None
    if jax.process_index() == 0:
      folder.mkdir(parents=True, exist_ok=True)
      can = files.can_lock_and_sync(folder)
    self._can_lock_and_sync = next(found for found in processes.gather(can) if found)
    self._folder, self._run, self._older = folder, run, older
    self._saving: int | None = None  # the step that is being saved
    self._remove_leftovers()

  @functools.cached_property
  def _manager(self) -> ocp.CheckpointManager:
    """The manager of orbax; opened once the checkpoints that can't be used are set aside."""
    options = ocp.CheckpointManagerOptions(max_to_keep=_KEPT, create=True)
    registry = _handlers(*self._can_lock_and_sync)
    return ocp.CheckpointManager(self._folder, options=options, handler_registry=registry)

  def latest_step(self) -> int:
    """Returns the number of steps done in the newest checkpoint, 0 if there is none.

    It may still be being saved; before `restore`, it may be one that can't be used.
    """
    return self._manager.latest_step() or 0

  def on_disk(self) -> list[int]:
    """Returns the numbers of steps done in the checkpoints of the folder, ascending."""
    return sorted(
      int(p.name) for p in self._folder.iterdir() if re.fullmatch("[1-9][0-9]*", p.name)
    )

  def save(self, state: steps.TrainState, progress: Mapping[str, Any]) -> None:
    """Starts to save a state; the copy is made before this returns.

    Digests are computed in the thread that writes.

    Args:
      state: On devices; they may overwrite it afterwards.
      progress: Numbers and lists of numbers to save with it.

    Raises:
      UserError: This state or the one before can't be written.
    """
    host = jax.tree.map(np.array, jax.device_get(state))
    step = int(host.step)
    if step == self._manager.latest_step():
      return
    self.wait()
    record = functools.partial(checkpoint_record.make, step, self._run, progress, host)
    items = {_STATE: ocp.args.PyTreeSave(host), _RECORD: ocp.args.JsonSave(record)}
    with self._explained(step):
      self._saving = step
      self._manager.save(step, args=ocp.args.Composite(**items))

  def check(self) -> None:
    """Raises the error of a save that has failed meanwhile; doesn't wait.

    Raises:
      UserError: A state can't be written.
    """
    if self._saving is not None and not self._manager.is_saving_in_progress():
      self.wait()

  def wait(self) -> None:
    """Waits until all is on disk.

    Raises:
      UserError: A state can't be written.
    """
    if self._saving is not None:
      try:
        with self._explained(self._saving):
          self._manager.wait_until_finished()
      finally:
        self._saving = None  # not before: a signal may ask for the same

  def restore(
    self, state: steps.TrainState, say: Callable[[str], None]
  ) -> tuple[steps.TrainState, dict[str, Any]] | None:
    """Returns the newest intact state, as numpy arrays, and the progress saved with it.

    Newer checkpoints, which can't be used, are renamed. All processes must call it.

    Args:
      state: One of the same structure, shapes and dtypes.
      say: Gets a line for each checkpoint that can't be used or checked.

    Returns:
      None if there are no checkpoints.

    Raises:
      UserError: There are checkpoints, but none can be used.
    """
    like = jax.tree.map(lambda x: np.empty(x.shape, x.dtype), state)
    found, error = None, None
    if jax.process_index() == 0:
      try:
        found = self._newest(like, say)
      except errors.UserError as e:
        error = e
    if jax.process_count() > 1:
      ours = _FAILED if error else found.step if found else _NONE
      chosen = int(multihost_utils.broadcast_one_to_all(np.int32(ours)))
      if jax.process_index() > 0 and chosen != _NONE:
        found, error = self._as_first_process(chosen, like)
    if error:
      raise error
    return (found.state, found.progress) if found else None

  def _newest(self, like: steps.TrainState, say: Callable[[str], None]) -> "_Found | None":
    """Returns what the newest usable checkpoint holds; renames newer ones.

    Raises:
      UserError: There are checkpoints, but none can be used.
    """
    unusable: dict[int, str] = {}
    for step in reversed(self.on_disk()):
      try:
        found = self._read(step, like)
      except checkpoint_record.UnusableError as e:
        unusable[step] = str(e)
        continue
      for other, reason in unusable.items():
        aside = self._set_aside(other)
        say(
          f"warning: The checkpoint of step {other} in {self._folder} can't be used ({reason}): "
          f"the one of step {step} is used. {aside.name} can be deleted."
        )
      if found.unchecked:
        say(
          f"The checkpoint of step {step} is of an earlier version, without digests of its arrays: "
          f"it is used unchecked."
        )
      return found
    if unusable:
      listed = "; ".join(f"that of step {step}: {reason}" for step, reason in unusable.items())
      raise errors.UserError(
        f"No checkpoint in {self._folder} can be used ({listed}): restore one from a copy, or "
        f"delete that folder to train from the first step again."
      )
    return None

  def _as_first_process(
    self, step: int, like: steps.TrainState
  ) -> "tuple[_Found | None, errors.UserError | None]":
    """Returns what the checkpoint holds that the first process chose, or the error."""
    where = f"in {self._folder}"
    if step == _FAILED:
      return None, errors.UserError(f"The first process found no usable checkpoint {where}.")
    try:
      return self._read(step, like), None
    except checkpoint_record.UnusableError as e:
      return None, errors.UserError(
        f"The checkpoint of step {step} {where}, which the first process read, can't be used by "
        f"process {jax.process_index()} ({e}): all processes need the same folder."
      )

  def _read(self, step: int, like: steps.TrainState) -> "_Found":
    """Returns what a checkpoint holds, checked.

    Raises:
      UnusableError: It is damaged, incomplete, or of another run.
      UserError: It can't be read at the moment, for a reason that is not its own.
    """
    folder = self._folder / str(step)
    with _unusable(_RECORD):
      text = (folder / _RECORD / _RECORD_FILE).read_bytes()
    record = checkpoint_record.parse(text)
    unchecked = checkpoint_record.is_earlier(record)
    if not unchecked:
      checkpoint_record.require_fitting(record, step, self._run, like)
    elif not self._older:
      raise checkpoint_record.UnusableError("it has no digests, as those of this run have")
    with _unusable(_STATE):
      state = _read_arrays(folder / _STATE, like)
    if jax.tree.map(np.shape, state) != jax.tree.map(np.shape, like):
      raise checkpoint_record.UnusableError("it holds arrays of other shapes")  # orbax accepts them
    if not unchecked:
      checkpoint_record.require_intact(record, state)
    if int(state.step) != step:
      raise checkpoint_record.UnusableError(f"it holds the state after step {int(state.step)}")
    return _Found(step, state, record if unchecked else record["progress"], unchecked)

  def _set_aside(self, step: int) -> pathlib.Path:
    """Renames a checkpoint, so that its step can be saved again; returns its new path."""
    aside = self._folder / f"{step}.unusable"
    if aside.exists():
      shutil.rmtree(aside)
    return (self._folder / str(step)).rename(aside)

  def _remove_leftovers(self) -> None:
    """Deletes interrupted saves; each may be as large as a state."""
    if jax.process_index() == 0:
      for path in self._folder.iterdir():
        if _LEFTOVER.fullmatch(path.name):
          shutil.rmtree(path, ignore_errors=True)

  @contextlib.contextmanager
  def _explained(self, step: int) -> Iterator[None]:
    """Turns an error of the machine while a state is saved into a sentence, and frees its space."""
    try:
      yield
    except Exception as e:
      cause = exits.machine_cause(e)
      if cause is None:
        raise
      self._remove_leftovers()
      kept = [s for s in self.on_disk() if s < step]
      rest = f" The state after step {kept[-1]} is kept." if kept else ""
      raise errors.UserError(
        f"The state after step {step} can't be saved in {self._folder} ({cause.strerror}).{rest} "
        f"Fix this, then run the same command again."
      ) from e

  def __enter__(self) -> Self:
    """Returns itself."""
    return self

  def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
    """Waits until all is on disk; an error of the block is raised rather than one of saving.

    A stop is no error: it says that the state is saved.

    Raises:
      UserError: A state can't be written.
    """
    if "_manager" not in self.__dict__:
      return
    stopped = kind is None or issubclass(kind, exits.Interrupted)
    with contextlib.nullcontext() if stopped else contextlib.suppress(Exception):
      self.wait()
      self._manager.close()


@dataclasses.dataclass(frozen=True)
class _Found:
  """What a checkpoint holds: the state after a step, and the progress saved with it."""

  step: int
  state: steps.TrainState
  progress: dict[str, Any]
  unchecked: bool


@contextlib.contextmanager
def _unusable(item: str) -> Iterator[None]:
  """Turns any error in reading an item into an `UnusableError`, unless the machine is at fault."""
  try:
    yield
  except FileNotFoundError as e:
    missing = f"{item} is incomplete"
    raise checkpoint_record.UnusableError(missing) from e
  except Exception as e:  # orbax and tensorstore raise all kinds for damaged files
    cause = exits.machine_cause(e)
    if cause is not None and cause.errno not in _OF_THE_FILE:
      raise errors.UserError(
        f"The checkpoint in {cause.filename} can't be read ({cause.strerror}). Fix this, then run "
        f"the same command again."
      ) from e
    raise checkpoint_record.UnusableError(_named(item, e)) from e


def _named(item: str, error: Exception) -> str:
  """Returns what in an item can't be read, and why, in one line.

  tensorstore names every layer from the array down to the file, and then lists its options.
  """
  text = errors.first_line(error).split(" [tensorstore_spec", 1)[0].split(" [source loc", 1)[0]
  if found := re.fullmatch(r'.*local file ".*?/(state/[^"]*)": (.*)', text):
    file, reason = found.groups()
    array = re.search(r'Error reading "([^"]+)"', text)
    return f"{array[1] if array and file == 'state/' else file}: {reason}"
  return f"the metadata of {item} can't be read, {type(error).__name__}: {text[:200]}"


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
        (directory / _RECORD_FILE).write_text(json.dumps(args.item()))

    return [future.CommitFutureAwaitingContractedSignals(write(), name="record")]


def _read_arrays(folder: pathlib.Path, like: Any) -> Any:
  """Returns the arrays that orbax saved in a folder: a tree as `like` is one."""
  types = jax.tree.map(lambda x: ocp.RestoreArgs(restore_type=np.ndarray, dtype=x.dtype), like)
  return _array_handler(_Arrays()).restore(
    epath.Path(folder), args=ocp.args.PyTreeRestore(like, restore_args=types)
  )


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


def _handlers(locks: bool, syncs: bool) -> Any:
  """Returns orbax's handlers for a file system with or without locks and syncing.

  By default orbax collects all arrays in one database, whose manifest it locks and syncs. Where
  that is impossible, each array has its own files. Either form is restored everywhere.
  """
  options = {"file_io_locking": {"mode": "none"}, "file_io_sync": syncs}
  one_database = locks and syncs
  registry = ocp.handlers.DefaultCheckpointHandlerRegistry()
  registry.add(_RECORD, ocp.args.JsonSave, _RecordHandler())
  arrays = _Arrays(None if one_database else options)
  registry.add(_STATE, ocp.args.PyTreeSave, _array_handler(arrays, one_database))
  return registry
