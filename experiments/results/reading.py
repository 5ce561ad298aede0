"""Reads the files of a run folder: the state of the run, and of a finished one its `Run`."""

import dataclasses
import datetime
import math
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import ml_collections

from bit_jax import hyperrule, run_config, weights
from bit_jax.data import datasets, opening, vtab
from bit_jax.models import architectures
from bit_jax.runs import description, run_folder
from experiments import ledger
from experiments.results import folders, recipes

VTAB = "VTAB-1k"
RANDOM = "random initialisation"
DISAGREE = "config.json and environment.json name different checkpoints"
THEN = ", then "  # between the devices or machines of a run that was resumed on another one
RATES = ("top1", "balanced_accuracy", "macro_f1")  # metrics in [0, 1] that reports show
METRICS = (*RATES, "top5", "loss")
ALL = math.inf  # `Run.shots` of a run that trained on all examples
_REGIMES = ("small", "medium", "large")  # of `hyperrule.REGIMES`
_REQUIRED = (  # fields of a resolved config without which a run can't be compared with any other
  *("dataset", "protocol", "model", "weights", "preset", "resolution", "seed", "resize", "crop"),
  *("test_size", "batch_size", "total_steps", "warmup_steps", "decay_steps", "base_lr"),
  *("mixup_alpha", "random_crop", "random_flip"),
)


@dataclasses.dataclass(frozen=True)
class Run:
  """A finished run.

  Attributes:
    name: Its folder, relative to the searched one.
    sweep: Name of its sweep, or ''.
    model: As in the config.
    architecture: The short name, or the model's where the architecture isn't known.
    start: How its network was initialised.
    label: The sweep's name for that, or ''.
    dataset: Name of the data set; for the user's own images the name of their file or folder.
    protocol: 'final' or 'select'.
    regime: 'small', 'medium' or 'large', the rule's regimes.
    shots: Examples per class; `ALL`: all examples.
    seed: The seed.
    recipe: How it was trained.
    rule: How the recipe differs from the rule, as text.
    reason: The config's reason for that; often ''.
    config: The resolved config.
    num_train: Training images.
    num_test: Evaluated images, or None.
    num_classes: Classes, or None.
    steps: Completed steps.
    metrics: {name: value} of those `METRICS` that were recorded; all but the loss in [0, 1].
    wall_seconds: Total of a sweep's attempts, or None.
    step_seconds: Time of the steps after the first, or None.
    images_per_second: Of the same steps, or None.
    startup_seconds: From the start of the last attempt to the end of its first step, or None.
    startup_began: When a sweep started that attempt, with time zone, or None.
    devices: Device kinds: one, or several in order where the run was resumed on another kind.
    num_devices: Number of devices, or None where it is unknown or changed.
    machines: Machine descriptions, likewise; empty if not recorded.
    data: Version of the data, or ''.
    checkpoint_sha256: SHA-256 of the initial checkpoint, or ''.
    config_hash: Hash of the config's identity.
    started: ISO 8601, or ''.
    warnings: The run's own, and whether its network was pre-trained on the same data.
    checkpoint_agrees: False if config and environment name different checkpoints.
    complete: Whether it used all training and test images of its data set.
  """

  name: str
  sweep: str
  model: str
  architecture: str
  start: str
  label: str
  dataset: str
  protocol: str
  regime: str
  shots: float
  seed: int
  recipe: recipes.Recipe
  rule: str
  reason: str
  config: Mapping[str, Any]
  num_train: int
  num_test: int | None
  num_classes: int | None
  steps: int | None
  metrics: Mapping[str, float]
  wall_seconds: float | None
  step_seconds: float | None
  images_per_second: float | None
  startup_seconds: float | None
  startup_began: datetime.datetime | None
  devices: tuple[str, ...]
  num_devices: int | None
  machines: tuple[str, ...]
  data: str
  checkpoint_sha256: str
  config_hash: str
  started: str
  warnings: tuple[str, ...]
  checkpoint_agrees: bool
  complete: bool

  @property
  def network(self) -> str:
    """Its name in legends: the checkpoint's, with the architecture unless it is part of it."""
    named = self.architecture in self.start
    return self.start if named else f"{self.architecture}, {self.start}"

  @property
  def task(self) -> str | None:
    """Its VTAB-1k task if it trained on all of the task's 1000 (or 800) examples, else None."""
    name = str(self.config["dataset"])  # not `dataset`, which may be the name of a user's folder
    task = name.removeprefix("vtab/")
    return task if task != name and task in vtab.TASKS and self.shots == ALL else None

  @property
  def subject(self) -> str:
    """Its data set, or `VTAB`, whose tasks are averaged."""
    return self.dataset if self.task is None else VTAB

  @property
  def examples(self) -> str:
    """Its examples per class as text."""
    return examples(self.shots)

  @property
  def place(self) -> str:
    """Number and kind of its devices; for a CPU also the machine."""
    several = f"{self.num_devices} x " if (self.num_devices or 1) > 1 else ""
    machine = f" ({THEN.join(self.machines)})" if self.devices == ("cpu",) else ""
    return f"{several}{THEN.join(self.devices)}{machine}"

  @property
  def per_class(self) -> float | None:
    """Training images per class, the mean if all are used; None if unknown."""
    if self.shots != ALL:
      return self.shots
    return self.num_train / self.num_classes if self.num_classes else None

  def labelled(self, subject: str) -> str:
    """Returns a data set's name, with the protocol unless that is 'final'."""
    return subject if self.protocol == "final" else f"{subject} ({self.protocol})"


