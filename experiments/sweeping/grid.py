"""A sweep file, and the runs that it asks for.

A sweep file is a Python file with a function that yields runs:

    from bit_jax.configs import cifar10
    from experiments.sweeping import grid

    def get_runs():
      for shots in (1, 5):
        yield grid.Run(cifar10.get_config(f"model=BiT-M-R50x1,shots={shots}"))

A run's folder is named as `python -m bit_jax.train` names it, so a run whose config changes is
another run, and one that is listed twice is run once.
"""

import dataclasses
import fnmatch
import hashlib
import os
import runpy
from collections.abc import Iterable
from typing import Any

from bit_jax import run_config
from bit_jax.data import datasets
from bit_jax.runtime import errors, user_files

_MODEL = "model.npz"
_FEW_STEPS = 100


@dataclasses.dataclass(frozen=True, eq=False)
class Run:
  """What a sweep file yields.

  Attributes:
    config: With the fields of `configs/base.py`, as a config file returns it.
    start: How the network was initialised, in words for tables and figures; None: the name of its
      checkpoint says it.
    initialised_from: An earlier run of the sweep whose weights this one starts from, in place of
      `config.weights`; it waits for that run.
  """

  config: Any
  start: str | None = None
  initialised_from: "Run | None" = None

  def __post_init__(self) -> None:
    """Copies the config, which the file may change for the next run."""
    object.__setattr__(self, "config", self.config.copy_and_resolve_references())


@dataclasses.dataclass(frozen=True)
class Planned:
  """A run of which it is known what it takes, or why it can't be made.

  Attributes:
    name: Of its folder.
    config: Resolved, unless there is a mistake; weights of an earlier run are a path below the
      sweep's folder.
    spec: The data set, unless there is a mistake.
    labels: What tables and figures are told of the run: 'start'.
    after: Name of the run that must be finished before, or None.
    mistake: A sentence on why the run can't be made, or None.
    listed: How often the sweep file yields it.
  """

  name: str
  config: Any
  spec: datasets.DatasetSpec | None
  labels: dict[str, str]
  after: str | None
  mistake: str | None
  listed: int = 1


def scored_at_the_end(config: Any) -> Any:
  """Returns the config with one evaluation, after its last step, which is all that a table needs.

  Args:
    config: With the fields of `configs/base.py`, those that set its length included; changed in
      place.

  Raises:
    UserError: A field has a value that can't be used.
  """
  steps = run_config.resolve(config)[0].total_steps
  config.eval_every = steps
  config.checkpoint_every = checkpoint_every(steps)
  return config


def checkpoint_every(total_steps: int) -> int:
  """Returns the steps between two saves of a run: what a kill costs at most.

  A twentieth of the run, but no less than is quickly made again.
  """
  return max(_FEW_STEPS, total_steps // 20)


def load(path: str, only: str | None = None) -> list[Planned]:
  """Returns the runs of a sweep file, each once, in its order.

  Needs no weights, and of the data only what describes the user's own images (`data_path`).

  Args:
    path: The sweep file.
    only: Takes runs whose name matches this pattern (`fnmatch`), and those that they wait for.

  Raises:
    UserError: There is no such file, it doesn't run, or it yields something else, or nothing.
  """
  planned: dict[str, Planned] = {}
  names: dict[int, str] = {}
  for run in _yielded(path):
    one = _plan(run, names, path)
    names[id(run)] = one.name
    if (same := planned.get(one.name)) is not None:
      one = dataclasses.replace(same if same.labels else one, listed=same.listed + 1)
    planned[one.name] = one
  chosen = list(planned.values())
  if only is not None:
    chosen = _matching(planned, only)
  if not chosen:
    raise errors.UserError(f"The sweep file {path} yields no run{_matched(only)}.")
  return chosen


def _yielded(path: str) -> list[Run]:
  """Returns what `get_runs()` of a sweep file yields."""
  if not os.path.isfile(path):
    raise errors.UserError(
      f"There is no sweep file {path!r}: give its path, such as --config=experiments/fewshot.py."
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
        f"The sweep file {path} yields a {type(run).__name__}, where each must be a grid.Run."
      )
  return runs


def _plan(run: Run, names: dict[int, str], path: str) -> Planned:
  config, after = run.config, None
  if run.initialised_from is not None:
    after = names.get(id(run.initialised_from))
    if after is None:
      raise errors.UserError(
        f"The sweep file {path} yields a run that is initialised from one that it hasn't yielded: "
        f"initialised_from takes an earlier grid.Run (a file's path goes into config.weights)."
      )
  labels = {} if run.start is None else {"start": run.start}
  try:
    if after is not None:
      config.weights = f"{after}/{_MODEL}"  # below the sweep's folder, wherever that lies
    resolved, spec = run_config.resolve(config)
    name = os.path.basename(run_config.default_workdir(resolved))
  except errors.UserError as e:
    return _mistaken(config, labels, after, str(e))
  except Exception as e:  # of whatever type its fields are; the other runs go on
    mistake = f"Its config can't be used: {type(e).__name__}: {errors.first_line(e)}."
    return _mistaken(config, labels, after, mistake)
  return Planned(name, resolved, spec, labels, after, None)


def _mistaken(config: Any, labels: dict[str, str], after: str | None, mistake: str) -> Planned:
  """Returns a run that can't be made; its name stands for its whole config.

  Any field may be the mistake, those included that are not part of a run's identity.
  """
  text = repr(sorted(config.to_dict().items(), key=str))
  digits = hashlib.sha256(text.encode()).hexdigest()[:8]
  name = os.path.basename(f"{config.get('name')}-{digits}")
  return Planned(name, config, None, labels, after, mistake)


def _matched(only: str | None) -> str:
  if only is None:
    return ""
  hint = "" if set(only) & set("*?[") else f": names are matched whole, so try '*{only}*'"
  return f" whose name matches {only!r}{hint}"


def _matching(planned: dict[str, Planned], pattern: str) -> list[Planned]:
  chosen = {name for name in planned if fnmatch.fnmatch(name, pattern)}
  before = _needed(planned, chosen)
  return [one for name, one in planned.items() if name in chosen | before]


def _needed(planned: dict[str, Planned], names: Iterable[str]) -> set[str]:
  """Returns the names of all runs that must be finished before these."""
  needed: set[str] = set()
  for name in names:
    after = planned[name].after
    while after is not None and after not in needed:
      needed.add(after)
      after = planned[after].after
  return needed
