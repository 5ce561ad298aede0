"""The config of a run: its fields, how open ones are filled, and the identity of a run.

A config file starts from `request()`: an `ml_collections.ConfigDict` in which a field either has
its default or is open (a placeholder). `prepare` opens the data set that it names, and fills the
open fields by the rule and the facts of the data set: the result is a `RunConfig`.
"""

import dataclasses
import hashlib
import json
import os
import types
from collections.abc import Mapping
from typing import Any, Literal, TypeAlias, get_args, get_origin

import ml_collections
from ml_collections.config_dict import FieldReference, placeholder

from bit_jax import hyperrule
from bit_jax.data import datasets, opening
from bit_jax.data.sources import scan
from bit_jax.models import architectures
from bit_jax.runtime import checks, errors, phrases
from bit_jax.weights import catalogue

Request: TypeAlias = ml_collections.ConfigDict

# Fields without effect on the result: they may change between two parts of a run.
_INCIDENTAL = frozenset(
  (
    *("checkpoint_every", "data_dir", "decoded_cache", "eval_batch_size", "log_every"),
    *("microbatch", "profile", "reason", "remat", "resident_share"),
  )
)
# Fields of version 0.1, which enter the hash whatever their value. Never add to this list: a field
# that is added to `RunConfig` enters the hash only where it differs from its default.
_FIRST = frozenset(
  (
    *("base_lr", "batch_size", "checkpoint_every", "crop", "data_dir", "data_path", "dataset"),
    *("decay_steps", "decoded_cache", "deterministic", "dtype", "eval_batch_size", "eval_every"),
    *("head", "keep_best", "log_every", "max_aspect", "microbatch", "min_side", "mixup_alpha"),
    *("model", "momentum", "momentum_dtype", "name", "on_bad_image", "patience", "preset"),
    *("profile", "protocol", "random_crop", "random_flip", "reason", "remat", "resident_share"),
    *("resize", "resolution", "seed", "shots", "shuffle_window", "test_size", "total_steps"),
    *("warmup_steps", "weights"),
  )
)
_MAX_STEPS, _MAX_INT, _MAX_FLOAT = 10**8, 2**31 - 1, 1e30
# The least and the largest value of each number.
_LIMITS: dict[str, tuple[float, float]] = {
  "total_steps": (1, _MAX_STEPS),  # first, since others follow from it
  "warmup_steps": (0, _MAX_STEPS),
  **dict.fromkeys(("resize", "crop", "test_size"), (1, hyperrule.MAX_SIDE)),
  **dict.fromkeys(("batch_size", "eval_batch_size"), (1, hyperrule.MAX_BATCH)),
  **dict.fromkeys(("eval_every", "checkpoint_every", "log_every"), (1, _MAX_INT)),
  **dict.fromkeys(("shots", "patience", "shuffle_window"), (1, _MAX_INT)),
  "seed": (0, hyperrule.MAX_SEED),
  "min_side": (0, _MAX_INT),
  **dict.fromkeys(("base_lr", "mixup_alpha", "momentum", "max_aspect"), (0, _MAX_FLOAT)),
  "resident_share": (0, 1),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunConfig:
  """Every field of a run, resolved.

  A field without a default here is open in a request: the rule (`bit_jax/hyperrule.py`) or the data
  set sets it unless the user does. The rule never changes what a config file or the command line
  (`--config.batch_size=128`) sets.

  A field that is added here needs a default and must not be filled by the rule. The names of
  earlier runs stay as they are: the field enters a run's hash only where it differs from its
  default, so the default must never change.
  """

  name: str = "base"  # in the name of the run folder

  # The network. `weights` is a name (python -m bit_jax.weights list), a path, or 'none' for random
  # initialisation; if left open, it is the checkpoint that the model is named after.
  model: str = "BiT-M-R50x1"
  weights: str
  head: Literal["zero", "keep"] = "zero"  # 'zero': a new head; 'keep': the checkpoint's own

  # The data. `data_dir` is where tfds keeps prepared sets, by default $TFDS_DATA_DIR or
  # ~/tensorflow_datasets. 'final' trains on all of train and evaluates the test set; 'select' holds
  # out a part of train and evaluates that.
  dataset: str
  data_path: str | None = None
  data_dir: str | None = None
  protocol: str = "final"
  shots: int | None = None  # images of each class; None: all
  # Of the subset, the order, crops, flips, MixUp, and random weights: from 0 to 2**32 - 1.
  seed: int = 0

  # Which images are left out, of training and test alike.
  min_side: int = 0  # pixels; images with a shorter side are left out
  max_aspect: float = 0.0  # longer side / shorter side; images above it are left out; 0: no limit
  # Unreadable images 'stop' the run with their list, or are left out ('skip').
  on_bad_image: Literal["stop", "skip"] = "stop"

  # The rule, and what it decides.
  preset: str = "code"  # 'code', 'paper', 'readme_128', 'scaled'
  resolution: str  # 'code', 'paper'; follows preset and data set unless set
  resize: int  # pixels; images are resized to this square,
  crop: int  # pixels; and cropped to this one
  test_size: int  # pixels; test images are resized to it; if left open: crop
  batch_size: int  # over all devices
  total_steps: int  # alone, it stretches warm-up and boundaries with it
  base_lr: float
  warmup_steps: int
  decay_steps: tuple[int, ...]  # a tenth of the rate after each
  mixup_alpha: float  # 0 turns MixUp off
  momentum: float = 0.9
  reason: str = ""  # why fields differ from the rule; printed where they do

  # Turn these off where they change the label: crop for counts and positions, flip for positions
  # and anything that has a left and a right. If left open, the data set decides.
  random_crop: bool
  random_flip: bool

  # By default a run exports its last weights. `keep_best` exports those of the best evaluation, and
  # `patience` ends the run after that many evaluations without a better one. Where your own images
  # have train, val and test parts, both choose on val, the run trains on train alone, and the
  # result is that of test. Other sets have no such part: both choose on the images that the result
  # is measured on, so choose with protocol=select for an accuracy to report.
  keep_best: bool = False
  patience: int | None = None

  # Computation. 'auto' is float32 on CPU and on NVIDIA GPUs without native bfloat16 (compute
  # capability below 8.0: T4, V100), and bfloat16 elsewhere; parameters, their updates and norm
  # statistics are always float32. The same seed gives the same run; on a GPU only with
  # `deterministic`, which makes XLA choose reproducible kernels at some cost in speed.
  dtype: Literal["auto", "float32", "bfloat16"] = "auto"
  deterministic: bool = False
  eval_batch_size: int = 256  # over all devices; no effect on the result

  # Memory. `microbatch`: images of one forward and backward pass on each device, a number or
  # 'auto' for as many as fit. Gradients are accumulated over micro-batches, which is the same step
  # up to rounding. `remat` recomputes activations in the backward pass instead of keeping them, at
  # a third more computation: True, False, or 'auto' (only where nothing fits without). It has no
  # effect on CPU. What fits depends on what else is in memory: set a number for the same rounding
  # in every run. In bfloat16, momentum takes half the memory; updates are a little less exact.
  microbatch: int | str = "auto"
  remat: bool | str = "auto"
  momentum_dtype: Literal["float32", "bfloat16"] = "float32"

  # A set that takes at most this share of a device's memory is decoded once and kept on the
  # devices; a larger one is streamed (0: every set is). Each epoch permutes all training examples.
  # Only a whole set prepared by tfds with more than `shuffle_window` examples is permuted in
  # windows of that many, whose records are close together on disk.
  resident_share: float = 0.4
  shuffle_window: int = 65_536
  # Keeps what was read and decoded as files below $BIT_JAX_CACHE, for later epochs and runs.
  decoded_cache: bool = False

  # In steps. If left open: evaluations and checkpoints five times a run, logs twenty times or more.
  eval_every: int
  checkpoint_every: int
  log_every: int
  profile: bool = False  # trace five steps for TensorBoard's profiler

  # Fields of a user's config file that bit_jax doesn't have. They are part of a run's identity.
  extra: Mapping[str, Any] = dataclasses.field(default_factory=dict)

  @property
  def train_size(self) -> int:
    """Side in pixels of the square that training images are resized to before any crop."""
    return self.resize if self.random_crop else self.crop

  @property
  def chooses(self) -> bool:
    """Whether a run chooses its weights, or its end, by its evaluations."""
    return self.keep_best or self.patience is not None

  def to_dict(self) -> dict[str, Any]:
    """Returns {field: value}, with those of `extra`, sorted by name, as `config.json` holds it."""
    fields = dataclasses.asdict(self)
    return dict(sorted({**fields.pop("extra"), **fields}.items()))


def request() -> Request:
  """Returns the fields of `RunConfig` with their defaults; those without one are open."""
  config = ml_collections.ConfigDict()
  for name, field in _fields().items():
    value, kind = _default(field), _type_of(field)
    if value is None:
      config[name] = placeholder(kind)
    else:  # a field of several types needs a reference, others take the type of their default
      config[name] = FieldReference(value, field_type=kind) if kind is object else value
  return config


def _fields() -> "dict[str, dataclasses.Field[Any]]":
  return {field.name: field for field in dataclasses.fields(RunConfig) if field.name != "extra"}


def _default(field: "dataclasses.Field[Any]") -> Any:
  return None if field.default is dataclasses.MISSING else field.default


def _type_of(field: "dataclasses.Field[Any]") -> type:
  """Returns the type of a field's values, None left out; `object` if there are several."""
  if isinstance(field.type, types.UnionType):
    kinds = [kind for kind in get_args(field.type) if kind is not types.NoneType]
    return kinds[0] if len(kinds) == 1 else object
  origin = get_origin(field.type)
  kind = str if origin is Literal else origin or field.type
  assert isinstance(kind, type)
  return kind


def choices(name: str) -> tuple[str, ...]:
  """Returns the values that a field of `RunConfig` is limited to by its type; () if it isn't."""
  hint = _fields()[name].type
  return get_args(hint) if get_origin(hint) is Literal else ()


def prepare(
  request: Request | RunConfig, found: scan.Scan | None = None
) -> tuple[RunConfig, opening.Opened]:
  """Opens the data set of a request, once, and resolves the request by its facts.

  Needs no accelerator, no weights and no set of tensorflow-datasets; scans the user's own images.

  Args:
    request: The request.
    found: As in `opening.open_set`.

  Raises:
    UserError: A field has a value that can't be used, or the user's images are missing or faulty.
  """
  fields = _checked_fields(request)
  if fields["dataset"] is None:
    raise errors.UserError(
      "The config names no data set: choose a file such as configs/cifar10.py, or set dataset to "
      f"one of {', '.join(datasets.NAMES)}."
    )
  data = opening.open_set(
    datasets.Request(
      name=fields["dataset"],
      protocol=fields["protocol"],
      path=fields["data_path"],
      data_dir=fields["data_dir"],
      val_apart=fields["keep_best"] or fields["patience"] is not None,
    ),
    found,
  )
  return _resolve(fields, data.spec), data


def resolve(config: Request | RunConfig, spec: datasets.DatasetSpec) -> RunConfig:
  """Returns the config with every open field set, by the rule and by the facts of the data set.

  A field that the user set stays as it is. Where only `total_steps` was set, warm-up and boundaries
  keep their place relative to it; of `resize` and `crop`, one alone sets the other in the rule's
  proportion.

  Args:
    config: A request, or a resolved config. A field that was added since version 0.1 may be absent
      and then has its default.
    spec: The facts of its data set.

  Raises:
    UserError: A field has a value that can't be used, or names something unknown.
  """
  return _resolve(_checked_fields(config), spec)


def _resolve(fields: dict[str, Any], spec: datasets.DatasetSpec) -> RunConfig:
  """Does what `resolve` does, for fields of `_checked_fields`, which it changes."""
  given = types.SimpleNamespace(**fields)

  def fill(**values: Any) -> None:
    fields.update({name: value for name, value in values.items() if fields[name] is None})

  architectures.find(given.model)
  _check_limits(fields)
  fill(resolution=spec.resolution or ("paper" if given.preset == "paper" else "code"))
  resize, crop = hyperrule.resolution(spec.image_size, given.model, fields["resolution"])
  if given.crop is not None:
    fill(resize=round(given.crop * resize / crop))
  if given.resize is not None:
    fill(crop=round(given.resize * crop / resize))
  fill(resize=resize, crop=crop)
  rule = hyperrule.schedule(given.preset, num_examples(given, spec), given.batch_size)
  if given.total_steps is not None:
    rule = hyperrule.stretch(rule, given.total_steps)
  fill(**dataclasses.asdict(rule), test_size=fields["crop"])
  fill(eval_every=max(1, fields["total_steps"] // 5))
  fill(checkpoint_every=fields["eval_every"])
  fill(log_every=min(100, max(1, fields["total_steps"] // 20)))
  if given.weights is None:
    fields["weights"] = catalogue.default_for(given.model)
  fill(random_crop=spec.crop_safe, random_flip=spec.flip_safe)
  fields["decay_steps"] = tuple(fields["decay_steps"])
  _check_limits(fields)
  resolved = RunConfig(**fields)
  _check(resolved)
  return resolved


def selection(config: RunConfig) -> datasets.Selection:
  """Returns what a run takes of its data set."""
  names = [field.name for field in dataclasses.fields(datasets.Selection)]
  return datasets.Selection(**{name: getattr(config, name) for name in names})


def num_examples(config: RunConfig | Request, spec: datasets.DatasetSpec) -> int:
  """Returns the number of labelled training examples: few-shot, `shots` of each class."""
  return spec.num_train if config.shots is None else int(config.shots) * spec.num_classes


def identity(config: RunConfig | Request | Mapping[str, Any]) -> dict[str, Any]:
  """Returns the fields of a resolved config that tell this run from any other.

  A field that was added since version 0.1 is left out where it has its default: earlier runs keep
  their names, and can be resumed.

  Args:
    config: Resolved, or what `config.json` holds.
  """
  plain = config if isinstance(config, Mapping) else config.to_dict()
  later = later_fields()
  return {
    name: value
    for name, value in plain.items()
    if name not in _INCIDENTAL and not (name in later and _same(value, later[name]))
  }


def later_fields() -> dict[str, Any]:
  """Returns {field: default} of the fields that `RunConfig` has gained since version 0.1."""
  return {name: field.default for name, field in _fields().items() if name not in _FIRST}


def _checked_fields(config: Request | RunConfig) -> dict[str, Any]:
  """Returns every field, unknown ones in 'extra'.

  Raises:
    UserError: A field of version 0.1 is absent, one has another type, or an unknown one can't be
      written to `config.json`.
  """
  given: dict[str, Any] = config.to_dict()
  if missing := sorted(_FIRST - given.keys()):
    raise errors.UserError(
      f"The config has no {phrases.some(missing)}: start from that of a file such as "
      f"configs/cifar10.py."
    )
  known = _fields()
  extra = {name: value for name, value in given.items() if name not in known}
  for name, value in extra.items():
    try:
      json.dumps(value)
    except TypeError as e:
      raise errors.UserError(
        f"The config field {name} must be a text, a number, True, False, None, or a "
        f"tuple, list or dict of these, not {value!r}."
      ) from e
  fields = later_fields() | {name: value for name, value in given.items() if name in known}
  for name, value in fields.items():
    kind, default = _type_of(known[name]), _default(known[name])
    accepted = {float: (float, int), tuple: (tuple, list)}.get(kind, kind)
    right = isinstance(value, accepted) and (kind in (bool, object) or type(value) is not bool)
    if not right and (value is not None or default is not None):
      raise errors.UserError(f"{name}={value!r} can't be used: it must be of type {kind.__name__}.")
  return {**fields, "extra": extra}


def _check_limits(fields: Mapping[str, Any]) -> None:
  for name, limits in _LIMITS.items():
    if fields[name] is not None:
      checks.in_range(name, fields[name], *limits)


def _check(c: RunConfig) -> None:
  """Raises a `UserError` if a value of a resolved config can't be used."""
  for name in _fields():
    if allowed := choices(name):
      checks.one_of(name, getattr(c, name), allowed)
  if c.microbatch != "auto" and (type(c.microbatch) is not int or c.microbatch < 1):
    raise errors.UserError(
      f"microbatch must be 'auto' or a whole number of at least 1, not {c.microbatch!r}."
    )
  if c.remat != "auto" and type(c.remat) is not bool:
    raise errors.UserError(f"remat must be 'auto', True or False, not {c.remat!r}.")
  if c.momentum >= 1:
    raise errors.UserError(f"momentum must be below 1, not {c.momentum!r}.")
  if 0 < c.max_aspect < 1:
    raise errors.UserError(f"max_aspect must be 0 (no limit) or at least 1, not {c.max_aspect!r}.")
  if c.crop > c.resize:
    raise errors.UserError(
      f"crop={c.crop} is larger than resize={c.resize}: raise resize or lower crop."
    )
  if c.warmup_steps > c.total_steps:
    raise errors.UserError(
      f"The warm-up of {c.warmup_steps:,} steps is longer than the run of {c.total_steps:,}: lower "
      f"warmup_steps or raise total_steps."
    )
  steps = list(c.decay_steps)
  if not all(type(s) is int for s in steps) or steps != sorted(steps):
    raise errors.UserError(
      f"decay_steps must be a tuple of rising integers, e.g. (200,300,400), not {c.decay_steps!r}."
    )
  for step in steps:
    checks.in_range("decay_steps", step, 0, _MAX_INT)
  if not c.name.isprintable() or not c.name or "/" in c.name:
    raise errors.UserError(
      f"name={c.name!r} can't be a part of the run folder's name: use letters, digits, '-', '_' "
      f"and '.'."
    )


def _same(value: Any, default: Any) -> bool:
  """Returns whether two values are equal in `config.json`, which has no tuples."""
  return bool(json.loads(json.dumps(value)) == json.loads(json.dumps(default)))


def config_hash(config: RunConfig | Request) -> str:
  """Returns eight hexadecimal digits of a hash of a resolved config's identity."""
  text = json.dumps(identity(config), sort_keys=True)
  return hashlib.sha256(text.encode()).hexdigest()[:8]


def default_workdir(config: RunConfig | Request) -> str:
  """Returns the run folder of a resolved config: the same command finds it again.

  `runs/<config>-<model>-<shots>-s<seed>-<hash>`, where the hash covers its identity.
  """
  shots = "full" if config.shots is None else f"{config.shots}shot"
  name = f"{config.name}-{config.model}-{shots}-s{config.seed}-{config_hash(config)}"
  return os.path.join("runs", name)
