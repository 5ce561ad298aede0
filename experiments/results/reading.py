"""From one folder to the run in it, with every field checked: others may have written it."""

import dataclasses
import datetime
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import ml_collections

from bit_jax import hyperrule, run_config, weights
from bit_jax.data import datasets, opening
from bit_jax.models import architectures
from bit_jax.runs import description, run_folder
from experiments import ledger
from experiments.results import fields, folders, recipes

RANDOM = "random initialisation"
DISAGREE = "config.json and environment.json disagree on the checkpoint"
THEN = ", then "  # in text, between the places of a run that went on elsewhere
_REGIMES = ("small", "medium", "large")  # of `hyperrule.REGIMES`
_METRICS = ("top1", "top5", "loss")
_WITH_PATH = ("npz", "folder")
_INT, _NUMBER, _TEXT, _BOOL = "a whole number", "a number", "text", "true or false"
_FIELDS = {  # of a resolved config, without which a run can't be compared with any other
  **dict.fromkeys(("dataset", "protocol", "model", "weights", "preset", "resolution"), _TEXT),
  **dict.fromkeys(("seed", "resize", "crop", "test_size", "batch_size", "total_steps"), _INT),
  "warmup_steps": _INT,
  **dict.fromkeys(("base_lr", "mixup_alpha"), _NUMBER),
  **dict.fromkeys(("random_crop", "random_flip", "keep_best"), _BOOL),
}


@dataclasses.dataclass(frozen=True)
class Run:
  """A finished run.

  Attributes:
    name: Its folder below the one that was searched.
    sweep: The sweep that made it, or ''.
    model: As in the config.
    architecture: The short name, or the model's where the architecture isn't known.
    start: How its network was initialised.
    label: What its sweep calls that, or ''.
    dataset: Name of the data set; of the user's own images, of their file or folder.
    protocol: 'final' or 'select'.
    regime: 'small', 'medium' or 'large', the rule's regimes, or 'unknown'.
    shots: Examples of each class; None: all.
    seed: The seed.
    recipe: How it was trained.
    rule: A sentence on how that relates to the rule.
    reason: Why, in the words of the config; often ''.
    config: The resolved config.
    num_train: Images trained on.
    num_test: Images scored, or None.
    num_classes: Classes, or None.
    steps: Steps done.
    metrics: {'top1': accuracy in [0, 1], 'loss': ..., and 'top5' where there is one}.
    wall_seconds: Of all attempts of a sweep, or None.
    step_seconds: Of the steps after the first, or None.
    images_per_second: Of the same steps, or None.
    startup_seconds: From the beginning of the last attempt to the end of its first step, or None.
    startup_began: When a sweep began that attempt, with its time zone, or None.
    devices: Kind of the devices; several where it went on elsewhere, in their order.
    num_devices: How many, or None where it isn't known or wasn't always the same.
    machines: What the run says of its machine, likewise; empty if nothing.
    data: Version of the data, or ''.
    checkpoint_sha256: Of the checkpoint, '' if there was none.
    config_hash: Of the config's identity.
    started: ISO 8601, or ''.
    warnings: Of the run, and on what its network has seen before.
    checkpoint_agrees: Whether config and environment don't name different checkpoints.
    complete: Whether it trained on and scored all images that its data set has for that.
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
  shots: int | None
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
    """What a legend calls it: the checkpoint alone where that names the architecture."""
    named = self.architecture in self.start
    return self.start if named else f"{self.architecture}, {self.start}"

  @property
  def place(self) -> str:
    """What it ran on: how many devices of which kind; of a CPU the machine, which says more."""
    several = f"{self.num_devices} x " if (self.num_devices or 1) > 1 else ""
    machine = f" ({THEN.join(self.machines)})" if self.devices == ("cpu",) else ""
    return f"{several}{THEN.join(self.devices)}{machine}"

  @property
  def cell(self) -> tuple[str, str, int | None, str]:
    """Data set, protocol, shots and network: what runs of different recipes are compared in."""
    return self.dataset, self.protocol, self.shots, self.network

  @property
  def per_class(self) -> float | None:
    """Training images of each class, the mean where all are used; None if it isn't known."""
    if self.shots is not None:
      return self.shots
    return self.num_train / self.num_classes if self.num_classes else None


class LeftOutError(Exception):
  """A folder holds no run that can be compared; the message is the reason."""


def outcome(folder: folders.Folder) -> tuple[str, str]:
  """Returns 'finished', 'failed' or 'unfinished', and what there is to say of the latter two.

  Raises:
    LeftOutError: It is none of them that could be told of.
  """
  if run_folder.RESULT in folder.contents:
    return "finished", ""
  if run_folder.RESULT in folder.faults:
    raise LeftOutError(f"result.json {folder.faults[run_folder.RESULT]}")
  if ledger.ERROR in folder.contents and not _went_on(folder):
    error = folder.contents[ledger.ERROR]
    parts = [
      fields.plain(error[name]) for name in ("kind", "message") if error.get(name) is not None
    ]
    return "failed", ": ".join(parts) or "error.json doesn't say why"
  if ledger.ERROR in folder.faults:
    return "failed", f"error.json {folder.faults[ledger.ERROR]}"
  if ledger.SWEEP in folder.contents and not {*folder.contents, *folder.faults} & {
    run_folder.CONFIG
  }:
    return "unfinished", "stopped, or still running, before its config was written"
  config = _config(folder)
  step, total = ledger.last_step(folder.path), f"{config.total_steps:,}"
  done = f"after step {step:,} of {total}" if step else f"before any of its {total} steps was noted"
  return "unfinished", f"stopped, or still running, {done}"


