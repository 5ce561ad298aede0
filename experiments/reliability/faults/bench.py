"""An undisturbed run, copies of it that are to be disturbed, and how they end."""

import contextlib
import dataclasses
import errno
import os
import pathlib
import shutil
from collections.abc import Iterator
from typing import Any
from unittest import mock

import numpy as np

from bit_jax import train, weights
from bit_jax.models import architectures
from bit_jax.runs import run_folder
from bit_jax.runtime import exits
from bit_jax.training import optimizer, steps
from experiments.reliability import small_runs
from experiments.reliability.faults.captured import captured

ROOT = pathlib.Path(__file__).parents[3]
_MODEL, _CLASSES, _SIDE = "R14x0.5", 3, 40
_FIELDS: dict[str, Any] = {
  "batch_size": 8,
  "resize": 40,
  "crop": 32,
  "total_steps": 8,
  "log_every": 2,
  "eval_every": 3,
  "checkpoint_every": 3,
  "eval_batch_size": 12,
  "mixup_alpha": 0.2,
  "keep_best": True,
}
_SENTENCE = "error: "
# What a run may print to standard error besides its error.
_REMARKS = ("warning: ", "Compiled programs can't be stored in ")


class Bench:
  """An undisturbed run, and the same run before its last files are written.

  Attributes:
    folder: For everything temporary.
    whole: The folder of the undisturbed run.
    unfinished: The folder of a run that has taken all its steps, with its last two checkpoints.
  """

  def __init__(self, folder: pathlib.Path):
    """Makes both runs."""
    self.folder, self.whole, self.unfinished = folder, folder / "whole", folder / "unfinished"
    self._images = folder / "images.npz"
    _write_images(self._images)
    ended = self.train(self.whole)
    assert ended.status == 0, ended.text
    with _failing_export():
      ended = self.train(self.unfinished)
    assert ended.status == exits.USER_ERROR, ended.text

  def arguments(self, workdir: pathlib.Path) -> list[str]:
    """Returns the command line of the run, after the program's name."""
    config = f"configs/npz.py:model={_MODEL},weights=none,seed=3,path={self._images}"
    fields = [f"--config.{name}={value}" for name, value in _FIELDS.items()]
    return [f"--config={ROOT}/{config}", f"--workdir={workdir}", *fields]

  def train(self, workdir: pathlib.Path) -> "Ended":
    """Runs the command in this process, where programs are compiled once."""
    with captured() as output:
      status = exits.run(train.main, ["train", *self.arguments(workdir)], needs_reader=False)
    return Ended(status, *output)

  def state(self) -> steps.TrainState:
    """Returns a state of the run's network."""
    architecture, path = architectures.find(_MODEL), self.whole / run_folder.WEIGHTS
    loaded = weights.load(path, architecture, head="keep", num_classes=_CLASSES)
    return steps.create_state(loaded.params, optimizer.sgd(0.9))

  def copy(self, name: str, into: pathlib.Path | None = None) -> pathlib.Path:
    """Returns a fresh copy of the unfinished run."""
    copied = (into or self.folder) / name
    shutil.rmtree(copied, ignore_errors=True)
    return pathlib.Path(shutil.copytree(self.unfinished, copied))

  def differences(self, workdir: pathlib.Path) -> list[str]:
    """Returns in what a finished run differs from the undisturbed one."""
    files = ("model.npz", "per_class.csv", "confusion.csv", "mistakes.csv", "classes.txt")
    found = [name for name in files if _content(workdir / name) != _content(self.whole / name)]
    if small_runs.rows(workdir) != small_runs.rows(self.whole):
      found.append("metrics.jsonl")
    result, expected = run_folder.finished(workdir), run_folder.finished(self.whole)
    assert expected is not None
    names = ("loss", "top1", "best_step", "steps", "warnings")
    if result is None or any(result[n] != expected[n] for n in names):
      found.append("result.json")
    return found


@dataclasses.dataclass(frozen=True)
class Ended:
  """How a command ended: exit status, standard output, and standard error."""

  status: int
  out: str
  err: str

  @property
  def text(self) -> str:
    """All that it printed."""
    return self.out + self.err

  def is_one_sentence(self) -> bool:
    """Returns whether it was refused with one sentence, and nothing else on standard error."""
    lines = self.err.splitlines()
    sentences = [line for line in lines if line.startswith(_SENTENCE)]
    others = [line for line in lines if not line.startswith((_SENTENCE, *_REMARKS))]
    return self.status == exits.USER_ERROR and len(sentences) == 1 and not others

  def is_clean(self) -> bool:
    """Returns whether it succeeded, with warnings at most."""
    return self.status == 0 and all(s.startswith(_REMARKS) for s in self.err.splitlines())


@contextlib.contextmanager
def _failing_export() -> Iterator[None]:
  """Within this context, a run's last weights can't be written."""
  save = weights.save

  def fail(path: pathlib.Path, *more: Any, **options: Any) -> None:
    if path.name == run_folder.WEIGHTS:
      raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
    save(path, *more, **options)

  with mock.patch.object(weights, "save", fail):
    yield


def _content(path: pathlib.Path) -> bytes | None:
  return path.read_bytes() if path.exists() else None


def _write_images(path: pathlib.Path) -> None:
  """Writes noise in three colours, one a class."""
  random = np.random.default_rng(0)
  arrays: dict[str, np.ndarray] = {}
  for part, count in (("train", 36), ("test", 12)):
    labels = np.arange(count) % _CLASSES
    images = random.integers(0, 128, (count, _SIDE, _SIDE, 3))
    images[np.arange(count), :, :, labels] += 60
    arrays |= {f"{part}_images": images.astype(np.uint8), f"{part}_labels": labels}
  np.savez(path, **arrays)  # type: ignore[arg-type]  # its stub takes any name for a flag
