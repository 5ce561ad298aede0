"""A run before its first step: its data and its initial parameters."""

import contextlib
import dataclasses
import hashlib
import json
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils

from bit_jax import run_config, weights
from bit_jax.data import opening, order, pipeline
from bit_jax.inference import class_matching, footprint, networks
from bit_jax.models import architectures, resnet_v2
from bit_jax.run_config import RunConfig
from bit_jax.runs import description, reporting, run_folder
from bit_jax.runtime import devices, errors, parallel, phrases
from bit_jax.training import resuming
from bit_jax.weights import classes

_OLD_ORDER = (
  "This run was started by a version that permutes training examples in windows, which does not "
  "fully shuffle data sorted by class; the run keeps that order. A new run folder gets a full "
  "permutation."
)


@dataclasses.dataclass(frozen=True)
class Run:
  """What stays the same throughout a run.

  Attributes:
    config: Resolved.
    folder: The run folder.
    start: The file of the initial weights; None: random initialisation.
    hardware: The devices of the run before anything was placed on them.
    layout: [local devices, batch per device] positions in the global batch.
    image_sizes: (height, width) of training and of test images on the devices.
    data: The training and the evaluated examples.
    model: The network.
    is_first: Whether this process is the one that writes.
    began: When the run was called, in seconds of `time.monotonic`.
  """

  config: RunConfig
  folder: pathlib.Path
  start: pathlib.Path | None
  hardware: devices.Description
  layout: np.ndarray
  image_sizes: tuple[tuple[int, int], tuple[int, int]]
  data: pipeline.Loaded
  model: resnet_v2.ResNetV2
  is_first: bool
  began: float

  @property
  def chooses_on(self) -> str:
    """The kind of evaluation that weights are chosen by: `reporting.VAL` or `reporting.TEST`."""
    return reporting.TEST if self.data.validation is None else reporting.VAL

  def out_of_memory(self, advice: str) -> contextlib.AbstractContextManager[None]:
    """Explains that training or an evaluation ran out of memory, with what to try."""
    c = self.config
    return footprint.explained(
      f"with {c.model}, crop {c.crop} and {self.layout.shape[1]} images per device: try {advice}."
    )

  def out_of_memory_at_end(self) -> contextlib.AbstractContextManager[None]:
    """Explains that memory ran out where only the result is left to write."""
    return footprint.explained(
      f"while writing the result. Training is complete and saved in {self.folder}: free some "
      f"memory, then run the same command again to evaluate and write the result."
    )


def load(
  config: RunConfig,
  data: opening.Opened,
  folder: pathlib.Path,
  layout: np.ndarray,
  *,
  weights_at: str | None,
  began: float,
) -> Run:
  """Finds the weights of a run and loads its data.

  Args:
    config: Resolved.
    data: Its data set.
    folder: The run folder.
    layout: [devices, batch per device] positions in the global batch.
    weights_at: The path of the weights if `config.weights` only names them.
    began: When the run was called, in seconds of `time.monotonic`.

  Raises:
    UserError: Weights or data are missing or faulty.
  """
  start, spec, hardware = None, data.spec, devices.describe()
  if spec.tfds_name is not None:
    data.sources()  # before a checkpoint is downloaded: the set may not be prepared
  if config.weights != "none":  # before the data, which may take longer to read
    start = weights.resolve(weights_at or config.weights)
  room = config.resident_share * devices.resident_memory(hardware)
  loaded = pipeline.load(data, run_config.selection(config), room)
  loaded.warnings.extend(description.regime_warnings(config, spec, len(loaded.train)))
  loaded.warnings.extend(description.choice_warnings(config, spec))
  if start is not None and config.head == "keep":
    reference, class_names = weights_at or config.weights, loaded.train.class_names
    loaded.warnings.extend(kept_head_warnings(reference, start, class_names))
  loaded = agree_on_streams(loaded)  # processes must find each other soon after their first try
  dtype = devices.compute_dtype(config.dtype, hardware)
  return Run(
    config=config,
    folder=folder,
    start=start,
    hardware=hardware,
    layout=parallel.local_rows(layout),
    image_sizes=(spec.device_size(config.train_size), spec.device_size(config.test_size)),
    data=loaded,
    model=resnet_v2.create(config.model, spec.num_classes, dtype, hardware.platform),
    is_first=jax.process_index() == 0,
    began=began,
  )


