"""`python -m bit_jax.train`, with a file of marks that shows what it is doing.

    MARKS=FILE python -m experiments.reliability.child --config=...

Each line of the file is a time and a phase. The command itself, from its first import on, is the
same, except that TensorFlow can't be imported, which makes it start sooner.
"""

import functools
import os
import runpy
import sys
import time
from collections.abc import Callable, Sequence
from importlib import machinery
from types import ModuleType
from typing import Any

START, IMPORTS, READING = "start", "imports", "reading"
PREPARING, RESTORING = "preparing", "restoring"
FIRST_STEP, STEPS, MICRO_BATCHES, SAVING = "first step", "steps", "micro-batches", "saving"
EVALUATION, EXPORT, RESULT = "evaluation", "export", "result"
PICTURES, REPORT, END = "pictures", "report", "end"
# In an order in which a run can be stopped in each. START is Python's, before the command's.
PHASES = (
  *(IMPORTS, READING, PREPARING, FIRST_STEP, STEPS, RESTORING, MICRO_BATCHES),
  *(SAVING, EVALUATION, EXPORT, RESULT, PICTURES, REPORT),
)
VARIABLE = "MARKS"
_HIDDEN = ("tensorflow", "tensorboard", "tensorflow_datasets")


def _of_step(loop: Any, *_: Any) -> str:
  return FIRST_STEP if loop._current == loop._first else STEPS


# {module: {function: its phase}}
_PHASES: dict[str, dict[str, str | Callable[..., str]]] = {
  "bit_jax.training.setup": {"load": READING},
  "bit_jax.training.resuming": {"Checkpoints.restore": RESTORING, "Checkpoints.save": SAVING},
  "bit_jax.training.evaluation": {"Evaluator.score": EVALUATION},
  "bit_jax.training.fine_tuning": {"_train": PREPARING},
  "bit_jax.training.loop": {
    "Loop.run": FIRST_STEP,
    "Loop._step": _of_step,
    "Loop._after_step": STEPS,
    "Loop._part_done": MICRO_BATCHES,
  },
  "bit_jax.training.finishing": {"_report": REPORT},
  "bit_jax.runs.results": {"write": RESULT, "draw": PICTURES},
  "bit_jax.weights": {"save": EXPORT},
  "bit_jax.runtime.exits": {"listen": START, "leave": END},
}
# What follows a function, within the one that calls it.
_THEN = {"listen": IMPORTS, "_after_step": STEPS, "_part_done": MICRO_BATCHES}


class Marks:
  """The file of marks, and the phases under way."""

  def __init__(self, path: str):
    """Opens the file."""
    self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    self._phases = [START]
    self._mark()

  def _mark(self) -> None:
    os.write(self._file, f"{time.time()} {self._phases[-1]}\n".encode())

  def within(self, function: Callable[..., Any], phase: str | Callable[..., str]) -> Any:
    """Returns the function; while it runs, its phase is marked."""

    @functools.wraps(function)
    def marked(*arguments: Any, **more: Any) -> Any:
      self._phases.append(phase if isinstance(phase, str) else phase(*arguments))
      self._mark()
      try:
        return function(*arguments, **more)
      finally:
        self._phases.pop()
        self._phases[-1] = _THEN.get(function.__name__, self._phases[-1])
        self._mark()

    return marked


class Finder(machinery.PathFinder):
  """Imports modules as Python does, with their functions marked; some modules it doesn't find."""

  marks: Marks

  @classmethod
  def find_spec(
    cls, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
  ) -> machinery.ModuleSpec | None:
    """Returns how to import a module."""
    if name.partition(".")[0] in _HIDDEN:
      return None
    spec = machinery.PathFinder.find_spec(name, path, target)
    if spec is not None and name in _PHASES:
      loader: Any = spec.loader
      loader.exec_module = functools.partial(cls._execute, loader.exec_module)
    return spec

  @classmethod
  def _execute(cls, execute: Callable[[ModuleType], None], module: ModuleType) -> None:
    execute(module)
    for names, phase in _PHASES[module.__name__].items():
      *owners, name = names.split(".")
      owner = functools.reduce(getattr, owners, module)
      setattr(owner, name, cls.marks.within(getattr(owner, name), phase))


if __name__ == "__main__":
  Finder.marks = Marks(os.environ[VARIABLE])
  sys.meta_path[sys.meta_path.index(machinery.PathFinder)] = Finder
  runpy.run_module("bit_jax.train", run_name="__main__", alter_sys=True)
