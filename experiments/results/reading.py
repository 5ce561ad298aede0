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
from bit_jax.report import values
from bit_jax.runs import description, run_folder
from bit_jax.runtime import phrases
from experiments import ledger
from experiments.results import folders, recipes

VTAB = "VTAB-1k"
RANDOM = "random initialisation"
DISAGREE = "config.json and environment.json name different checkpoints"
THEN = ", then "  # between the devices or machines of a run that was resumed on another one
RATES = ("top1", "balanced_accuracy", "macro_f1", "top5")  # metrics in [0, 1]
METRICS = (*RATES, "loss")
ALL = math.inf  # `Run.shots` of a run that trained on all examples
_REQUIRED = (  # fields of a resolved config without which a run can't be compared with any other
  *("dataset", "protocol", "model", "weights", "preset", "resolution", "seed"),
  *("random_crop", "random_flip", *recipes.BY_RULE),
)

# Fields of `Run`: the file that records each, its name there, and the check of its value.
_RECORDED: dict[str, tuple[str, str, Callable[[Any], Any]]] = {
  "num_test": (run_folder.RESULT, "num_test", values.whole),
  "steps": (run_folder.RESULT, "steps", values.whole),
  "step_seconds": (run_folder.RESULT, "seconds", values.positive),
  "images_per_second": (run_folder.RESULT, "images_per_second", values.positive),
  "startup_seconds": (run_folder.RESULT, "startup_seconds", values.positive),
  "data": (run_folder.ENVIRONMENT, "data", values.text),
  "checkpoint_sha256": (run_folder.ENVIRONMENT, "weights_sha256", values.text),
  "started": (run_folder.ENVIRONMENT, "started", values.text),
}


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
    images_per_second: Speed of the same steps, or None.
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
    parts = [values.plain(part) for part in noted if part is not None]
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
  attempts = ledger.checked(folder.contents.get(ledger.SWEEP, {}).get("attempts"))
  try:
    noted = ledger.moment(folder.contents[ledger.ERROR].get("time", ""))
  except (ValueError, TypeError):
    return False
  last = attempts[-1] if attempts else {"outcome": "failed"}
  return last["outcome"] != "failed" and ledger.moment(last["started"]) > noted


def _config(folder: folders.Folder) -> Any:
  """Returns the config as a `ConfigDict` with the fields of `_REQUIRED`, unknown fields included.

  Raises:
    LeftOutError: There is none, or a field is missing or has a wrong type.
  """
  if run_folder.CONFIG not in folder.contents:
    raise LeftOutError(f"config.json {folder.faults.get(run_folder.CONFIG, 'is missing')}")
  raw: dict[str, Any] = folder.contents[run_folder.CONFIG]
  # Runs of earlier versions don't record these fields; all of them had these values.
  later = {"shots": None, "patience": None, "keep_best": False, "test_size": raw.get("crop")}
  raw = {**run_config.later_fields(), **later, **raw}
  if absent := [name for name in _REQUIRED if raw.get(name) is None]:
    raise LeftOutError(
      f"config.json lacks {phrases.some(absent)}: not a run, or one of an old version"
    )
  request = run_config.request()
  for name in sorted(raw.keys() & {*request}):
    try:
      request[name] = raw[name]
      raw[name] = request[name]
    except (TypeError, OverflowError):
      raise LeftOutError(f"config.json can't be used: wrong type of {name}") from None
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
  files = (run_folder.RESULT, run_folder.ENVIRONMENT, ledger.SWEEP)
  contents = {name: folder.contents.get(name, {}) for name in files}
  result, environment, sweep = contents.values()
  recorded = {n: check(contents[file].get(key)) for n, (file, key, check) in _RECORDED.items()}
  config, attempts = _config(folder), sweep.get("attempts")
  metrics, num_train = _metrics(result)
  label = values.text((sweep.get("labels") or {}).get("start"))
  # Earlier versions trained on the validation part, too.
  spec = find(config.dataset, config.protocol, config.get("data_path"), "num_val" in result)
  num_examples = num_train if spec is None else run_config.num_examples(config, spec)
  used_all = (
    spec is not None and recorded["num_test"] == spec.num_test and num_train == num_examples
  )
  dtype = values.text(environment.get("dtype")) or None
  recipe, rule = recipes.recipe_of(config, num_examples, spec, dtype)
  agrees = _checkpoint_agrees(config, environment)
  warnings = [*(result.get("warnings") or ()), *([] if agrees else [f"{DISAGREE}."])]
  counts = _distinct(environment, "num_devices", values.whole)
  return Run(
    name=folder.name,
    **recorded,
    sweep=values.plain(sweep.get("sweep", "")),
    model=values.plain(config.model),
    architecture=_architecture(config.model),
    start=label or _start(config.weights),
    label=label,
    dataset=_dataset(config, environment),
    protocol=values.plain(config.protocol),
    regime=hyperrule.regime(num_examples).name,
    shots=ALL if config.shots is None else config.shots,
    seed=config.seed,
    recipe=recipe,
    rule=values.plain(rule),
    reason=values.plain(config.get("reason") or ""),
    config=config.to_dict(),
    num_train=num_train,
    num_classes=_num_classes(folder) if spec is None else spec.num_classes,
    metrics=metrics,
    wall_seconds=ledger.total_seconds(attempts),
    startup_began=ledger.last_began(attempts),
    devices=_distinct(environment, "device", values.text) or ("unknown device",),
    num_devices=counts[0] if len(counts) == 1 else None,
    machines=_distinct(environment, "machine", values.text),
    config_hash=run_config.config_hash(config),
    warnings=(*map(values.plain, warnings), *description.relations(config)),
    checkpoint_agrees=agrees,
    complete=used_all and not result.get("left_out"),
  )


