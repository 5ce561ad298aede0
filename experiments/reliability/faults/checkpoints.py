"""Damages the newest of two checkpoints in many ways, and restores each time."""

import json
import pathlib
import shutil
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from bit_jax.runs import run_folder
from bit_jax.runtime import errors
from bit_jax.training import optimizer, resuming, steps
from experiments.reliability.faults.captured import captured
from experiments.reliability.faults.tally import Tally

_LARGE = 4  # times as many flips in the file of the arrays


def damage_checkpoints(
  target: "Target", tally: Tally, random: np.random.Generator, flips: int
) -> None:
  """Damages the newest of two checkpoints in many ways, and restores each time."""
  for path in target.files():
    name, size = str(path.relative_to(target.intact)), path.stat().st_size
    content = path.read_bytes()
    for position in random.integers(size, size=flips * (_LARGE if size > 1e6 else 1)):
      flipped = bytearray(content)
      flipped[position] ^= 1 << int(random.integers(8))
      target.check(tally, "a flipped bit", f"{name} at {position}", _writing(name, bytes(flipped)))
    for length in {0, size // 2, size - 1}:
      target.check(tally, "a cut file", f"{name} to {length}", _writing(name, content[:length]))
    target.check(tally, "a missing file", name, _removing(name))
  for name in ("state", "run", "state/d", "state/ocdbt.process_0"):
    target.check(tally, "a missing folder", name, _removing(name))
  for name, damage in _foreign(target).items():
    target.check(tally, "a foreign checkpoint", name, damage)
  target.check_older(tally, "only the one before damaged", "harmless")
  target.check_older(tally, "both damaged", "refused")


class Target:
  """The two checkpoints of a run: the newest is damaged and made anew.

  Attributes:
    like: A state of the run's network.
    run: What identifies the run in its checkpoints.
    intact: A copy of the newest checkpoint.
  """

  def __init__(self, folder: pathlib.Path, like: steps.TrainState):
    """Takes the folder of the checkpoints and a state of the network."""
    self._folder, self.like = folder, like
    self._before, self._newest = sorted(int(p.name) for p in folder.iterdir())
    self.intact = folder.parent / "intact"
    shutil.copytree(folder / str(self._newest), self.intact)
    self.run = json.loads((self.intact / "run" / "metadata").read_text())["run"]
    self._states = {self._newest: self._restore()[0]}
    shutil.move(folder / str(self._newest), folder.parent / "aside")
    self._states[self._before] = self._restore()[0]
    shutil.move(folder.parent / "aside", folder / str(self._newest))

  @property
  def path(self) -> pathlib.Path:
    """The newest checkpoint."""
    return self._folder / str(self._newest)

  def files(self) -> list[pathlib.Path]:
    """Returns the files of the intact copy."""
    return sorted(p for p in self.intact.rglob("*") if p.is_file())

  def _restore(self) -> tuple[Any, list[str]]:
    lines: list[str] = []
    with resuming.Checkpoints(self._folder, self.run) as checkpoints:
      found = checkpoints.restore(self.like, lines.append)
    assert found is not None
    return found[0], lines

  def check(
    self, tally: Tally, kind: str, details: str, damage: Callable[[pathlib.Path], object]
  ) -> None:
    """Damages the newest checkpoint, restores, counts how that ended, and repairs it."""
    damage(self.path)
    with captured() as output:
      try:
        end = self._end(*self._restore())
      except Exception as e:
        end, details = "lost", f"{details}: {type(e).__name__}: {e}"
    if "".join(output):
      end, details = "lost", f"{details}: {''.join(output)[:2000]}"
    tally.add(kind, end, details)
    self.repair()

  def check_older(self, tally: Tally, kind: str, expected: str) -> None:
    """Damages the one before, and the newest if that must be refused; then as `check`."""
    older = self._folder / str(self._before)
    kept = shutil.copytree(older, self._folder.parent / "older")
    (older / "run" / "metadata").write_bytes(b"{}")
    if expected == "refused":
      (self.path / "run" / "metadata").write_bytes(b"{}")
    try:
      end = self._end(*self._restore())
    except errors.UserError as e:
      end = "refused" if "\n" not in str(e) else "lost"
    tally.add(kind, end if end == expected else "lost", end)
    self.repair()
    shutil.rmtree(older)
    shutil.move(kept, older)

  def _end(self, state: Any, lines: Sequence[str]) -> str:
    step = int(state.step)
    if not _equal(state, self._states.get(step)):
      return "lost"
    if step == self._newest:
      return "lost" if lines else "harmless"
    return "recovered" if len(lines) == 1 and "\n" not in lines[0] else "lost"

  def repair(self) -> None:
    """Puts the intact checkpoint back."""
    for path in (self.path, self.path.with_suffix(".unusable")):
      shutil.rmtree(path, ignore_errors=True)
    shutil.copytree(self.intact, self.path)


def _foreign(target: Target) -> dict[str, Callable[[pathlib.Path], object]]:
  """Returns {what: puts it in place of the newest checkpoint}."""

  def of_another_step(checkpoint: pathlib.Path) -> None:
    shutil.rmtree(checkpoint)
    (before,) = run_folder.checkpoint_steps(checkpoint.parent)
    shutil.copytree(checkpoint.with_name(str(before)), checkpoint)

  def saved(state: steps.TrainState, run: str) -> Callable[[pathlib.Path], None]:
    def put(checkpoint: pathlib.Path) -> None:
      shutil.rmtree(checkpoint)
      there = checkpoint.parents[1] / "foreign"
      shutil.rmtree(there, ignore_errors=True)
      there.mkdir()
      with resuming.Checkpoints(there, run) as checkpoints:
        checkpoints.restore(state, print)
        step = np.int32(checkpoint.name)
        checkpoints.save(state.replace(step=step), {"seconds": 1.0, "timed_steps": 1})
      shutil.move(there / checkpoint.name, checkpoint)

    return put

  def without_digests(checkpoint: pathlib.Path) -> None:
    text = json.dumps({"seconds": 1.0, "timed_steps": 7})
    (checkpoint / "run" / "metadata").write_text(text)

  small = steps.create_state({"a": np.ones((3, 4), np.float32)}, optimizer.sgd(0.9))
  return {
    "another step": of_another_step,
    "another network": saved(small, target.run),
    "another run": saved(target.like, "another"),
    "no digests": without_digests,
  }


def _writing(name: str, content: bytes) -> Callable[[pathlib.Path], object]:
  return lambda checkpoint: (checkpoint / name).write_bytes(content)


def _removing(name: str) -> Callable[[pathlib.Path], object]:
  def remove(checkpoint: pathlib.Path) -> None:
    path = checkpoint / name
    shutil.rmtree(path) if path.is_dir() else path.unlink()

  return remove


def _equal(a: Any, b: Any) -> bool:
  pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
  return b is not None and all(np.asarray(x).tobytes() == np.asarray(y).tobytes() for x, y in pairs)