def _went_on(folder: folders.Folder) -> bool:
  """Returns whether a sweep began the run again after its error was noted, and had no other since.

  Where an attempt's process was killed, the error comes after its beginning, and is its own.
  """
  tried: Any = folder.contents.get(ledger.SWEEP, {}).get("attempts")
  began = ledger.last_began(tried)
  noted = fields.time(folder.contents[ledger.ERROR].get("time"))
  if began is None or noted is None or tried[-1].get("outcome") == "failed":
    return False
  return began > noted


def _config(folder: folders.Folder) -> Any:
  """Returns the config as a `ConfigDict` whose fields can be relied on.

  Raises:
    LeftOutError: It is none, or lacks a field.
  """
  if run_folder.CONFIG in folder.faults:
    raise LeftOutError(f"config.json {folder.faults[run_folder.CONFIG]}")
  if run_folder.CONFIG not in folder.contents:
    raise LeftOutError("there is no config.json")
  raw: dict[str, Any] = folder.contents[run_folder.CONFIG]
  # What runs of earlier versions don't tell of themselves was so with all of them.
  later = {"shots": None, "patience": None, "keep_best": False, "test_size": raw.get("crop")}
  raw = {**run_config.later_fields(), **later, **raw}
  wrong = [f"{name} is not {kind}" for name, kind in _FIELDS.items() if not _is(raw, name, kind)]
  absent = [name for name in _FIELDS if raw.get(name) is None]
  if absent:
    more = f" and {len(absent) - 3} more" if len(absent) > 3 else ""
    raise LeftOutError(
      f"config.json lacks {', '.join(absent[:3])}{more}: no run's, or an old one's"
    )
  for name, kind in (("shots", _INT), ("data_path", _TEXT)):
    if raw.get(name) is not None and not _is(raw, name, kind):
      wrong.append(f"{name} is not {kind}")
  decays: Any = raw.get("decay_steps")
  if not isinstance(decays, list) or None in map(fields.whole, decays):
    wrong.append("decay_steps is no list of whole numbers")
  if wrong:
    raise LeftOutError(f"config.json can't be used: {', '.join(wrong)}")
  try:
    return ml_collections.ConfigDict({**raw, "decay_steps": tuple(decays)})
  except (ValueError, TypeError, KeyError, AttributeError) as e:  # names that can't be a field's
    raise LeftOutError(f"config.json can't be used: {fields.plain(e)}") from e


def _is(raw: Mapping[str, Any], name: str, kind: str) -> bool:
  value = raw.get(name)
  if kind == _TEXT:
    return isinstance(value, str)
  if kind == _BOOL:
    return isinstance(value, bool)
  return (fields.whole if kind == _INT else fields.number)(value) is not None


def spec_finder() -> Callable[..., datasets.DatasetSpec | None]:
  """Returns a function from a config to its data set, or None where that can't be found.

  It also takes `val_apart`, whether the run chose on a validation part (`datasets.Request`).
  """
  known: dict[tuple[Any, ...], datasets.DatasetSpec | None] = {}

  def find(config: Any, *, val_apart: bool = False) -> datasets.DatasetSpec | None:
    described = (config.dataset, config.protocol, config.get("data_path"))
    key = (*described, val_apart)
    if key not in known:
      try:
        known[key] = opening.open_set(datasets.Request(*described, val_apart=val_apart)).spec
      except (ValueError, OSError, TypeError):  # a mistake, or a path that isn't one here
        known[key] = None
    return known[key]

  return find