def kept_head_warnings(
  reference: str, start: pathlib.Path, class_names: tuple[str, ...]
) -> list[str]:
  """Returns a sentence if the head of a checkpoint is known to be of other classes.

  Args:
    reference: The checkpoint's name or path, as the user gave it.
    start: Its file.
    class_names: The classes of the data.

  Raises:
    UserError: The head has the same classes in another order.
  """
  head = networks.head_classes(reference, start, len(class_names))
  if head is None:
    return []
  try:
    places = class_matching.match(class_names, head, reference, classes.other_names(head))
  except errors.UserError:
    return [
      f"head=keep starts with the head of {reference}, whose classes have other names "
      f"({phrases.some(head)}) than those of the data ({phrases.some(class_names)}): use head=zero "
      f"unless they mean the same."
    ]
  if (places != np.arange(len(places))).any():
    raise errors.UserError(
      f"The head of {reference} has the classes of the data in another order "
      f"({phrases.some(head)}) than the data ({phrases.some(class_names)}): use head=zero to start "
      f"with a new head."
    )
  return []


def agree_on_streams(data: pipeline.Loaded) -> pipeline.Loaded:
  """Returns the data with each part streamed that any process has no room for.

  All processes take the same steps, but not all need have the same memory.
  """
  parts = {name: getattr(data, name) for name in ("train", "test", "validation")}
  ours = np.array([part is not None and part.examples is None for part in parts.values()])
  short = multihost_utils.process_allgather(ours).any(axis=0)
  streamed = [name for name, any_short in zip(parts, short, strict=True) if any_short]
  changes: dict[str, Any] = {n: dataclasses.replace(parts[n], examples=None) for n in streamed}
  return dataclasses.replace(data, **changes)


def in_recorded_order(run: Run) -> Run:
  """Returns the run with its training examples in the order of the version that started it.

  Its environment must be recorded; the process that records it sends it to the others.
  """
  version = run_folder.order_version(run.folder) if run.is_first else order.VERSION
  version = int(multihost_utils.broadcast_one_to_all(np.int32(version)))
  if version >= order.VERSION:
    return run
  train = dataclasses.replace(run.data.train, window=run.config.shuffle_window)
  if run.data.train.window is None and len(train) > run.config.shuffle_window:
    run.data.warnings.append(_OLD_ORDER)
    if run.is_first:
      print(f"warning: {_OLD_ORDER}")
  return dataclasses.replace(run, data=dataclasses.replace(run.data, train=train))


def checkpoints(run: Run, weights_sha256: str | None) -> resuming.Checkpoints:
  """Returns the checkpoints of a run; its environment must be recorded.

  Args:
    run: The run.
    weights_sha256: Digest of the file of its initial weights, None if there is none.
  """
  facts = (run.data.version, run.data.chosen_on, weights_sha256, run.model.dtype.name)
  text = json.dumps([run_config.identity(run.config), *facts], sort_keys=True)
  return resuming.Checkpoints(
    run.folder / run_folder.CHECKPOINTS,
    hashlib.sha256(text.encode()).hexdigest(),
    older=run.is_first and not run_folder.has_digests(run.folder),
  )


def initial_params(run: Run) -> tuple[Any, str | None]:
  """Returns the parameters before training, and the checkpoint's sha256."""
  config, num_classes = run.config, run.model.num_classes
  architecture = architectures.find(config.model)
  if run.start is not None:
    loaded = weights.load(run.start, architecture, head=config.head, num_classes=num_classes)
    return loaded.params, loaded.sha256
  if config.head == "keep":
    raise errors.UserError("head=keep needs a checkpoint, but weights=none has no head to keep.")
  model = resnet_v2.ResNetV2(architecture, num_classes)
  variables = jax.jit(model.init)(jax.random.key(config.seed), jnp.zeros((1, 32, 32, 3)))
  return jax.device_get(variables["params"]), None