def examples(shots: float) -> str:
  """Returns the examples per class as text."""
  return "full" if shots == ALL else f"{shots:.0f}-shot"


class LeftOutError(Exception):
  """A folder holds no run that can be compared; the message is the reason."""


def outcome(folder: folders.Folder) -> tuple[str, str]:
  """Returns 'finished', 'failed' or 'unfinished', and for the latter two the reason or progress.

  Raises:
    LeftOutError: The state can't be determined.
  """
  contents, faults = folder.contents, folder.faults
  if run_folder.RESULT in contents:
    return "finished", ""
  if run_folder.RESULT in faults:
    raise LeftOutError(f"result.json {faults[run_folder.RESULT]}")
  if ledger.ERROR in contents and not _restarted_after_error(folder):
    noted = [contents[ledger.ERROR].get(name) for name in ("kind", "message")]
    parts = [folders.plain(part) for part in noted if part is not None]
    return "failed", ": ".join(parts) or "error.json holds no message"
  if ledger.ERROR in faults:
    return "failed", f"error.json {faults[ledger.ERROR]}"
  if ledger.SWEEP in contents and run_folder.CONFIG not in {*contents, *faults}:
    return "unfinished", "stopped or still running, before its config was written"
  total = f"{_config(folder).total_steps:,}"
  step = ledger.last_step(folder.path)
  done = f"after step {step:,} of {total}" if step else f"no step of {total} logged yet"
  return "unfinished", f"stopped or still running, {done}"


def _restarted_after_error(folder: folders.Folder) -> bool:
  """Returns whether a sweep started another attempt after the error, which hasn't failed so far.

  The error of an attempt whose process was killed is later than the attempt's start.
  """
  attempts: Any = folder.contents.get(ledger.SWEEP, {}).get("attempts")
  began = ledger.last_began(attempts)
  try:
    noted = ledger.moment(folder.contents[ledger.ERROR].get("time", ""))
  except (ValueError, TypeError):
    return False
  return began is not None and attempts[-1].get("outcome") != "failed" and began > noted