def _metrics(result: Mapping[str, Any]) -> tuple[dict[str, float], int]:
  """Returns the metrics and the number of training images."""
  metrics = {n: v for n in METRICS if (v := values.number(result.get(n))) is not None}
  metrics = {n: v for n, v in metrics.items() if n not in RATES or 0 <= v <= 1}
  num_train = values.whole(result.get("num_train")) or 0
  for name, valid in {"top1": "top1" in metrics, "num_train": num_train > 0}.items():
    if not valid:
      raise LeftOutError(f"result.json can't be used: {name} is {values.plain(result.get(name))}")
  return metrics, num_train


def _distinct(
  environment: Mapping[str, Any], key: str, checked: Callable[[Any], Any]
) -> tuple[Any, ...]:
  """Returns the distinct values of a field at the start of a run and wherever it was resumed."""
  parts = (environment, *(environment.get("resumed") or ()))
  return tuple(dict.fromkeys(value for part in parts if (value := checked(part.get(key)))))


def _architecture(model: str) -> str:
  try:
    return architectures.find(model).name
  except ValueError:
    return values.plain(model)


def _start(checkpoint: str) -> str:
  named = values.plain("/".join(pathlib.PurePath(checkpoint).parts[-2:]))
  return RANDOM if checkpoint == "none" else named


def _checkpoint_agrees(config: Any, environment: Mapping[str, Any]) -> bool:
  """Returns False if the environment names another checkpoint than the config.

  A run writes the same into both. Two paths may differ, as after moving folders; a released name
  may not. No hashes of released checkpoints were published that could be compared.
  """
  named = {config.weights, str(environment.get("weights") or config.weights)}
  return len(named) == 1 or not named & {"none", *weights.CATALOGUE}


def _dataset(config: Any, environment: Mapping[str, Any]) -> str:
  """Returns the name of a set, or for the user's own images their file and digits of its hash."""
  if config.dataset not in datasets.OWN:
    return values.plain(config.dataset)
  name, _, digest = values.text(environment.get("data")).partition(", sha256 ")
  if digest:
    return f"{name} ({digest[:8]})"
  return name or values.plain(pathlib.PurePath(config.get("data_path") or config.dataset).name)


def _num_classes(folder: folders.Folder) -> int | None:
  """Returns the number of lines of a run's list of classes, None if there is no list."""
  try:
    return len((folder.path / run_folder.CLASSES).read_bytes().splitlines()) or None
  except OSError:
    return None
