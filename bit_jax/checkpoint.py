"""Saves and resumes a run: parameters, optimiser state and step, through orbax."""

import logging
import pathlib
from types import TracebackType
from typing import Any, Self

import jax
import numpy as np
import orbax.checkpoint as ocp

from bit_jax import errors, steps


class Checkpoints:
  """The newest state of a run, in a folder; a context manager that waits for saves under way."""

  def __init__(self, folder: pathlib.Path):
    """Opens the folder, which need not exist.

    Args:
      folder: Absolute path.
    """
    logging.getLogger("absl").setLevel(logging.WARNING)  # orbax tells of every step it takes
    options = ocp.CheckpointManagerOptions(max_to_keep=1, create=True)
    self._folder = folder
    self._manager = ocp.CheckpointManager(folder, options=options)

  def latest_step(self) -> int:
    """Returns the number of steps done in the newest checkpoint, 0 if there is none."""
    return self._manager.latest_step() or 0

  def save(self, state: steps.TrainState, progress: dict[str, float]) -> None:
    """Starts to save a state; the copy is made before this returns.

    Args:
      state: On devices; they may overwrite it afterwards.
      progress: What to know of the run besides.
    """
    copy = jax.tree.map(np.array, jax.device_get(state))
    step = int(copy.step)
    if step == self._manager.latest_step():
      return
    self._manager.save(
      step,
      args=ocp.args.Composite(state=ocp.args.StandardSave(copy), run=ocp.args.JsonSave(progress)),
    )

  def restore(self, state: steps.TrainState) -> tuple[steps.TrainState, dict[str, float]]:
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
      reason = str(e).splitlines()[0] if str(e) else type(e).__name__
      raise self._unusable(step, reason) from e
    if jax.tree.map(np.shape, restored.state) != jax.tree.map(np.shape, like):
      raise self._unusable(step, "it holds arrays of other shapes")  # orbax doesn't mind
    return restored.state, restored.run

  def _unusable(self, step: int, reason: str) -> errors.UserError:
    return errors.UserError(
      f"The checkpoint of step {step} in {self._folder} can't be read ({reason}): delete it to "
      f"start the run anew."
    )

  def __enter__(self) -> Self:
    """Returns itself."""
    return self

  def __exit__(
    self,
    kind: type[BaseException] | None,
    error: BaseException | None,
    traceback: TracebackType | None,
  ) -> None:
    """Waits until all is on disk."""
    self._manager.close()