def _config(folder: folders.Folder) -> Any:
  """Returns the config as a `ConfigDict` with the fields of `_REQUIRED`, unknown fields included.

  Raises:
    LeftOutError: There is none, or a field is missing or has a wrong type.
  """
  if run_folder.CONFIG not in folder.contents:
    fault = folder.faults.get(run_folder.CONFIG, "is missing")
    raise LeftOutError(f"config.json {fault}")
  raw: dict[str, Any] = folder.contents[run_folder.CONFIG]
  # Runs of earlier versions don't record these fields; all of them had these values.
  later = {"shots": None, "patience": None, "keep_best": False, "test_size": raw.get("crop")}
  raw = {**run_config.later_fields(), **later, **raw}
  if absent := [name for name in _REQUIRED if raw.get(name) is None]:
    more = f" and {len(absent) - 3} more" if len(absent) > 3 else ""
    raise LeftOutError(
      f"config.json lacks {', '.join(absent[:3])}{more}: not a run, or one of an old version"
    )
  request, wrong = run_config.request(), []
  for name in raw.keys() & {*request}:
    try:
      request[name] = raw[name]
      raw[name] = request[name]
    except (TypeError, OverflowError):
      wrong.append(name)
  if wrong:
    raise LeftOutError(f"config.json can't be used: wrong type of {', '.join(sorted(wrong))}")
  return ml_collections.ConfigDict(raw)


def find_spec(
  dataset: str, protocol: str, path: str | None, val_apart: bool
) -> datasets.DatasetSpec | None:
  """Returns a data set (`datasets.Request`), None where it isn't found, as on another machine."""
  try:
    return opening.open_set(datasets.Request(dataset, protocol, path, val_apart=val_apart)).spec
  except (ValueError, OSError, TypeError):
    return None


def read(folder: folders.Folder, find: Callable[..., datasets.DatasetSpec | None]) -> Run:
  """Returns the run of a folder with a result; `collect` makes `start` unambiguous later.

  Args:
    folder: The folder.
    find: `find_spec`, cached, as it reads the user's own data.

  Raises:
    LeftOutError: Config or result can't be used.
    TypeError, ValueError, AttributeError: A value has another type than in any run.
  """
  config, result = _config(folder), folder.contents[run_folder.RESULT]
  environment = folder.contents.get(run_folder.ENVIRONMENT, {})
  measured, recorded = _of_result(result), _of_environment(environment)
  sweep = _of_sweep(folder.contents.get(ledger.SWEEP, {}))
  # Earlier versions trained on the validation part, too.
  spec = find(config.dataset, config.protocol, config.get("data_path"), "num_val" in result)
  num_train = measured["num_train"]
  num_examples = num_train if spec is None else run_config.num_examples(config, spec)
  expected = None if spec is None else (num_examples, spec.num_test)
  dtype = folders.text(environment.get("dtype")) or None
  recipe, rule = recipes.recipe_of(config, num_examples, spec, dtype)
  agrees = _checkpoint_agrees(config, environment)
  warnings = [*(result.get("warnings") or ()), *([] if agrees else [f"{DISAGREE}."])]
  return Run(
    name=folder.name,
    **_of_config(config),
    **measured,
    **recorded,
    **sweep,
    start=sweep["label"] or _start(config),
    dataset=_dataset(config, environment),
    regime=_REGIMES[hyperrule.REGIMES.index(hyperrule.regime(num_examples))],
    recipe=recipe,
    rule=folders.plain(rule),
    num_classes=_num_classes(folder) if spec is None else spec.num_classes,
    warnings=(*map(folders.plain, warnings), *description.relations(config)),
    checkpoint_agrees=agrees,
    complete=expected == (num_train, result.get("num_test")) and not result.get("left_out"),
  )


def _of_config(config: Any) -> dict[str, Any]:
  return {
    "model": folders.plain(config.model),
    "architecture": _architecture(config.model),
    "protocol": folders.plain(config.protocol),
    "shots": ALL if config.shots is None else config.shots,
    "seed": config.seed,
    "reason": folders.plain(config.get("reason") or ""),
    "config": config.to_dict(),
    "config_hash": run_config.config_hash(config),
  }