def read(folder: folders.Folder, find_spec: Callable[..., datasets.DatasetSpec | None]) -> Run:
  """Returns the run of a folder with a result; `start` and `dataset` are made clear later.

  Raises:
    LeftOutError: Config or result can't be used.
  """
  config, result = _config(folder), folder.contents[run_folder.RESULT]
  metrics = {n: v for n in _METRICS if (v := fields.number(result.get(n))) is not None}
  if not 0 <= metrics.get("top1", -1) <= 1:
    raise LeftOutError(f"result.json has no accuracy: top1 is {fields.plain(result.get('top1'))}")
  num_train = fields.whole(result.get("num_train"))
  if num_train is None or num_train < 1:
    told = fields.plain(result.get("num_train"))
    raise LeftOutError(f"result.json tells no images: num_train is {told}")
  environment = folder.contents.get(run_folder.ENVIRONMENT, {})
  sweep = folder.contents.get(ledger.SWEEP, {})
  label = _label(sweep)
  spec = find_spec(config, val_apart="num_val" in result)  # earlier versions trained on it too
  facts = _facts(config, spec, num_train)
  recipe, rule = recipes.recipe_of(config, facts, fields.text(environment.get("dtype")) or None)
  expected = None if spec is None else (run_config.num_examples(config, spec), spec.num_test)
  listed = result.get("warnings")
  warnings = [fields.plain(w) for w in listed] if isinstance(listed, list) else []
  agrees = _checkpoint_agrees(config, environment)
  if not agrees:
    warnings.append(f"{DISAGREE}.")
  checkpoint = fields.text(environment.get("weights_sha256"))
  return Run(
    name=folder.name,
    sweep=fields.plain(sweep.get("sweep", "")),
    model=fields.plain(config.model),
    architecture=_architecture(config.model),
    start=label or _start(config),
    label=label,
    dataset=_dataset(config, environment),
    protocol=fields.plain(config.protocol),
    regime=_regime(facts.num_examples),
    shots=config.shots,
    seed=config.seed,
    recipe=recipe,
    rule=fields.plain(rule),
    reason=fields.plain(config.get("reason") or ""),
    config=config.to_dict(),
    num_train=num_train,
    num_test=fields.whole(result.get("num_test")),
    num_classes=folders.num_classes(folder) if spec is None else spec.num_classes,
    steps=fields.whole(result.get("steps")),
    metrics=metrics,
    wall_seconds=ledger.total_seconds(sweep.get("attempts")),
    step_seconds=fields.positive(result.get("seconds")),
    images_per_second=fields.positive(result.get("images_per_second")),
    startup_seconds=fields.positive(result.get("startup_seconds")),
    startup_began=ledger.last_began(sweep.get("attempts")),
    devices=_used(environment, "device") or ("a device that isn't on record",),
    num_devices=_num_devices(environment),
    machines=_used(environment, "machine"),
    data=fields.text(environment.get("data")),
    checkpoint_sha256=checkpoint,
    config_hash=run_config.config_hash(config),
    started=fields.text(environment.get("started")),
    warnings=(*warnings, *description.relations(config)),
    checkpoint_agrees=agrees,
    complete=expected == (num_train, result.get("num_test")) and not result.get("left_out"),
  )


def _facts(config: Any, spec: datasets.DatasetSpec | None, num_train: int) -> recipes.Facts:
  if spec is None:
    safe = True if config.dataset in _WITH_PATH else None
    return recipes.Facts(num_train, crop_safe=safe, flip_safe=safe)
  return recipes.Facts(
    run_config.num_examples(config, spec),
    spec.image_size,
    spec.crop_safe,
    spec.flip_safe,
    spec.resolution,
  )


def _architecture(model: str) -> str:
  try:
    return architectures.find(model).name
  except ValueError:
    return fields.plain(model)


def _label(sweep: Mapping[str, Any]) -> str:
  """Returns what a sweep calls the start of its run, '' if it has no name for it."""
  labels = sweep.get("labels")
  return fields.text(labels.get("start")) if isinstance(labels, dict) else ""


def _start(config: Any) -> str:
  if config.weights == "none":
    return RANDOM
  return fields.plain("/".join(pathlib.PurePath(config.weights).parts[-2:]))


def _checkpoint_agrees(config: Any, environment: Mapping[str, Any]) -> bool:
  """Returns whether the environment doesn't name another checkpoint than the config does.

  A run writes the same into both. Two paths may differ, as where folders were moved; a name differs
  from all else. There are no hashes of released checkpoints to hold the recorded one against.
  """
  loaded = environment.get("weights")
  if loaded is None or loaded == config.weights:
    return True
  return not {str(loaded), config.weights} & {"none", *weights.CATALOGUE}


def _dataset(config: Any, environment: Mapping[str, Any]) -> str:
  """Returns the name of a set, or of the user's own images their file and digits of its hash."""
  if config.dataset not in _WITH_PATH:
    return fields.plain(config.dataset)
  name, _, digest = fields.text(environment.get("data")).partition(", sha256 ")
  if digest:
    return f"{name} ({digest[:8]})"
  return name or fields.plain(pathlib.PurePath(config.get("data_path") or config.dataset).name)


def _regime(num_examples: int | None) -> str:
  if num_examples is None or num_examples < 1:
    return "unknown"
  return _REGIMES[hyperrule.REGIMES.index(hyperrule.regime(num_examples))]


def _used(environment: Mapping[str, Any], key: str) -> tuple[str, ...]:
  """Returns the kind of the devices, or the machine; several where a run went on elsewhere."""
  kinds = [fields.text(part.get(key)) for part in _parts(environment)]
  return tuple(dict.fromkeys(k for k in kinds if k))


def _num_devices(environment: Mapping[str, Any]) -> int | None:
  counts = {fields.whole(part.get("num_devices")) for part in _parts(environment)} - {None}
  return counts.pop() if len(counts) == 1 else None


def _parts(environment: Mapping[str, Any]) -> list[Mapping[str, Any]]:
  """Returns what is told of where a run began, and then of each place where it went on."""
  resumed = environment.get("resumed")
  others = resumed if isinstance(resumed, list) else ()
  return [environment, *(part for part in others if isinstance(part, dict))]
