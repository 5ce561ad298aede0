"""Sweep files, and the runs that they yield.

A sweep file is a Python file with a function that yields runs:

    from bit_jax.configs import cifar10
    from experiments.sweeping import grid

    def get_runs():
      for shots in (1, 5):
        yield grid.Run(cifar10.get_config(f"model=BiT-M-R50x1,shots={shots}"))

A run's folder is named as `python -m bit_jax.train` names it: a run with a changed config is
another run, and a config that is listed twice is one run.
"""

import dataclasses
import fnmatch
import hashlib
import os
import runpy
from typing import Any

from bit_jax import run_config
from bit_jax.data import datasets
from bit_jax.runtime import errors, user_files

_MODEL = "model.npz"
_FEW_STEPS = 100


@dataclasses.dataclass(frozen=True, eq=False)
class Run:
  """A run of a sweep file.

  Attributes:
    config: A request with the fields of `run_config.RunConfig`, as a config file returns it.
    start: The initialisation of the network, for tables and figures; None: the name of its
      checkpoint.
    initialised_from: An earlier run of the sweep whose weights this one starts from, instead of
      `config.weights`; it waits for that run.
  """

  config: run_config.Request
  start: str | None = None
  initialised_from: "Run | None" = None

  def __post_init__(self) -> None:
    """Copies the config, which the file may change for the next run."""
    object.__setattr__(self, "config", self.config.copy_and_resolve_references())


@dataclasses.dataclass(frozen=True)
class Planned:
  """A run with its resolved config, or with the reason why it can't be run.

  Attributes:
    name: Name of its folder.
    config: A `RunConfig`, or the request if there is a mistake; weights of an earlier run are a
      path below the sweep's folder.
    spec: The data set, unless there is a mistake.
    labels: Its labels in tables and figures: 'start'.
    after: Name of the run that must be finished before, or None.
    mistake: One sentence about why it can't be run, or None.
  """

  name: str
  config: Any
  spec: datasets.DatasetSpec | None
  labels: dict[str, str]
  after: str | None
  mistake: str | None


def scored_at_the_end(config: run_config.Request) -> run_config.Request:
  """Returns the config with a single evaluation, after its last step.

  Args:
    config: With the fields that set its length; changed in place.

  Raises:
    UserError: A field has a value that can't be used.
  """
  steps = run_config.prepare(config)[0].total_steps
  config.eval_every = steps
  config.checkpoint_every = checkpoint_every(steps)
  return config


def checkpoint_every(total_steps: int) -> int:
  """Returns the steps between two saves: a twentieth of the run, but at least 100."""
  return max(_FEW_STEPS, total_steps // 20)


def load(path: str, only: str | None = None) -> list[Planned]:
  """Returns the runs of a sweep file, each once, in its order.

  Needs no weights, and of the data only the description of the user's own images (`data_path`).

  Args:
    path: The sweep file.
    only: Selects runs whose name matches this pattern (`fnmatch`), and those that they start from.

  Raises:
    UserError: The file doesn't exist or fails, or it yields something else, or nothing.
  """
  planned: dict[str, Planned] = {}
  names: dict[Run, str] = {}
  for run in _yielded(path):
    one = _plan(run, names, path)
    names[run] = one.name
    if one.name not in planned or not planned[one.name].labels:
      planned[one.name] = one
  chosen = {name for name in planned if only is None or fnmatch.fnmatch(name, only)}
  for name, one in reversed(planned.items()):  # each comes after the one that it starts from
    if name in chosen and one.after is not None:
      chosen.add(one.after)
  if not chosen:
    which = "" if only is None else f" with a name that matches {only!r}"
    if only and not set(only) & set("*?["):
      which += f": a pattern matches the whole name, try '*{only}*'"
    raise errors.UserError(f"The sweep file {path} yields no run{which}.")
  return [one for name, one in planned.items() if name in chosen]


def _yielded(path: str) -> list[Run]:
  """Returns the runs of `get_runs()` of a sweep file."""
  if not os.path.isfile(path):
    raise errors.UserError(
      f"There is no sweep file {path!r}: pass its path, such as --config=experiments/fewshot.py."
    )
  user_files.add_to_import_path(path)
  try:
    get_runs = runpy.run_path(path).get("get_runs")
    if get_runs is None:
      raise errors.UserError("it has no function get_runs() that yields runs.")
    runs: list[Run] = list(get_runs() or ())
  except errors.UserError as e:
    line = user_files.line_in(path, e)
    where = "" if line is None else f" (line {line})"
    raise errors.UserError(f"The sweep file {path} can't be used{where}: {e}") from e
  except (Exception, SystemExit) as e:
    raise user_files.failure("sweep file", path, e) from e
  for run in runs:
    if not isinstance(run, Run):
      raise errors.UserError(
        f"The sweep file {path} yields an object of type {type(run).__name__}: each item must be "
        f"a grid.Run."
      )
  return runs


def _plan(run: Run, names: dict[Run, str], path: str) -> Planned:
  config, after = run.config, None
  if run.initialised_from is not None:
    after = names.get(run.initialised_from)
    if after is None:
      raise errors.UserError(
        f"The sweep file {path}: initialised_from takes a grid.Run that was yielded before (the "
        f"path of a file goes into config.weights)."
      )
  labels = {} if run.start is None else {"start": run.start}
  try:
    if after is not None:
      config.weights = f"{after}/{_MODEL}"  # below the sweep's folder, which may be moved
    resolved, data = run_config.prepare(config)
    name = os.path.basename(run_config.default_workdir(resolved))
    return Planned(name, resolved, data.spec, labels, after, None)
  except errors.UserError as e:
    mistake = str(e)
  except Exception as e:  # of whatever type its fields are; the other runs continue
    mistake = f"Its config can't be used: {type(e).__name__}: {errors.first_line(e)}."
  # Any field may be the mistake, so the name identifies the whole config.
  text = repr(sorted(config.to_dict().items(), key=str))
  digits = hashlib.sha256(text.encode()).hexdigest()[:8]
  name = os.path.basename(f"{config.get('name')}-{digits}")
  return Planned(name, config, None, labels, after, mistake)