def _of_result(result: Mapping[str, Any]) -> dict[str, Any]:
  metrics = {n: v for n in METRICS if (v := folders.number(result.get(n))) is not None}
  if not 0 <= metrics.get("top1", -1) <= 1:
    found = folders.plain(result.get("top1"))
    raise LeftOutError(f"result.json has no accuracy: top1 is {found}")
  num_train = folders.whole(result.get("num_train"))
  if num_train is None or num_train < 1:
    found = folders.plain(result.get("num_train"))
    raise LeftOutError(f"result.json has no training images: num_train is {found}")
  return {
    "metrics": {n: v for n, v in metrics.items() if n not in RATES or 0 <= v <= 1},
    "num_train": num_train,
    "num_test": folders.whole(result.get("num_test")),
    "steps": folders.whole(result.get("steps")),
    "step_seconds": folders.positive(result.get("seconds")),
    "images_per_second": folders.positive(result.get("images_per_second")),
    "startup_seconds": folders.positive(result.get("startup_seconds")),
  }


def _of_environment(environment: Mapping[str, Any]) -> dict[str, Any]:
  counts = _distinct(environment, "num_devices", folders.whole)
  return {
    "devices": _distinct(environment, "device", folders.text) or ("unknown device",),
    "num_devices": counts[0] if len(counts) == 1 else None,
    "machines": _distinct(environment, "machine", folders.text),
    "data": folders.text(environment.get("data")),
    "checkpoint_sha256": folders.text(environment.get("weights_sha256")),
    "started": folders.text(environment.get("started")),
  }


def _distinct(
  environment: Mapping[str, Any], key: str, checked: Callable[[Any], Any]
) -> tuple[Any, ...]:
  """Returns the distinct values of a field at the start of a run and wherever it was resumed."""
  parts = (environment, *(environment.get("resumed") or ()))
  values = [checked(part.get(key)) for part in parts]
  return tuple(dict.fromkeys(value for value in values if value))


def _of_sweep(sweep: Mapping[str, Any]) -> dict[str, Any]:
  attempts = sweep.get("attempts")
  return {
    "sweep": folders.plain(sweep.get("sweep", "")),
    "label": folders.text((sweep.get("labels") or {}).get("start")),
    "wall_seconds": ledger.total_seconds(attempts),
    "startup_began": ledger.last_began(attempts),
  }


def _architecture(model: str) -> str:
  try:
    return architectures.find(model).name
  except ValueError:
    return folders.plain(model)


def _start(config: Any) -> str:
  if config.weights == "none":
    return RANDOM
  return folders.plain("/".join(pathlib.PurePath(config.weights).parts[-2:]))


def _checkpoint_agrees(config: Any, environment: Mapping[str, Any]) -> bool:
  """Returns False if the environment names another checkpoint than the config.

  A run writes the same into both. Two paths may differ, as after moving folders; a released name
  may not. No hashes of released checkpoints were published that could be compared.
  """
  loaded = environment.get("weights")
  if loaded is None or loaded == config.weights:
    return True
  return not {str(loaded), config.weights} & {"none", *weights.CATALOGUE}


def _dataset(config: Any, environment: Mapping[str, Any]) -> str:
  """Returns the name of a set, or for the user's own images their file and digits of its hash."""
  if config.dataset not in recipes.WITH_PATH:
    return folders.plain(config.dataset)
  name, _, digest = folders.text(environment.get("data")).partition(", sha256 ")
  if digest:
    return f"{name} ({digest[:8]})"
  return name or folders.plain(pathlib.PurePath(config.get("data_path") or config.dataset).name)


def _num_classes(folder: folders.Folder) -> int | None:
  """Returns the number of lines of a run's list of classes, None if there is no list."""
  try:
    return len((folder.path / "classes.txt").read_bytes().splitlines()) or None
  except OSError:
    return None
