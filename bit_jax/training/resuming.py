"""Saves and resumes a run with orbax: parameters, optimiser state and step.

orbax doesn't notice flipped bits in its data files, so every checkpoint has a record with digests.
The last two are kept: if the newest one can't be used, a run resumes from the one before.
"""

import contextlib
import dataclasses
import errno
import functools
import logging
import pathlib
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Self

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils

from bit_jax.runs import run_folder
from bit_jax.runtime import errors, exits, files, machine_errors, processes
from bit_jax.training import checkpoint_record, steps
from bit_jax.training.orbax_handlers import RECORD, RECORD_FILE, STATE, read_arrays, registry

_KEPT = 2  # checkpoints
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
    handlers = registry(*self._can_lock_and_sync)
    return ocp.CheckpointManager(self._folder, options=options, handler_registry=handlers)

  def latest_step(self) -> int:
    """Returns the number of steps done in the newest checkpoint, 0 if there is none.

    It may still be being saved; before `restore`, it may be one that can't be used.
    """
    return self._manager.latest_step() or 0

  def on_disk(self) -> list[int]:
    """Returns the numbers of steps done in the checkpoints of the folder, ascending."""
    return run_folder.checkpoint_steps(self._folder)

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
    items = {STATE: ocp.args.PyTreeSave(host), RECORD: ocp.args.JsonSave(record)}
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
      UserError: There are checkpoints, but none can be used, or one can't be read for a reason that
        is not its own.
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
      UserError: There are checkpoints, but none can be used, or one can't be read for a reason that
        is not its own.
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
    try:
      return self._checked(step, like)
    except checkpoint_record.UnusableError:
      raise
    except Exception as e:
      cause = machine_errors.cause(e)
      if cause is None:
        raise
      path = self._folder / str(step)
      what = f"{cause.filename or path}: {cause.strerror}"
      again = "Fix this, then run the same command again."
      if cause.errno == errno.ENOMEM:  # damage, too, can ask for more memory than there is
        again = f"End other programs, then run the same command again; or else move {path} away."
      raise errors.UserError(
        f"The checkpoint of step {step} can't be read ({what}); it may be intact, and is kept. "
        f"{again}"
      ) from e

  def _checked(self, step: int, like: steps.TrainState) -> "_Found":
    """Returns what a checkpoint holds, checked; raises an `UnusableError`, or the machine's."""
    folder = self._folder / str(step)
    with _unusable(RECORD):
      text = (folder / RECORD / RECORD_FILE).read_bytes()
    record = checkpoint_record.parse(text)
    unchecked = checkpoint_record.is_earlier(record)
    if not unchecked:
      checkpoint_record.require_fitting(record, step, self._run, like)
    elif not self._older:
      raise checkpoint_record.UnusableError("it has no digests, as those of this run have")
    with _unusable(STATE):
      for path in (folder / STATE).iterdir():
        path.stat()  # orbax takes what it may not see for missing
      state = read_arrays(folder / STATE, like)
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
      cause = machine_errors.cause(e)
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
  """Turns any error in reading an item into an `UnusableError`, but those of the machine."""
  try:
    yield
  except FileNotFoundError as e:
    missing = f"{item} is incomplete"
    raise checkpoint_record.UnusableError(missing) from e
  except Exception as e:  # orbax and tensorstore raise all kinds for damaged files
    cause = machine_errors.cause(e)
    if cause is not None and cause.errno not in _OF_THE_FILE:
      raise
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
